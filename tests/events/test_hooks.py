"""Hooks in Python: found by name or refused with the reason, and told of every event."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.logger import capturedLogs
from zope.interface import implementer
from zope.interface.verify import verifyObject

from lettermta.events.dispatcher import Dispatcher
from lettermta.events.feed import LINGER
from lettermta.events.hooks import TIME_LIMIT, HookSink, load_hook
from lettermta.events.sink import IEventSink
from lettermta.interfaces import IEventHook
from lettermta.plugged import Unpluggable

from . import sample_hooks
from .conftest import submit
from .test_dispatcher import fired

HERE = "tests.events.sample_hooks"


@implementer(IEventHook)
class Answering:
    """Answers each event as the test says."""

    def __init__(self, answer) -> None:
        self.answer = answer
        self.events = []

    def event_happened(self, event):
        self.events.append(event)
        return self.answer(event)


def hooked(spool, clock, hook, name="a.b.C"):
    sink = HookSink(name, hook, clock)
    sink.retry = type(sink.retry)(1.0, 300.0, jitter=lambda: 0.0)
    return sink


def begin(spool, clock, *sinks):
    dispatcher = Dispatcher(spool, sinks, clock)
    fired(dispatcher.start())
    clock.advance(LINGER)
    return dispatcher


@pytest.mark.parametrize("name", ["Noting", "factory", "Coroutine"])
def test_a_class_or_factory_is_called(name):
    assert IEventHook.providedBy(load_hook(f"{HERE}.{name}"))


def test_an_object_is_taken_as_it_is():
    assert load_hook(f"{HERE}.instance") is sample_hooks.instance


@pytest.mark.parametrize(
    ("dotted", "words"),
    [
        ("Noting", ["package.module.Class"]),
        ("tests..Noting", ["package.module.Class"]),
        ("no_such_package.hooks.Noting", ["'no_such_package.hooks' cannot be imported", "No module named 'no_such_package'"]),
        ("tests.events.broken_hook_module.X", ["cannot be imported", "a_module_that_is_not_installed"]),
        (f"{HERE}.Missing", [f"module '{HERE}' has no 'Missing'", "expected a class"]),
        (f"{HERE}.Raises", ["making it failed", "LookupError: no such queue"]),
        (f"{HERE}.WantsArguments", ["missing a required argument: 'url'", "expected a section of its own with what it takes: url"]),
        (f"{HERE}.Undeclared", ["does not provide IEventHook", "@implementer(IEventHook)"]),
        (f"{HERE}.Lacking", ["does not provide IEventHook", "event_happened"]),
        (f"{HERE}.WrongArguments", ["does not provide IEventHook", "event_happened"]),
        (f"{HERE}.number", ["is int", "expected a class"]),
    ],
)
def test_a_hook_that_cannot_be_had_is_named_with_the_reason(dotted, words):
    with pytest.raises(Unpluggable) as caught:
        load_hook(dotted)
    for word in [dotted, *words]:
        assert word in str(caught.value)


def test_a_hook_is_made_with_its_settings():
    assert load_hook(f"{HERE}.WantsArguments", {"url": "amqp://x"}).url == "amqp://x"
    assert load_hook(f"{HERE}.Settled", {"size": "12"}).size == 12


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("WantsArguments", {"uri": "x"}, ["'url'", "what it takes: url"]),
        ("Settled", {"size": "1", "colour": "x"}, ["'colour'", "what it takes: size (may be left out)"]),
        ("Settled", {"size": "many"}, ["making it failed", "ValueError", "with size"]),
        ("Noting", {"size": "1"}, ["'size'", "what it takes: nothing"]),
        ("instance", {"size": "1"}, ["an object that is there already", "a class or a factory"]),
    ],
)
def test_settings_that_do_not_fit_are_named(name, settings, words):
    with pytest.raises(Unpluggable) as caught:
        load_hook(f"{HERE}.{name}", settings)
    for word in [name, *words]:
        assert word in str(caught.value)


def test_a_hook_that_does_not_take_being_cancelled_is_told_again_all_the_same(spool, clock):
    class Stubborn(sample_hooks.Noting):
        async def event_happened(self, event):
            self.events.append(event)
            for _ in range(3):
                try:
                    await Deferred()
                except Exception:
                    continue

    hook = Stubborn()
    begin(spool, clock, hooked(spool, clock, hook))
    event = submit(spool)
    with capturedLogs() as logs:
        clock.pump([LINGER, TIME_LIMIT, 1, LINGER])
    assert hook.events == [event, event]
    assert len(logs) == 1


def test_it_is_a_sink(spool, clock):
    verifyObject(IEventSink, hooked(spool, clock, sample_hooks.Noting()))


@pytest.mark.parametrize("kind", [sample_hooks.Noting, sample_hooks.Coroutine])
def test_a_hook_gets_every_event_typed_and_in_order(spool, clock, kind):
    hook = kind()
    events = [submit(spool) for _ in range(150)]
    begin(spool, clock, hooked(spool, clock, hook))
    events += [submit(spool) for _ in range(150)]
    clock.pump([LINGER] * 5)
    assert hook.events == events
    assert hook.events[0].data["metadata"] == {"order_id": "1234"}


def test_the_next_event_waits_for_the_hooks_deferred(spool, clock):
    answers = []
    hook = Answering(lambda event: answers.append(Deferred()) or answers[-1])
    begin(spool, clock, hooked(spool, clock, hook))
    events = [submit(spool), submit(spool)]
    clock.advance(LINGER)
    assert hook.events == events[:1]
    answers[0].callback(None)
    assert hook.events == events


def test_a_failing_hook_gets_the_same_event_again_and_stalls_no_other(spool, clock):
    def refuse(event):
        raise RuntimeError("database is away")

    failing, other = Answering(refuse), sample_hooks.Noting()
    begin(spool, clock, hooked(spool, clock, failing, "bad.Hook"), hooked(spool, clock, other, "good.Hook"))
    events = [submit(spool), submit(spool)]
    with capturedLogs() as logs:
        clock.pump([LINGER] + [0.5] * 20)
    assert failing.events == [events[0]] * 4, "at once, and after 1, 2 and 4 s"
    assert other.events == events
    assert {log["event_id"] for log in logs} == {events[0].id}
    assert len(logs) == 4
    assert logs[0]["log_failure"].getErrorMessage() == "database is away"
    failing.answer = lambda event: None
    clock.pump([0.5] * 20)
    assert failing.events[4:] == events


def test_a_hook_that_blocks_is_named_once_a_minute(spool, clock):
    hook = Answering(lambda event: clock.advance(0.5))
    begin(spool, clock, hooked(spool, clock, hook, "slow.Hook"))
    events = [submit(spool) for _ in range(3)]
    with capturedLogs() as logs:
        clock.advance(LINGER)
    assert hook.events == events
    assert [(log["sink"], log["seconds"], log["event_id"]) for log in logs] == [("hook:slow.Hook", 0.5, events[0].id)]


def _exiting(event):
    raise SystemExit(1)


async def _exiting_later(event):
    raise SystemExit(1)


@pytest.mark.parametrize("answer", [_exiting, _exiting_later])
def test_a_hook_that_wants_to_end_the_process_is_a_failing_one(spool, clock, answer):
    """``sys.exit``, or asyncio's CancelledError: neither is an Exception, and neither ends the telling for good."""
    hook = Answering(answer)
    begin(spool, clock, hooked(spool, clock, hook))
    event = submit(spool)
    with capturedLogs() as logs:
        clock.pump([LINGER, 1, LINGER])
    assert hook.events == [event, event]
    assert logs[0]["event_id"] == event.id


@pytest.mark.parametrize("answer", [lambda event: fail(RuntimeError("no")), lambda event: "an answer", lambda event: Deferred()])
def test_a_deferred_that_fails_or_never_fires_and_nonsense_count_as_failures(spool, clock, answer):
    hook = Answering(answer)
    begin(spool, clock, hooked(spool, clock, hook))
    event = submit(spool)
    with capturedLogs() as logs:
        clock.pump([LINGER, TIME_LIMIT, 1, LINGER])
    assert hook.events == [event, event]
    assert logs[0]["event_id"] == event.id


def test_hooks_keep_their_cursors_by_name(spool, clock):
    dispatcher = begin(spool, clock, hooked(spool, clock, sample_hooks.Noting(), "a.b.C"))
    submit(spool)
    fired(dispatcher.stop())
    assert spool.cursors == {"hook:a.b.C": 1}
