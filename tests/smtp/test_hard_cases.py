"""docs/hard-cases.md names tests that there are, for every row that the edge answers for (issue 3, point 3)."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent.parent
PAGE = TESTS.parent / "docs" / "hard-cases.md"
ROWS = {*range(1, 14), 22, 23, 24, 25, 30, 32, 34}


@cache
def named_in(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text())
    return {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def rows() -> dict[int, list[str]]:
    """The tests that each row names."""
    found: dict[int, list[str]] = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 6 and cells[1].isdecimal():
            assert int(cells[1]) not in found
            found[int(cells[1])] = re.findall(r"`([\w/]+\.py::\w+)`", cells[4])
    return found


def test_every_row_of_the_edge_has_its_tests() -> None:
    found = rows()
    assert set(found) >= ROWS
    assert all(found.values()), "a row names no test"


def test_every_test_that_is_named_is_there() -> None:
    missing = [name for names in rows().values() for name in names if name.partition("::")[2] not in named_in(name.partition("::")[0])]
    assert missing == []
