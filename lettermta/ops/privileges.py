"""Root's tools become the daemon's user before they touch its state.

SQLite makes ``-wal`` and ``-shm`` files beside a database whenever it needs them. Made by root they belong to root, and a daemon that runs
as its own user is locked out of its own database from that moment on. So a tool that is started as root (``sudo lettermta-admin …``) takes
on the user that owns the state directory, for good, before it opens anything there. What only root can read (the configuration, a password
file) has to be read before.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path


class NotOurs(PermissionError):
    """The state directory is somebody else's; the text tells whose, and what can be done."""

    def __init__(self, state_dir: Path, remedy: str) -> None:
        whose, ours = _name(state_dir.stat().st_uid), _name(os.geteuid())
        super().__init__(f"{state_dir} belongs to {whose}, and this runs as {ours}: {remedy.format(owner=whose)}")


def become_owner(state_dir: Path) -> None:
    """Become the owner of ``state_dir`` if we are root, and make the directory (mode 0700) if it isn't there.

    A directory that isn't there will belong to the owner of the nearest one above it. Raises OSError; NotOurs where only that owner
    gets in.
    """
    if os.geteuid() == 0:
        owner = _nearest(state_dir).stat()
        if owner.st_uid != 0:
            _become(owner.st_uid, owner.st_gid)
    elif state_dir.exists() and not os.access(state_dir, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise NotOurs(state_dir, "run it as that user, or as root")
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)


def refuse_root(state_dir: Path) -> None:
    """Raise NotOurs for a daemon that would leave root's files where another user's daemon has to read them."""
    if os.geteuid() == 0 and state_dir.exists() and state_dir.stat().st_uid != 0:
        raise NotOurs(state_dir, "start it as {owner} (systemctl start lettermta), or give the directory to root by chown -R")


def _nearest(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _become(uid: int, gid: int) -> None:
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        # A user without a name: systemd's DynamicUser while its service is down, a container's.
        os.setgroups([])
    else:
        gid = user.pw_gid
        os.setgroups(os.getgrouplist(user.pw_name, gid))
    # The user last: without root's rights the groups can't be changed any more.
    os.setgid(gid)
    os.setuid(uid)
