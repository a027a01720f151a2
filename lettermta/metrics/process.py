"""What runs: versions, certificates, reloads."""

import platform

from lettermta import __version__
from lettermta.metrics.parts import PROCESS
from lettermta.metrics.registry import Label

BUILD = PROCESS.gauges(
    "lettermta_build_info",
    "Always 1: what runs.",
    Label("version", "lettermta's version"),
    Label("python", "Python's version"),
)
BUILD[__version__, platform.python_version()].set(1)
CERTIFICATE_EXPIRES = PROCESS.gauge(
    "lettermta_certificate_expires_seconds", "When the first of the certificates in use expires, as seconds since 1970."
)
CERTIFICATE_SELF_SIGNED = PROCESS.gauge(
    "lettermta_certificate_self_signed",
    "1 while a self-signed certificate is in use, none being configured: clients that verify refuse it.",
)
RELOADS = PROCESS.counters(
    "lettermta_reloads",
    "Reloads that were asked for (SIGHUP).",
    Label("result", "what came of it", {"succeeded": "in force", "refused": "faults were found, and the old state stays in force"}),
)
