"""Whose files the state's are: what a daemon of root's and a tool of a stranger's are told."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from lettermta.ops.privileges import NotOurs, become_owner, refuse_root


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A directory that isn't root's: ours, where we aren't root."""
    state = tmp_path / "state"
    state.mkdir()
    if os.geteuid() == 0:
        os.chown(state, 54321, 54322)
    return state


def owner_of(state: Path) -> str:
    uid = state.stat().st_uid
    return "user 54321" if uid == 54321 else pwd.getpwuid(uid).pw_name


def test_a_daemon_of_roots_is_refused_where_the_state_is_another_users(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it would write there, the daemon of that user could not read any more."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(NotOurs) as caught:
        refuse_root(state)
    assert str(caught.value).startswith(f"{state} belongs to {owner_of(state)}, and this runs as root: start it as {owner_of(state)}")


def test_a_daemon_of_that_user_and_a_directory_that_is_to_be_made_are_fine(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: state.stat().st_uid)
    refuse_root(state)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    refuse_root(state / "not yet")


def test_a_tool_of_another_users_is_told_whose_the_state_is(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54399)
    monkeypatch.setattr(os, "access", lambda *args, **options: False)
    with pytest.raises(PermissionError) as caught:
        become_owner(state)
    told = f"{state} belongs to {owner_of(state)}, and this runs as user 54399: run it as that user, or as root"
    assert str(caught.value) == told
