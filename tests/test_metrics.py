"""What is counted: bounded whatever is counted, exposed as Prometheus reads it, and described page by page as it is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lettermta import metrics
from lettermta.message import FINAL, State
from lettermta.metrics.page import page
from lettermta.metrics.registry import MEASURE_SECONDS, MOST_CHILDREN, Family, Label, Registry

ROOT = Path(__file__).parent.parent
DECLARED = {metric.name: metric for part in metrics.REGISTRY.parts for metric in part.declared}
RESULT = Label("result", "what came of it", {"good": "it worked", "bad": "it did not"})
NAME = Label("name", "a name of the configuration")

NOT_COUNTED_YET = {
    "SPOOL_COMMIT_SECONDS", "SPOOL_COMMIT_UNITS", "SPOOL_COMMIT_FAILURES", "SPOOL_QUARANTINED", "SPOOL_FREE_BYTES",
    "QUEUE_RECIPIENTS", "QUEUE_MESSAGES", "QUEUE_OLDEST_SECONDS", "QUEUE_IN_HAND", "QUEUE_LANES", "QUEUE_DESTINATIONS",
    "ATTEMPTS", "RECIPIENTS", "DEFERRALS", "DELIVERY_SECONDS", "CHANNELS_OPEN",
    "CERTIFICATE_EXPIRES",
}  # fmt: skip
"""Declared, and waiting for the part that counts it; whoever adds the calls takes the name out."""


def exposed(registry: Registry, clock: Clock | None = None) -> dict[tuple[str, ...], float]:
    """Every sample, as (name, label=value, …)."""
    told: list[bytes] = []
    Deferred.fromCoroutine(registry.expose(clock or Clock())).addCallback(told.append)
    return samples(told[0])


def samples(text: bytes) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(text.decode())
    return {(s.name, *(f"{k}={v}" for k, v in s.labels.items())): s.value for family in families for s in family.samples}


def test_every_listed_value_is_there_from_the_start():
    registry = Registry()
    registry.part("Test").counters("t_tries", "Tries.", RESULT)
    found = {key: value for key, value in exposed(registry).items() if key[0] == "t_tries_total"}
    assert found == {("t_tries_total", f"result={value}"): 0 for value in ("good", "bad", "other")}


def test_two_labels_are_counted_by_a_tuple():
    registry = Registry()
    tries = registry.part("Test").counters("t_tries", "Tries.", NAME, RESULT)
    tries["smtp", "good"].inc()
    tries["smtp", "good"].inc(2)
    assert exposed(registry)["t_tries_total", "name=smtp", "result=good"] == 3


def test_what_a_client_says_never_becomes_a_series():
    """A label's values are bounded, or one client could fill the memory of the daemon and of Prometheus."""
    registry = Registry()
    tries = registry.part("Test").counters("t_tries", "Tries.", RESULT)
    before = len(exposed(registry))
    for number in range(1000):
        tries[f"jane{number}@example.com"].inc()
    assert len(exposed(registry)) == before
    assert len(tries) == 3
    assert exposed(registry)["t_tries_total", "result=other"] == 1000


def test_names_of_the_configuration_are_bounded_too():
    registry = Registry()
    tries = registry.part("Test").counters("t_tries", "Tries.", NAME)
    for number in range(MOST_CHILDREN + 50):
        tries[f"name{number}"].inc()
    assert len(tries) == MOST_CHILDREN
    assert exposed(registry)["t_tries_total", "name=other"] == 50


def test_enumerations_and_numbers_are_counted_by_what_they_print_as():
    registry = Registry()
    codes: Family = registry.part("Test").counters("t_codes", "Codes.", Label("code", "", {"550": "", "delivered": ""}))
    codes[550].inc()
    codes["550"].inc()
    codes[State.DELIVERED].inc()
    codes[599].inc()
    found = exposed(registry)
    assert [found["t_codes_total", f"code={code}"] for code in ("550", "delivered", "other")] == [2, 1, 1]


def test_a_wrong_number_of_labels_is_a_fault_of_the_program():
    tries = Registry().part("Test").counters("t_tries", "Tries.", NAME, RESULT)
    with pytest.raises(ValueError):
        tries["smtp"]


def test_there_are_no_series_of_when_counters_were_made():
    assert not [key for key in exposed(metrics.REGISTRY) if key[0].endswith("_created")]


