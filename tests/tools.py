"""Programs that the tests need: found, or installed from Debian's packages, or missed by name. Never skipped in silence."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/local/sbin"])


@functools.cache
def need(tool: str, package: str) -> str:
    """The path of ``tool``; installs Debian's ``package`` when it is missing, and fails the test when that does not help."""
    path = shutil.which(tool, path=_PATH)
    if path is None:
        said = _install(package)
        path = shutil.which(tool, path=_PATH)
        if path is None:
            pytest.fail(f"missing tool: {tool} (Debian package {package}); installing it said: {said}", pytrace=False)
    return path


@functools.cache
def need_perl(module: str, package: str) -> None:
    """Have Perl's ``module``, which a program needs for a part of what it does; the same as :func:`need` otherwise."""
    perl = need("perl", "perl")
    if not _run_as_is([perl, f"-M{module}", "-e", "1"])[0]:
        said = _install(package)
        if not _run_as_is([perl, f"-M{module}", "-e", "1"])[0]:
            pytest.fail(f"missing Perl module: {module} (Debian package {package}); installing it said: {said}", pytrace=False)


def _install(package: str) -> str:
    """Install ``package`` with the lists at hand, or else with fresh ones; returns what the last command said."""
    install = ["apt-get", "install", "-y", "--no-install-recommends", package]
    done, said = _run(install)
    if not done:
        updated, said = _run(["apt-get", "update"])
        if updated:
            _, said = _run(install)
    return said


def _run(command: list[str]) -> tuple[bool, str]:
    return _run_as_is([*([] if os.geteuid() == 0 else ["sudo", "-n"]), *command])


def _run_as_is(command: list[str], folder: Path | None = None) -> tuple[bool, str]:
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=600,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    return result.returncode == 0, (result.stderr or result.stdout).strip()[-1000:]


@functools.cache
def unpacked(*packages: str) -> Path:
    """The files of Debian's ``packages`` in a folder of their own, not installed: for what can't be beside another one that is."""
    folder = Path(tempfile.mkdtemp(prefix="unpacked-"))
    folder.chmod(0o755)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    download = ["apt-get", "download", "-o", "APT::Sandbox::User=root", *packages]
    done, said = _run_as_is(download, folder)
    if not done and _run(["apt-get", "update"])[0]:
        done, said = _run_as_is(download, folder)
    for package in folder.glob("*.deb"):
        unpack, said = _run_as_is(["dpkg", "-x", str(package), str(folder / "root")])
        done = done and unpack
    if not done:
        pytest.fail(f"missing Debian packages {' '.join(packages)}: {said}", pytrace=False)
    return folder / "root"
