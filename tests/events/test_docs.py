"""docs/events.md: its examples are what the code makes, and its hook works as shown."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from lettermta import event
from lettermta.event import message_event, response
from lettermta.events.dispatcher import Dispatcher
from lettermta.events.hooks import HookSink, load_hook
from lettermta.message import Outcome, Reply, ReplyClass, State
from lettermta.testing.spool import MemorySpool

from .conftest import submit

PAGE = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
EXAMPLES = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", PAGE, re.M | re.S)]
NAMES = [
    event.CREATED,
    event.SENT,
    event.DELIVERED,
    event.SOFT_BOUNCED,
    event.HARD_BOUNCED,
    event.FAILED,
    event.SPAM_COMPLAINT,
    event.AUTO_REPLIED,
    event.UNSUBSCRIBED,
]
COMMON = ("message_id", "subject", "metadata", "tag", "tags", "headers")


def made_again(example):
    """The example made by the code, from its data."""
    data = dict(example["data"])
    facts = json.dumps({name: data.pop(name) for name in COMMON}, separators=(",", ":")).encode()
    context = json.dumps(example["context"], separators=(",", ":")).encode()
    if data.get("response"):
        said = data["response"]
        data["response"] = response(Reply(said["status_code"], said["enhanced_status_code"], said["content"]))
    return message_event(example["event"], 0.0, example["data"]["message_id"], facts, context, **data)


def test_each_event_has_its_example():
    assert [example["event"] for example in EXAMPLES] == NAMES
    assert all(f"| `{name}` |" in PAGE for name in NAMES)


@pytest.mark.parametrize("example", EXAMPLES, ids=NAMES)
def test_the_examples_are_what_the_code_makes(example):
    made = made_again(example)
    shown = json.dumps({**example, "id": made.id, "timestamp": event.timestamp(0.0)}, separators=(",", ":"), ensure_ascii=False)
    assert made.payload.decode() == shown


def test_a_line_holds_neither_line_feed_nor_blank_between_fields():
    payload = made_again(EXAMPLES[2]).payload
    assert b"\n" not in payload
    assert b", " not in payload
    assert b'": ' not in payload


def test_an_event_has_what_it_tells_with_types():
    bounced = made_again(next(example for example in EXAMPLES if example["event"] == event.HARD_BOUNCED))
    assert (bounced.project, bounced.route, bounced.tag, bounced.subject) == ("demo", "outgoing", "orders", "Your order")
    assert (bounced.recipient, bounced.metadata) == ("jane@example.com", {"order_id": "1234"})
    assert bounced.reply == Reply(550, "5.1.1", "No such user")
    assert bounced.reply.permanent
    assert bounced.classification is ReplyClass.INVALID_RECIPIENT
    created = made_again(next(example for example in EXAMPLES if example["event"] == event.CREATED))
    assert (created.recipient, created.reply, created.classification, created.reason) == (None, None, None, None)


class WorkedExample(TestCase):
    """The page's hook, as a user would install it, under the real reactor."""

    def test_the_hook_on_the_page_works(self):
        from twisted.internet import reactor

        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
        (directory / "shop_hooks.py").write_text(code)
        self.patch(sys, "path", [str(directory), *sys.path])
        self.addCleanup(sys.modules.pop, "shop_hooks", None)
        hook = load_hook("shop_hooks.BounceList", {"path": str(directory / "bounced.txt")})
        spool = MemorySpool()
        dispatcher = Dispatcher(spool, [HookSink("shop_hooks.BounceList", hook, reactor)], reactor)
        bounced = made_again(EXAMPLES[4])

        async def scenario():
            await dispatcher.start()
            await deferLater(reactor, 0)
            submit(spool)
            [(lane, _)] = await spool.lanes()
            [entry] = await spool.due(lane, 1.0, 10)
            outcome = Outcome(entry.recipients[0], State.BOUNCED, "550 5.1.1 No such user")
            await spool.record(entry, [outcome], [bounced])
            await dispatcher.stop()

        def check(_):
            self.assertEqual((directory / "bounced.txt").read_text(), f"{bounced.id} jane@example.com 5.1.1 1234\n")
            self.assertEqual(spool.cursors, {"hook:shop_hooks.BounceList": 2})

        return Deferred.fromCoroutine(scenario()).addCallback(check)
