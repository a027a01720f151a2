"""The page ``docs/metrics.md``, from the declarations: a test holds the file to what is said here."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from lettermta.metrics import REGISTRY
from lettermta.metrics.registry import OTHER, Declared, Label, Part

_HEAD = """\
# Metrics

`GET /metrics` on an address of `[http] listen` answers in Prometheus's text format. This page is printed by `python -m lettermta.metrics`,
from the declarations that the daemon itself counts by (`lettermta/metrics/`).

The same address answers two questions of supervisors and load balancers:

| request | 200 | 503 |
|---|---|---|
| `GET /health` | `ok`, and a line for each warning | JSON: `status`, `failures` and `warnings` by what was checked |
| `GET /ready` | `ready`, and the same lines: send mail here | the same JSON; `status` is `starting`, `stopping` or `failing` |

There is no login, and TLS where `[http] tls` says so: listen on loopback, or where only your own machines get to. What is counted:

- Counters start from 0 with the process. All series whose labels have a fixed list of values are there from the start.
- A label never holds an address, a domain, a token or an id. Each list of values ends in `other`: what is not in the list counts there.
- Sizes are octets, durations seconds, moments seconds since 1970.
- Gauges of the queue and of what waits for a sink are measured when `/metrics` is asked for.
- `process_*` (memory, descriptors, CPU seconds, start) come from the kernel and are named as in every Prometheus client.

Some questions that they answer, in PromQL:

| question | expression |
|---|---|
| messages accepted a second | `rate(lettermta_messages_accepted_total[5m])` |
| hard bounces of the last hour | `increase(lettermta_recipients_total{state="bounced"}[1h])` |
| messages of one sync, on average | `rate(lettermta_spool_commit_units_sum[5m]) / rate(lettermta_spool_commit_units_count[5m])` |
| is somebody guessing tokens? | `sum by (result) (rate(lettermta_logins_total{result!="succeeded"}[5m]))` |
| is the disk the limit? | `histogram_quantile(0.99, rate(lettermta_spool_commit_seconds_bucket[5m]))` |
| does a reader of events hang? | `lettermta_events_behind > 10000` |
"""


def page() -> str:
    """The text of ``docs/metrics.md``."""
    return "\n".join([_HEAD, *(line for part in REGISTRY.parts for line in _part(part))])


def _part(part: Part) -> Iterator[str]:
    yield f"## {part.title}\n"
    for metric in part.declared:
        yield from _metric(metric)


def _metric(metric: Declared) -> Iterator[str]:
    yield f"### {metric.name}\n"
    by = f", by {' and '.join(f'`{label.name}`' for label in metric.labels)}" if metric.labels else ""
    yield f"*{metric.kind.capitalize()}{by}.*"
    yield textwrap.fill(metric.meaning, 140, break_long_words=False, break_on_hyphens=False) + "\n"
    if metric.buckets:
        yield f"Buckets: {', '.join(f'{bound:g}' for bound in metric.buckets)}.\n"
    if metric.labels:
        yield "| label | value | meaning |\n|---|---|---|"
        yield "\n".join(row for label in metric.labels for row in _rows(label)) + "\n"


def _rows(label: Label) -> Iterator[str]:
    if label.values is None:
        yield f"| `{label.name}` | (a name) | {label.meaning} |"
        return
    for value, meaning in {**label.values, OTHER: "anything else"}.items():
        yield f"| `{label.name}` | `{value}` | {meaning} |"
