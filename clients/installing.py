"""What the clients need, had by every way this project may use: Debian's packages, PyPI and npm. What can't be had fails by name.

Nothing lands outside Debian's own places and the virtual environment's folder ``clients``, which ``make clean`` removes with it.
"""

from __future__ import annotations

import functools
import shutil
import sys
from pathlib import Path

import pytest

from tests import tools

HERE = Path(sys.prefix) / "clients"


@functools.cache
def need_file(path: str, package: str) -> Path:
    """A file of Debian's ``package``, for packages that bring a library and no tool."""
    if not Path(path).exists():
        said = tools._install(package)
        if not Path(path).exists():
            pytest.fail(f"missing file: {path} (Debian package {package}); installing it said: {said}", pytrace=False)
    return Path(path)


@functools.cache
def need_python(requirement: str) -> Path:
    """A Python that has ``requirement``, in a virtual environment of its own: what the clients pull in must not change the daemon's."""
    place = _begin(requirement)
    python = place / "bin" / "python"
    if not (place / "done").exists():
        _carry_out(requirement, [sys.executable, "-m", "venv", str(place)])
        _carry_out(requirement, [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement])
        (place / "done").touch()
    return python


@functools.cache
def need_node(package: str) -> Path:
    """A ``node_modules`` that has npm's ``package``."""
    npm = tools.need("npm", "npm")
    place = _begin(f"npm-{package}")  # PyPI may have one of the same name
    if not (place / "done").exists():
        _carry_out(package, [npm, "install", "--no-audit", "--no-fund", "--prefix", str(place), package])
        (place / "done").touch()
    return place / "node_modules"


def _begin(package: str) -> Path:
    """The folder for ``package``, without the half of an installation that was broken off."""
    place = HERE / "".join(c for c in package if c.isalnum() or c in "-.")
    if not (place / "done").exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    return place


def _carry_out(package: str, command: list[str]) -> None:
    done, said = tools._run_as_is(command)
    if not done:
        pytest.fail(f"missing package: {package}; {' '.join(command)} said: {said}", pytrace=False)
