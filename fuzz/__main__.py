"""Run one target: ``python -m fuzz NAME [--seconds N] [--runs N] [--seed N] [--found FOLDER]``; without a name, list them.

With atheris, inputs that reach new code are kept under ``FOLDER/NAME``, and so is one that breaks a promise, whose path is printed. Ends
with a status other than 0 when a promise is broken.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import itertools
import sys
import time
from pathlib import Path

from fuzz.mutator import inputs

HERE = Path(__file__).parent
TARGETS = sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.py"))


def seeds(target: str) -> list[bytes]:
    """The seeds of a target."""
    return [path.read_bytes() for path in sorted((HERE / "corpus" / target).iterdir())]


def mutate(target: str, runs: int, seconds: float, seed: int) -> int:
    """Run a target on what the mutator makes; returns how many inputs there were."""
    module = importlib.import_module(f"fuzz.fuzz_{target}")
    end = time.monotonic() + seconds
    for count, data in enumerate(itertools.islice(inputs(seeds(target), module.TOKENS, seed), runs)):
        if time.monotonic() >= end:
            return count
        try:
            module.one(data)
        except BaseException as broken:
            broken.add_note(f"fuzz target {target}, input {data!r}")
            raise
    return runs


def guided(target: str, runs: int | None, seconds: int, seed: int, found: Path) -> None:
    """Run a target under atheris, which ends the process."""
    import atheris  # type: ignore[import-untyped]

    with atheris.instrument_imports(include=["lettermta", "fuzz"]):
        module = importlib.import_module(f"fuzz.fuzz_{target}")
    found /= target
    found.mkdir(parents=True, exist_ok=True)
    words = found.with_suffix(".words")
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in module.TOKENS))
    limits = [f"-max_total_time={seconds}", f"-seed={seed}", *([] if runs is None else [f"-runs={runs}"])]
    paths = [f"-dict={words}", f"-artifact_prefix={found}/crash-", str(found), str(HERE / "corpus" / target)]
    atheris.Setup([f"fuzz {target}", "-max_len=4096", "-print_final_stats=1", *limits, *paths], module.one)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{octet:02x}" for octet in word)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Run a fuzz target.")
    parser.add_argument("target", nargs="?", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--runs", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--found", type=Path, default=HERE.parent / "build" / "fuzz")
    chosen = parser.parse_args()
    if chosen.target is None:
        print("\n".join(TARGETS))
    elif importlib.util.find_spec("atheris") is not None:
        guided(chosen.target, chosen.runs, chosen.seconds, chosen.seed, chosen.found)
    else:
        print("atheris is not installed (pip install 'lettermta[fuzz]'): the mutator runs instead", file=sys.stderr)
        count = mutate(chosen.target, chosen.runs or sys.maxsize, chosen.seconds, chosen.seed)
        print(f"{chosen.target}: {count} inputs, no promise broken")


if __name__ == "__main__":
    main()
