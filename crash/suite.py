"""A run: some arenas side by side, each with its share of the kills."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from random import Random

from crash.arena import Arena, plan
from crash.ledger import Account
from crash.points import RANDOM
from crash.power import Cut, build
from tests.system.site import Site


def run(directory: Path, kills: int, seed: int, *, arenas: int = 2, told: Callable[[str], None] = lambda _: None) -> Account:
    """Kill so many times; returns the account of all. The same seed makes the same choices."""
    began = time.monotonic()
    library = build(directory)
    given_up = threading.Event()
    shares = [kills // arenas + (number < kills % arenas) for number in range(arenas)]

    def one(number: int) -> Account:
        place = directory / f"site{number}"
        place.mkdir()
        site = Site(place)
        arena = None
        try:
            arena = Arena(f"{'abcdefgh'[number]}", site, library, Random(f"{seed}/{number}"))  # noqa: S311 - a repeatable choice
            # One next server takes messages by DATA, the other one by BDAT.
            arena.deliver(*(["CHUNKING"] if number % 2 else []))
            for count in range(1, shares[number] + 1):
                if given_up.is_set():
                    raise InterruptedError("the run was given up")
                this = arena.round(*plan(count, arena.random))
                if this.lost or count % 25 == 0:
                    told(f"{arena.name}: {count} of {shares[number]} kills, {len(arena.account.lost)} lost")
            return arena.finish()
        finally:
            if arena is not None:
                arena.dispose()
            site.dispose()

    account = Account()
    with ThreadPoolExecutor(arenas) as pool:
        try:
            for each in as_completed([pool.submit(one, number) for number in range(arenas)]):
                account.add(each.result())
        except BaseException:
            given_up.set()  # the others end with their round, and leave nothing running
            raise
    account.seconds = time.monotonic() - began
    return account


def run_broken(directory: Path, site: Site, broken: dict[str, str], seed: int, kills: int = 6) -> Account:
    """Kill a daemon that is broken, until that shows; with no next server, so that all that was promised has to be in the spool."""
    arena = Arena(directory.name, site, build(directory), Random(seed), broken)  # noqa: S311 - a repeatable choice
    try:
        for _ in range(kills):
            arena.round(RANDOM, Cut.LOST)
            if arena.account.lost:
                break
        return arena.account
    finally:
        arena.dispose()
