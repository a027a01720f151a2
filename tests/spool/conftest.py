"""A spool for each test, closed behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .hand import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "spool" / "0")
    yield desk
    if desk.spool._lock is not None:
        desk.close()