def test_every_final_state_has_its_counter_and_every_other_its_gauge():
    assert set(DECLARED["lettermta_recipients_total"].labels[0].values) == FINAL
    assert set(DECLARED["lettermta_queue_recipients"].labels[0].values) == set(State) - FINAL


class Measuring(SynchronousTestCase):
    """Gauges that are measured when somebody asks."""

    def setUp(self):
        self.registry = Registry()
        self.size = self.registry.part("Test").gauge("t_size", "Size.")
        self.clock = Clock()

    def exposing(self):
        return Deferred.fromCoroutine(self.registry.expose(self.clock))

    def test_a_part_is_asked_each_time(self):
        sizes = iter([7, 8])
        self.registry.measure("test", lambda: self.size.set(next(sizes)))
        assert [exposed(self.registry)[("t_size",)] for _ in range(2)] == [7, 8]

    def test_a_part_may_take_its_time(self):
        counted: Deferred[int] = Deferred()
        self.registry.measure("test", lambda: counted.addCallback(self.size.set))
        exposing = self.exposing()
        self.assertNoResult(exposing)
        counted.callback(9)
        assert samples(self.successResultOf(exposing))[("t_size",)] == 9

    def test_a_part_that_does_not_answer_holds_nobody_up(self):
        self.size.set(3)
        self.registry.measure("slow", lambda: Deferred())
        exposing = self.exposing()
        self.clock.advance(MEASURE_SECONDS)
        found = samples(self.successResultOf(exposing))
        assert found[("t_size",)] == 3
        assert found["lettermta_measurements_failed_total", "part=slow"] == 1
        assert len(self.flushLoggedErrors()) == 1

    def test_a_part_that_fails_is_counted_and_the_others_are_asked(self):
        self.registry.measure("broken", lambda: 1 / 0)
        self.registry.measure("test", lambda: self.size.set(5))
        found = samples(self.successResultOf(self.exposing()))
        assert found[("t_size",)] == 5
        assert found["lettermta_measurements_failed_total", "part=broken"] == 1
        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1

    def test_a_part_that_is_gone_is_not_asked(self):
        self.registry.measure("test", lambda: self.size.set(5))
        self.registry.forget("test")
        assert samples(self.successResultOf(self.exposing()))[("t_size",)] == 0


class TestPage:
    """docs/metrics.md."""

    def test_the_page_is_what_the_code_declares(self):
        assert (ROOT / "docs/metrics.md").read_text() == page(), "python -m lettermta.metrics > docs/metrics.md"

    def test_it_is_printed_by_the_module(self):
        printed = subprocess.run([sys.executable, "-m", "lettermta.metrics"], capture_output=True, text=True, check=True)
        assert printed.stdout == page()

    def test_what_is_exposed_is_on_it(self):
        told: list[bytes] = []
        Deferred.fromCoroutine(metrics.REGISTRY.expose(Clock())).addCallback(told.append)
        typed = dict(re.findall(r"^# TYPE (\S+) (\S+)$", told[0].decode(), re.M))
        ours = {name: kind for name, kind in typed.items() if not name.startswith("process_")}
        assert ours == {name: metric.kind for name, metric in DECLARED.items()}

    def test_the_questions_ask_for_metrics_that_there_are(self):
        asked = set(re.findall(r"lettermta_\w+", page().partition("\n## ")[0]))
        names = {re.sub(r"_(sum|count|bucket)$", "", name) for name in asked - {"lettermta_"}}
        assert len(names) >= 6
        assert names <= set(DECLARED)


def test_what_is_declared_is_counted_somewhere():
    """A metric that stays 0 for want of a call is worse than none."""
    package = ROOT / "lettermta"
    code = "\n".join(path.read_text() for path in package.rglob("*.py") if "metrics" not in path.relative_to(package).parts)
    kinds = (Family, Counter, Gauge, Histogram)
    declared = {name for name, value in vars(metrics).items() if isinstance(value, kinds)} - {"BUILD"}
    silent = {name for name in declared if not re.search(rf"\bmetrics\.{name}\b", code)}
    assert silent <= NOT_COUNTED_YET, f"nothing counts {', '.join(sorted(silent - NOT_COUNTED_YET))}"
