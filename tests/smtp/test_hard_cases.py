"""docs/hard-cases.md names tests that there are, for every row that lettermta answers for."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent.parent
PAGE = TESTS.parent / "docs" / "hard-cases.md"
ROWS = {*range(1, 36)} - {18}
QUOTED = {*range(14, 18), 19, 26, 27}
"""Rows that a test which is named for them quotes, in its docstring or its module's."""


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
            found[int(cells[1])] = re.findall(r"`([\w/]+\.py::[\w:]+)`", cells[4])
    return found


def test_every_row_of_the_edge_has_its_tests() -> None:
    found = rows()
    assert set(found) >= ROWS
    assert all(found.values()), "a row names no test"


def test_every_test_that_is_named_is_there() -> None:
    missing = [name for names in rows().values() for name in names if name.rpartition("::")[2] not in named_in(name.partition("::")[0])]
    assert missing == []


@cache
def quoted_in(file: str) -> dict[str, set[int]]:
    """The rows that each test of a file quotes; what the module quotes, all of its tests do."""
    tree = ast.parse((TESTS / file).read_text())
    of_all = _rows_in(ast.get_docstring(tree))
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return {node.name: of_all | _rows_in(ast.get_docstring(node)) for node in tests}


def _rows_in(docstring: str | None) -> set[int]:
    found: set[int] = set()
    for quotation in re.findall(r"HARD-CASES rows? ((?:\d+|, | and | to )+)", docstring or ""):
        numbers = [int(number) for number in re.findall(r"\d+", quotation)]
        found |= set(range(numbers[0], numbers[-1] + 1)) if " to " in quotation else set(numbers)
    return found


def test_what_durability_is_about_is_quoted_where_it_is_tested() -> None:
    silent = [
        number
        for number, names in rows().items()
        if number in QUOTED and not any(number in quoted_in(name.partition("::")[0]).get(name.rpartition("::")[2], set()) for name in names)
    ]
    assert silent == []
