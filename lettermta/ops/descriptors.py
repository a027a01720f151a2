"""Open files: the kernel lets a process have only so many, and every connection is one of them.

Promises that connections never take what the rest needs: a daemon that can't open a file or connect to a receiver any more would accept
mail and be unable to keep or to deliver it. Nothing here fails; what can't be had is told in words.
"""

from __future__ import annotations

import resource

SHARE = 0.75
"""The share of all descriptors that connections coming in may take; the rest is for those going out, the spool's files and the log."""


def raise_limit() -> float:
    """Have as many open files as the hard limit allows, and return how many that is; infinite where there is no limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft  # some kernels have a bound of their own below the hard limit
    return allowed()


def allowed() -> float:
    """How many open files this process could have; infinite where there is no limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return float("inf") if hard == resource.RLIM_INFINITY else hard


def connections_within(wanted: int, descriptors: float) -> int:
    """How many of the connections that are wanted there can be."""
    return wanted if wanted <= descriptors * SHARE else int(descriptors * SHARE)


def shortage(wanted: int, descriptors: float) -> str | None:
    """What to tell who wants more connections than there can be, or None."""
    possible = connections_within(wanted, descriptors)
    if possible == wanted:
        return None
    return (
        f"[limits] connections = {wanted} needs more than the {descriptors:.0f} open files that the process may have:"
        f" {possible} connections are let in (raise LimitNOFILE= in systemd/lettermta.service or ulimit -Hn, or lower the key)"
    )
