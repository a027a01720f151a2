"""Standing rules, and how a message is meant and found by whoever types its name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lettermta.message import Attempt, Outcome, State

from ..spool.hand import NOW, Desk
from .tool import ROOT, Run

UP = pytest.mark.parametrize("up", [True, False], ids=["up", "down"])


def reasons(run: Run) -> dict[str, str]:
    return {row["recipient"][0]: row["last_reply"] for row in run("list", "--state", "held", "--json").rows}


@pytest.mark.usefixtures("both")
def test_what_two_rules_hold_is_held_until_both_are_lifted(run: Run) -> None:
    assert run("hold", "--where", "project=demo", "--reason", "first", "--yes").code == os.EX_OK
    assert run("hold", "--where", "domain=example.com", "--reason", "second", "--yes").code == os.EX_OK
    assert run("release", "--rule", "1", "--yes").code == os.EX_OK
    assert reasons(run) == {"a": "second", "c": "second", "e": "250 OK"}, "the last one was held before"
    assert run("events", "--event", "released", "--json").rows[0]["data"]["recipient"] == "b@Example.ORG"
    assert run("release", "--rule", "2", "--yes").code == os.EX_OK
    assert "second" not in reasons(run).values()


@pytest.mark.usefixtures("both")
def test_an_operator_can_release_what_a_rule_holds_while_it_stands(run: Run) -> None:
    assert run("hold", "--where", "project=demo", "--yes").code == os.EX_OK
    assert run("release", "--recipient", "a@example.com").err == "1 recipient released\n"


@pytest.mark.usefixtures("both")
def test_a_rule_that_is_not_there_is_told_before_anything_is_asked(run: Run) -> None:
    ran = run("release", "--rule", "99")
    assert (ran.code, ran.err) == (os.EX_NOHOST, "there is no rule 99\n")


def test_a_rule_looks_at_something(run: Run, ids: list[str]) -> None:
    ran = run("hold", "--where", "project=", "--yes")
    assert (ran.code, "something is expected behind the sign" in ran.err) == (os.EX_USAGE, True)


@pytest.mark.usefixtures("both")
def test_that_there_is_no_rule_is_said(run: Run) -> None:
    assert run("hold", "--rules").err == "there is no standing rule\n"
    assert run("hold", "--rules", "--json").err == ""


@UP
def test_behind_a_hold_the_last_reply_is_what_the_other_side_said(
    run: Run, ids: list[str], config: Path, daemon: Callable[..., Any], up: bool
) -> None:
    """Why it was held is over with the hold; the reply of the last attempt that is kept comes back."""
    desk = Desk(config.parent / "state" / "spool" / "0")
    [entry] = [one for one in desk.due("example.com", NOW * 2) if one.id == ids[0]]
    outcomes = [Outcome(one, State.DEFERRED, "451 4.7.1 Try again later", NOW + 60) for one in entry.recipients]
    desk.reactor.wait(desk.spool.record(entry, outcomes, [], Attempt(NOW, 0.5, "mx.example.com in clear", {})))
    desk.close()
    if up:
        daemon()
    run("hold", ids[0], "--reason", "wait for legal")
    assert reasons(run)["a"] == "wait for legal"
    run("release", ids[0])
    said = {row["recipient"][0]: row["last_reply"] for row in run("list", "--id", ids[0], "--json").rows}
    assert said == {"a": "451 4.7.1 Try again later", "b": None}


@pytest.mark.usefixtures("both")
def test_a_message_is_meant_by_its_id_alone(run: Run, ids: list[str]) -> None:
    assert run("hold", ids[0]).err == "2 recipients held\n"
    assert run("release", "--id", ids[0], ids[0]).err == "2 recipients released\n"
    assert run("remove", "--id", ids[0], ids[1]).code == os.EX_USAGE
    assert run("remove", ids[0]).err == "2 recipients removed\n"


@pytest.mark.usefixtures("both")
def test_a_message_that_was_not_tried_yet_is_no_unknown_one(run: Run, ids: list[str]) -> None:
    ran = run("trace", ids[1])
    assert (ran.code, "none was made yet" in ran.err) == (os.EX_OK, True)
    assert run("trace", "nobody").code == os.EX_NOHOST


@UP
def test_an_internationalized_address_is_found_in_each_spelling(run: Run, config: Path, daemon: Callable[..., Any], up: bool) -> None:
    """RFC 5890 section 2.3: A-labels and U-labels are the same domain; replies and addresses are found without regard to case."""
    desk = Desk(config.parent / "state" / "spool" / "0")
    desk.store("Käthe@bücher.example")
    desk.store("kurt@xn--bcher-kva.example")
    desk.close()
    if up:
        daemon()
    for domain in ("bücher.example", "BÜCHER.example", "xn--bcher-kva.example", "XN--BCHER-KVA.EXAMPLE"):
        assert len(run("list", "--domain", domain, "--json").rows) == 2, domain
    assert run("list", "--recipient", "KÄTHE@BÜCHER.EXAMPLE", "--json").recipients == "K"
    assert run("hold", "--where", "domain=BÜCHER.example", "--reason", "Grün", "--yes").err.endswith("2 recipients held\n")
    assert len(run("list", "--reason", "GRÜN", "--json").rows) == 2


def test_who_has_closed_the_standard_streams_gets_an_exit_code_and_no_traceback(ids: list[str], config: Path) -> None:
    command = f'exec "{sys.executable}" -m lettermta.ops.queue -c "{config}" list'
    for closed in (">&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"):
        ran = subprocess.run(["sh", "-c", f"{command} {closed}"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert (ran.returncode, "Traceback" in ran.stderr) == (os.EX_OK, False), closed
