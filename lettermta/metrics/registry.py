"""How metrics are declared, counted and exposed, on prometheus-client.

Promises that a label never takes more values than it may: what a declaration doesn't list counts as ``other``, so that nothing a client
sends can become a series. Counting costs some 0.3 microseconds, never waits, and may be done in any thread; exposing is for the reactor's
thread, asks the parts first, and is bounded in time. A part that fails then keeps the values that it gave last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import Any, Generic, TypeVar

from attrs import Factory, define, frozen
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics, generate_latest
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

OTHER = "other"
MOST_CHILDREN = 200
"""Series of one metric whose labels take names from the configuration; more of them count as ``other``."""
MEASURE_SECONDS = 5.0
"""How long the parts may take to give their numbers."""

C = TypeVar("C", Counter, Gauge, Histogram)

Measure = Callable[[], Deferred[None] | None]
"""Sets a part's gauges to what holds now; with a Deferred, by the time it fires."""

# Else each counter would have a second series that says when it was made: for us, always the process's start.
disable_created_metrics()  # type: ignore[no-untyped-call]


@frozen
class Label:
    """One label. ``values`` has all that it may be, each with its meaning; None: names that come from the configuration."""

    name: str
    meaning: str
    values: Mapping[str, str] | None = None


@frozen
class Declared:
    """What the page says of one metric. ``name`` is that of the exposition."""

    name: str
    kind: str
    meaning: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()


class Family(dict[Any, C], Generic[C]):
    """One metric's series, by the value of its label, or by a tuple of values in the order of its labels.

    ``family["delivered"].inc()``; on a hot path the series is taken once and kept. Every combination of listed values is there from the
    start with 0, so that its first event shows as an increase.
    """

    def __init__(self, parent: C, labels: Sequence[Label]) -> None:
        super().__init__()
        self._parent: C = parent
        self._labels: tuple[Label, ...] = tuple(labels)
        for combination in _combinations(labels):
            self[combination if len(labels) > 1 else combination[0]] = parent.labels(*combination)

    def __missing__(self, key: Any) -> C:
        """The series of values met for the first time; what is not in bounds is looked up anew each time, and kept nowhere."""
        given = tuple(map(str, key if type(key) is tuple else (key,)))
        bounded = tuple(self._bounded(label, value) for label, value in zip(self._labels, given, strict=True))
        child: C = self._parent.labels(*bounded)
        if bounded == given:
            self[key] = child
        return child

    def _bounded(self, label: Label, value: str) -> str:
        within = len(self) < MOST_CHILDREN if label.values is None else value in label.values
        return value if within else OTHER


def _combinations(labels: Sequence[Label]) -> Iterable[tuple[str, ...]]:
    """All values that the labels may have together; none when one of them is not a list."""
    lists = [(*label.values, OTHER) for label in labels if label.values is not None]
    return product(*lists) if len(lists) == len(labels) else ()


@define
class Part:
    """The metrics of one step of the way, as a section of the page."""

    title: str
    _registry: CollectorRegistry
    declared: list[Declared] = Factory(list)

    def counter(self, name: str, meaning: str) -> Counter:
        """Declare a counter without labels. ``_total`` is added to the name of each counter."""
        self.declared.append(Declared(f"{name}_total", "counter", meaning))
        return Counter(name, meaning, registry=self._registry)

    def counters(self, name: str, meaning: str, *labels: Label) -> Family[Counter]:
        """Declare a counter with labels."""
        self.declared.append(Declared(f"{name}_total", "counter", meaning, labels))
        return Family(Counter(name, meaning, _names(labels), registry=self._registry), labels)

    def gauge(self, name: str, meaning: str) -> Gauge:
        """Declare a gauge without labels."""
        self.declared.append(Declared(name, "gauge", meaning))
        return Gauge(name, meaning, registry=self._registry)

    def gauges(self, name: str, meaning: str, *labels: Label) -> Family[Gauge]:
        """Declare a gauge with labels."""
        self.declared.append(Declared(name, "gauge", meaning, labels))
        return Family(Gauge(name, meaning, _names(labels), registry=self._registry), labels)

    def histogram(self, name: str, meaning: str, buckets: Sequence[float]) -> Histogram:
        """Declare a histogram without labels; ``buckets`` are upper bounds."""
        self.declared.append(Declared(name, "histogram", meaning, (), tuple(buckets)))
        return Histogram(name, meaning, registry=self._registry, buckets=buckets)


def _names(labels: Sequence[Label]) -> list[str]:
    return [label.name for label in labels]


MEASURED_PART = Label("part", "which part it was")


class Registry:
    """All metrics of a process, and how to expose them."""

    _log = Logger()

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._parts: list[Part] = []
        self._own = Part("Metrics", self._registry)
        self._measures: dict[str, Measure] = {}
        self._failures = self._own.counters(
            "lettermta_measurements_failed",
            "Times that a part could not give its numbers when it was asked for them; its gauges then still show the ones before.",
            MEASURED_PART,
        )
        # The kernel's figures on the process: memory, descriptors, CPU seconds, start. Read from /proc when exposing.
        ProcessCollector(registry=self._registry)

    def part(self, title: str) -> Part:
        """A new section."""
        part = Part(title, self._registry)
        self._parts.append(part)
        return part

    @property
    def parts(self) -> list[Part]:
        """All sections, in their order."""
        return [*self._parts, self._own]

    def measure(self, part: str, function: Measure) -> None:
        """Have ``function`` called before each exposition, in the place of an earlier one of the same name."""
        self._measures[part] = function

    def forget(self, part: str) -> None:
        """Call the function of that name no more."""
        self._measures.pop(part, None)

    async def expose(self, clock: IReactorTime) -> bytes:
        """All metrics as they are now, in Prometheus's text format 0.0.4; takes :data:`MEASURE_SECONDS` at most, and does not fail."""
        await DeferredList([self._measured(part, function, clock) for part, function in list(self._measures.items())])
        return generate_latest(self._registry)

    def _measured(self, part: str, function: Measure, clock: IReactorTime) -> Deferred[None]:
        async def measured() -> None:
            waiting = function()
            if waiting is not None:
                await waiting

        return Deferred.fromCoroutine(measured()).addTimeout(MEASURE_SECONDS, clock).addErrback(self._not_measured, part)

    def _not_measured(self, failure: Failure, part: str) -> None:
        self._failures[part].inc()
        self._log.failure("the numbers of {part} could not be had", failure=failure, part=part)
