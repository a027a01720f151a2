"""Each fuzz target for a moment, from its seeds: the long run is ``make fuzz``."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import fuzz_content, fuzz_proxy
from fuzz.__main__ import TARGETS, mutate, seeds
from fuzz.mutator import inputs
from fuzz.promises import LONGEST, Broken, pumped
from lettermta.smtp.content import ContentReader
from lettermta.smtp.proxy import ProxyFault, ProxyHeader

ROOT = Path(__file__).parent.parent
RUNS = 1000


@pytest.mark.parametrize("target", TARGETS)
def test_no_promise_is_broken(target: str, tmp_path: Path) -> None:
    """By atheris where it is installed, or else by the mutator."""
    if importlib.util.find_spec("atheris") is None:
        mutate(target, RUNS, seconds=60.0, seed=1)
        return
    run = subprocess.run(
        [sys.executable, "-m", "fuzz", target, "--runs", str(RUNS), "--found", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-6000:]
    assert f"Done {RUNS} runs" in run.stderr


def test_every_target_has_seeds_and_each_of_them_passes() -> None:
    """A seed that fails here was found by the fuzzer and is kept, so that what it broke stays mended."""
    assert sorted(path.name for path in (ROOT / "fuzz" / "corpus").iterdir()) == TARGETS
    for target in TARGETS:
        assert mutate(target, len(seeds(target)), seconds=60.0, seed=1) == len(seeds(target)) > 0


def test_smuggling_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2023-51764 and its kin: a reader that takes LF . LF for the end (HARD-CASES row 1)."""

    class Lenient(ContentReader):
        def feed(self, data: bytes) -> bytes | None:
            return super().feed(data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))

    monkeypatch.setattr(fuzz_content, "ContentReader", Lenient)
    with pytest.raises(Broken) as caught:
        mutate("content", RUNS, seconds=60.0, seed=1)
    assert any("input b" in note for note in caught.value.__notes__)


def test_an_undeclared_exception_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless(ProxyHeader):
        def feed(self, data: bytes):  # type: ignore[no-untyped-def]
            try:
                return super().feed(data)
            except ProxyFault as fault:
                raise KeyError(str(fault)) from None

    monkeypatch.setattr(fuzz_proxy, "ProxyHeader", Careless)
    with pytest.raises(KeyError):
        mutate("proxy", RUNS, seconds=60.0, seed=1)


def test_quadratic_time_is_within_reach_of_pumping() -> None:
    """What a few octets can't show, many of the same can."""
    assert pumped(b"\x01\x00abc") == [b"\x01\x00abc", b"a" + b"b" * (LONGEST - 3) + b"bc"]
    assert pumped(b"\x01\x01abc") == [b"\x01\x01abc"]
    pairs = [pumped(bytes([start, length]) + b"x" * 40) for start in (0, 39, 255) for length in (0, 28, 252)]
    assert all(len(pair) == 2 and len(pair[1]) <= LONGEST for pair in pairs)


def test_the_mutator_makes_the_same_of_the_same_seed() -> None:
    first, again, other = (list(itertools.islice(inputs([b"seed"], [b"word"], seed), 200)) for seed in (1, 1, 2))
    assert first == again != other
    assert first[0] == b"seed"
