"""What a run came to, as the text that goes into ``docs/durability.md``."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path

from crash.ledger import Account, Round
from crash.points import EVERY, STOPPED
from crash.power import Cut

BEGIN, END = "<!-- the table of make crash -->", "<!-- its end -->"


def text(account: Account, command: str) -> str:
    """The figures and the table, in Markdown."""
    ended = [each for each in account.rounds if each.snapshot is not None]
    killed = [each for each in ended if each.point != STOPPED.name]
    windows = sorted(account.windows) or [0.0]
    facts = [
        ("kills", f"{len(killed)}, {sum(each.cut is not Cut.NONE for each in killed)} of them with a power cut"),
        ("messages with a 250", f"{account.acknowledged:,}"),
        ("accepted, the 250 lost with the daemon", f"{account.unanswered:,}"),
        ("**lost**", f"**{len(account.lost)}**"),
        ("recipients", f"{account.recipients:,}"),
        ("copies received", f"{account.received:,}"),
        ("duplicates", f"{account.duplicates:,}"),
        ("explained by the window", f"{account.explained:,}"),
        ("the window", f"{statistics.median(windows) * 1000:.0f} ms at the median, {windows[-1] * 1000:.0f} ms at the most"),
        ("events", f"{account.events:,}, each of them once by its id; {account.repeated:,} lines repeated octet by octet"),
        ("lines of the event log torn by a power cut", f"{account.torn:,}, and their events told again"),
        ("changes that power cuts took back", f"{account.writes:,} of content, {account.entries:,} of directories"),
        ("other faults", f"{len(account.faults)}"),
        ("seconds", f"{account.seconds:.0f}"),
    ]
    lines = [f"`{command}`", "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts), ""]
    lines += ["| killed at | times | power cuts: all lost | torn | messages with a 250 | lost | duplicates | explained |"]
    lines += ["|---|--:|--:|--:|--:|--:|--:|--:|"]
    lines += [_row(point.name, [each for each in ended if each.point == point.name]) for point in EVERY]
    return "\n".join([*lines, _row("all", ended)])


def _row(name: str, rounds: list[Round]) -> str:
    def total(values: Iterable[int]) -> str:
        return f"{sum(values):,}"

    cells = [
        f"{len(rounds):,}",
        total(each.cut is Cut.LOST for each in rounds),
        total(each.cut is Cut.TORN for each in rounds),
        total(each.acknowledged for each in rounds),
        total(each.lost for each in rounds),
        total(each.duplicates for each in rounds),
        total(each.explained for each in rounds),
    ]
    return f"| {name} | {' | '.join(cells)} |"


def write(page: Path, told: str) -> None:
    """Put the text between the page's two marks. Raises ValueError when they aren't there."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has not both of {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{told}\n\n{END}{after}")
