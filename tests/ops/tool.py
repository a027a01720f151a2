"""``lettermta-queue`` as tests run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen

ROOT = Path(__file__).parents[2]
CONFIG = "[mta]\nstate_dir = state\nhostname = mta.example\n[listener a]\nports = 2525\n"


@frozen
class Ran:
    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def recipients(self) -> str:
        """The first letters of the recipients."""
        return "".join(row["recipient"][0] for row in self.rows)


Run = Callable[..., Ran]
