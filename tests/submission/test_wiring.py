"""What the configuration says about the edge and submission is what they do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from lettermta.accounts.model import ReceivedField
from lettermta.config import Config, ConfigError, load
from lettermta.events.amqp import AMQPSink
from lettermta.events.amqp_channel import Broker
from lettermta.outside import plugged_in
from lettermta.smtp.admission import Admitted, Denied
from lettermta.submission.server import SubmissionRules
from lettermta.wiring import make_edge, make_resolver, make_sinks, make_submission
from tests.submission.conftest import Site


def config(directory: Path, text: str = "") -> Config:
    file = directory / "mta.ini"
    file.write_text(f"[mta]\nhostname = mta.test\nstate_dir = state\n[listener here]\nports = 2525\n{text}")
    return load(file)


@pytest.fixture
def clock() -> Iterator[Clock]:
    yield Clock()


def test_the_limits_are_those_of_the_file(tmp_path: Path, clock: Clock) -> None:
    edge = make_edge(
        config(
            tmp_path,
            "[limits]\nconnections_per_address = 3\ncommand_timeout = 1m\ndata_timeout = 2m\nminimum_rate = 1000\n"
            "errors = 7\nauth_failures = 2\nexempt_networks = 192.0.2.0/24\n",
        ),
        clock,
        50,
    )
    assert (edge.pace.command_seconds, edge.pace.content_seconds, edge.pace.minimum_rate) == (60, 120, 1000)
    assert edge.rules.errors == 7
    assert [type(edge.admission.enter("198.51.100.1", object())) for _ in range(4)] == [Admitted] * 3 + [Denied]
    assert [type(edge.admission.enter(f"198.51.100.{n}", object())) for n in range(2, 12)] == [Admitted] * 9 + [Denied]
    assert [type(edge.admission.enter("192.0.2.1", object())) for _ in range(5)] == [Admitted] * 5
    assert not edge.guard.failed("198.51.100.1", "a", 1).last
    assert edge.guard.failed("198.51.100.1", "a", 2).last
    assert edge.guard.denies("198.51.100.1") is not None
    assert edge.guard.failed("192.0.2.1", "a", 2).last
    assert edge.guard.denies("192.0.2.1") is None


def test_loopback_is_exempt_and_line_ends_are_strict_by_default(tmp_path: Path, clock: Clock) -> None:
    edge = make_edge(config(tmp_path), clock, 10_000)
    assert all(isinstance(edge.admission.enter(address, object()), Admitted) for address in ["127.0.0.1", "::1"] * 200)
    assert not edge.rules.content.repair
    assert edge.pace.command_seconds == 300
    assert make_edge(config(tmp_path, "[submission]\nbare_line_ends = repair\n"), clock, 10_000).rules.content.repair


def rules(site: Site, directory: Path, text: str = "") -> SubmissionRules:
    return make_submission(config(directory, text), Clock(), site.directory, site.spool, ()).rules


def test_the_rules_of_submission_are_those_of_the_file(site: Site, tmp_path: Path) -> None:
    usual = rules(site, tmp_path)
    assert (usual.hostname, usual.usernames, usual.message_size, usual.recipients) == (
        "mta.test",
        ("lettermint", "lettr"),
        26_214_400,
        1000,
    )
    assert (usual.header.message_id_domain, usual.header.eight_bit, usual.header.most_fields) == ("mta.test", True, 1000)
    changed = rules(
        site,
        tmp_path,
        "[submission]\nusernames = shop\nreceived_header = none\nmessage_id_domain = id.test\neight_bit_headers = refuse\n"
        "header_fields = 50\n"
        "[limits]\nmessage_size = 1MB\nrecipients = 5\n[delivery]\nlifetime = 2d\n",
    )
    assert (changed.usernames, changed.message_size, changed.recipients, changed.lifetime) == (("shop",), 1_048_576, 5, 172_800)
    assert (changed.header.message_id_domain, changed.header.eight_bit, changed.header.most_fields) == ("id.test", False, 50)
    assert (usual.header.received, changed.header.received) == (ReceivedField.FULL, ReceivedField.NONE)


def test_what_users_plug_in_is_found_or_missed_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fault at once, each with the key that names it."""
    plugged = plugged_in(
        config(tmp_path, "[events]\nhooks = tests.events.sample_hooks.Settled\n[hook tests.events.sample_hooks.Settled]\nsize = 7\n")
    )
    [(name, hook)] = plugged.hooks
    assert (name, hook.size) == ("tests.events.sample_hooks.Settled", 7)  # type: ignore[attr-defined]
    monkeypatch.setattr("lettermta.outside.find_spec", lambda name: None)
    text = "[submission]\npolicies = os.path, no.such.Policy\n[events]\nhooks = tests.events.sample_hooks.WantsArguments\n[amqp]\nurl = amqp://b\n"
    with pytest.raises(ConfigError) as caught:
        plugged_in(config(tmp_path, text))
    first, second, hooks, amqp = str(caught.value).splitlines()
    assert "[events] hooks: 'tests.events.sample_hooks.WantsArguments': missing a required argument: 'url'" in hooks
    assert "[submission] policies: 'os.path'" in first
    assert "[submission] policies: 'no.such.Policy': module 'no.such' cannot be imported" in second
    assert amqp.endswith("[amqp] url: this needs the package pika; expected an install with it: pip install 'lettermta[amqp]'")


def test_the_resolver_keeps_as_many_answers_as_it_is_told(tmp_path: Path) -> None:
    resolver = make_resolver(config(tmp_path, "[dns]\nservers = 127.0.0.1\ncache_entries = 7\n"), Clock())
    assert resolver._cache._entries == 7


def test_a_broker_and_a_log_that_rotates_are_sinks(tmp_path: Path) -> None:
    text = "[events]\njson_log = log\njson_log_size = 1MB\n[amqp]\nurl = amqps://u:p@b.test/v\nexchange = e\nunroutable = drop\n"
    log, amqp = make_sinks(config(tmp_path, text), Clock(), ())
    assert (log.name, amqp.name) == ("json_log", "amqp")
    assert isinstance(amqp, AMQPSink)
    assert amqp._settings.broker == Broker("b.test", 5671, True, "u", "p", "v")
    assert (amqp._settings.exchange, amqp._settings.mandatory) == ("e", False)
    assert make_sinks(config(tmp_path), Clock(), ()) == []
