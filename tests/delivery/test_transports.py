"""The ways out, as delivery uses them: over loopback where a socket matters, without one where it doesn't."""

from __future__ import annotations

import datetime
import mailbox
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from dns.rdatatype import RdataType
from OpenSSL import SSL
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from lettermta.address_policy import permits
from lettermta.delivery.dns_wire import Server, TryFailed
from lettermta.delivery.exchange import Exchange, find
from lettermta.delivery.leaving import ToppedContent
from lettermta.delivery.resolver import NoSuchDomain, TemporaryDNSFailure
from lettermta.delivery.transports.capture import CaptureTransport
from lettermta.delivery.transports.discard import DiscardTransport
from lettermta.delivery.transports.mx import MXTransport
from lettermta.delivery.transports.settings import DeliverySettings
from lettermta.delivery.transports.smarthost import SmarthostTransport
from lettermta.interfaces import IChannel, IResolver, IStoredContent, ITransport
from lettermta.message import QueueEntry, Unreachable
from lettermta.smtp.client_auth import Credentials
from lettermta.smtp.client_settings import TLSMode
from lettermta.testing.mx import RemoteMX, ServerTLS
from tests.smtp.client_peer import Content, entry, shown

NXDOMAIN = NoSuchDomain("gone.test")
SERVFAIL = TemporaryDNSFailure("in.test", RdataType.MX, [TryFailed(Server("127.0.0.1", 53), "SERVFAIL", rcode="SERVFAIL")])


@implementer(IResolver)
class Names:
    """A resolver with what the test says; what isn't said doesn't exist."""

    def __init__(self, mx: Mapping[str, Any], addresses: Mapping[str, Any]) -> None:
        self._mx = mx
        self._addresses = addresses
        self.asked: list[str] = []

    def mx(self, domain: str) -> Deferred[Sequence[tuple[int, str]]]:
        self.asked.append(f"MX {domain}")
        found = self._mx.get(domain, NXDOMAIN)
        return fail(found) if isinstance(found, Exception) else succeed(found)

    def addresses(self, host: str) -> Deferred[Sequence[str]]:
        self.asked.append(host)
        found = self._addresses.get(host, NXDOMAIN)
        return fail(found) if isinstance(found, Exception) else succeed(found)


def by_mx(reactor: Any, domain: str, names: IResolver, settings: DeliverySettings, **options: Any) -> Deferred[IChannel]:
    """Look up the domain's exchange, and open a channel to it."""

    async def opened() -> IChannel:
        transport = MXTransport(reactor, await find(names, domain, settings.hostname), names, settings, **options)
        verifyObject(ITransport, transport)
        return await transport.open()

    return Deferred.fromCoroutine(opened())


def refusal(mx: Mapping[str, Any], addresses: Mapping[str, Any], domain: str = "in.test", **settings: Any) -> str:
    """What an opening that needs no socket fails with."""
    failed: list[Any] = []
    by_mx(Clock(), domain, Names(mx, addresses), DeliverySettings("out.test", **settings)).addErrback(failed.append)
    [failure] = failed
    assert isinstance(failure.value, Unreachable)
    assert not failure.value.remote
    return str(failure.value.reply)


def tried(mx: Mapping[str, Any], addresses: Mapping[str, Any], **settings: Any) -> list[str]:
    """The addresses that are tried when none answers, in order."""
    reactor = MemoryReactorClock()
    failed: list[Any] = []
    opening = by_mx(reactor, "in.test", Names(mx, addresses), DeliverySettings("out.test", **settings), shuffle=list.sort)
    opening.addErrback(failed.append)
    while not failed:
        _, _, factory, _, _ = reactor.tcpClients[-1]
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
    assert str(failed[0].value.reply).startswith("451 4.4.1")
    return [client[0] for client in reactor.tcpClients]


class TestFindingTheHost:
    """RFC 5321 section 5.1, RFC 7505, HARD-CASES rows 20 and 21."""

    def test_nxdomain_is_permanent(self) -> None:
        assert refusal({}, {}).startswith("556 5.1.10")

    @pytest.mark.parametrize("host", ["", "."])
    def test_null_mx_is_permanent(self, host: str) -> None:
        assert refusal({"in.test": [(0, host)]}, {"in.test": ["8.8.8.8"]}).startswith("556 5.1.10")

    def test_a_failing_mx_look_up_is_temporary_and_never_falls_back_to_the_address(self) -> None:
        names = Names({"in.test": SERVFAIL}, {"in.test": ["8.8.8.8"]})
        failed: list[Any] = []
        by_mx(Clock(), "in.test", names, DeliverySettings("out.test")).addErrback(failed.append)
        assert str(failed[0].value.reply).startswith("451 4.4.3")
        assert names.asked == ["MX in.test"]

    def test_a_domain_without_mx_and_address_is_permanent(self) -> None:
        assert refusal({"in.test": []}, {"in.test": []}).startswith("550 5.1.2")

    def test_an_mx_host_whose_look_up_fails_is_temporary(self) -> None:
        assert refusal({"in.test": [(1, "mx.test")]}, {"mx.test": SERVFAIL}).startswith("451 4.4.3")

    def test_mx_hosts_without_addresses_are_temporary_and_the_domains_own_is_not_tried(self) -> None:
        assert refusal({"in.test": [(1, "mx.test"), (2, "no.test")]}, {"mx.test": [], "in.test": ["8.8.8.8"]}).startswith("451 4.4.4")

    @pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "::1", "::ffff:127.0.0.1", "fe80::1", "0.0.0.0", "224.0.0.1"])
    def test_an_mx_in_private_space_is_refused(self, address: str) -> None:
        assert refusal({"in.test": [(1, "mx.test")]}, {"mx.test": [address]}).startswith("451 4.4.4")

    @pytest.mark.parametrize("literal", ["[127.0.0.1]", "[IPv6:::1]"])
    def test_an_address_literal_in_private_space_is_refused(self, literal: str) -> None:
        assert refusal({}, {}, literal).startswith("451 4.4.4")

    def test_a_broken_address_literal_is_permanent(self) -> None:
        assert refusal({}, {}, "[300.1.2.3]").startswith("550 5.1.2")

    def test_ourselves_as_best_mx_is_a_loop(self) -> None:
        assert refusal({"in.test": [(5, "Out.Test."), (10, "mx.test")]}, {"mx.test": ["8.8.8.8"]}).startswith("554 5.4.6")

    def test_an_mx_without_an_address_that_is_the_domain_itself_is_no_implicit_one(self) -> None:
        assert refusal({"in.test": [(5, "in.test")]}, {"in.test": []}).startswith("451 4.4.4")

    def test_hosts_are_tried_by_preference_and_only_those_better_than_ourselves(self) -> None:
        mx = {"in.test": [(20, "c.test"), (10, "b.test"), (10, "a.test"), (5, "best.test"), (30, "out.test"), (40, "d.test")]}
        addresses = {"best.test": ["8.8.0.1", "8.8.0.2"], "a.test": ["8.8.0.3"], "b.test": [], "c.test": ["127.0.0.1", "8.8.0.4"]}
        assert tried(mx, addresses) == ["8.8.0.1", "8.8.0.2", "8.8.0.3", "8.8.0.4"]

    def test_the_domain_itself_is_the_host_when_there_is_no_mx(self) -> None:
        assert tried({"in.test": []}, {"in.test": ["8.8.0.1"]}) == ["8.8.0.1"]

    def test_fifty_mx_hosts_are_not_all_tried(self) -> None:
        hosts = [f"mx{number:02}.test" for number in range(50)]
        mx = {"in.test": [(10, host) for host in hosts]}
        addresses = {host: [f"8.8.1.{number}", f"8.8.2.{number}", f"8.8.3.{number}"] for number, host in enumerate(hosts)}
        assert len(tried(mx, addresses)) == 10


@pytest.mark.parametrize(
    ("address", "permitted"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::8.8.8.8", True),
        ("64:ff9b::127.0.0.1", False),
        ("2002:7f00:1::", False),
        ("::127.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("fe80::1%eth0", False),
        ("255.255.255.255", False),
        ("mx.test", False),
    ],
)
def test_only_the_public_internet_is_permitted(address: str, permitted: bool) -> None:
    assert permits(address, ()) is permitted


def test_what_the_operator_allows_is_permitted() -> None:
    allowed = DeliverySettings("out.test", allow_networks=("127.0.0.0/8", "fd00::/8")).allow_networks
    for address in ("127.0.0.1", "::ffff:127.0.0.1", "fd00::1"):
        assert permits(address, allowed)
    assert not permits("10.0.0.1", allowed)


def test_discarded_mail_counts_as_delivered() -> None:
    transport = DiscardTransport()
    verifyObject(ITransport, transport)
    channels: list[Any] = []
    for _ in range(2):
        transport.open().addCallback(channels.append)
    verifyObject(IChannel, channels[0])
    told: list[Any] = []
    channels[0].send(entry(), Content()).addCallback(told.append)
    assert shown(told) == [("250 2.0.0 discarded", True, True)]
    channels[0].close()
    assert [channel.usable for channel in channels] == [False, True], "each is its own"


class Pair:
    """A self-signed certificate."""

    def __init__(self, directory: Path, name: str = "localhost", days: int = 1) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
        names = [x509.DNSName(name), x509.IPAddress(ip_address("127.0.0.1"))] if name == "localhost" else [x509.DNSName(name)]
        builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        certificate = (
            builder.not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        self.trust = directory / f"{name}{days}.pem"
        self.trust.write_bytes(pem + private)
        self.options = ServerTLS(self.trust)


@implementer(IOpenSSLServerConnectionCreator)
class NoTLS:
    """What a server has that offers STARTTLS and can't do it."""

    def serverConnectionForTLS(self, protocol: object) -> Any:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_cipher_list(b"ECDHE+AESGCM")
        return SSL.Connection(context, None)


class Loopback(TestCase):
    """Real sockets."""

    timeout = 20

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)

    def mx(self, **options: Any) -> tuple[RemoteMX, int]:
        mx = RemoteMX(**options)
        port = mx.listen(self.reactor)
        self.addCleanup(mx.stop)
        return mx, port

    def settings(self, port: int, **changes: Any) -> DeliverySettings:
        return DeliverySettings("out.test", port=port, allow_networks=("127.0.0.0/8",), connect_timeout=5, **changes)

    def direct(self, port: int, addresses: Sequence[str] = ("127.0.0.1",), **changes: Any) -> MXTransport:
        names = Names({}, {"mx.test": addresses})
        return MXTransport(self.reactor, Exchange("in.test", (("mx.test",),)), names, self.settings(port, **changes))

    def smarthost(self, port: int, tls: str, trust: Path | None = None, host: str = "localhost") -> SmarthostTransport:
        secret = Credentials("user", "s3cret")
        return SmarthostTransport(self.reactor, host, port, TLSMode(tls), secret, self.settings(1, trust=trust))

    async def through(self, transport: ITransport, data: Content | None = None, **wishes: Any) -> list[tuple[str, bool, bool]]:
        channel = await transport.open()
        verdicts = await channel.send(entry(**wishes), data or Content())
        self.description, self.details = channel.description, channel.details
        channel.close()
        return shown([verdicts])

    async def failing(self, transport: ITransport) -> str:
        error = await self.assertFailure(transport.open(), Unreachable)
        self.assertFalse(error.reply.permanent)
        return str(error.reply)


class MXOverLoopback(Loopback):
    """MX delivery on real sockets."""

    async def test_many_messages_leave_by_one_connection(self) -> None:
        mx, port = self.mx()
        channel = await self.direct(port).open()
        for _ in range(20):
            [verdict] = await channel.send(entry(), Content(b"Subject: x\r\n\r\n.dot\r\n..\r\n"))
            assert verdict.reply.positive
        channel.close()
        assert (mx.count, mx.connections) == (20, 1)
        assert {message.content for message in mx.messages} == {b"Subject: x\r\n\r\n.dot\r\n..\r\n"}
        assert mx.messages[0].recipients == ("b@in.test",)

    async def test_the_next_address_is_tried_when_one_refuses_the_connection(self) -> None:
        mx, port = self.mx()
        assert (await self.through(self.direct(port, ["127.0.0.2", "127.0.0.1"])))[0][0].startswith("250 2.0.0")
        assert mx.count == 1

    async def test_the_next_host_is_tried_when_one_refuses_by_its_banner(self) -> None:
        mx, port = self.mx()
        mx.script("CONNECT", "554 5.3.2 no", times=1)
        mx.script("EHLO", "451 4.3.0 no", times=1)
        assert (await self.through(self.direct(port, ["127.0.0.1"] * 3)))[0][0].startswith("250 2.0.0")
        assert mx.connections == 3
        first, second = self.details["before"]
        assert (first["reply"], first["dialogue"]) == ("554 5.3.2 no", [{"said": None, "answer": "554 5.3.2 no"}])
        assert (second["host"], second["address"], second["port"]) == ("mx.test", "127.0.0.1", port)
        assert second["dialogue"][-1] == {"said": "EHLO out.test", "answer": "451 4.3.0 no"}

    async def test_what_failed_at_every_address_is_told_of_each(self) -> None:
        mx, port = self.mx()
        mx.script("CONNECT", "554 5.3.2 go away")
        error = await self.assertFailure(self.direct(port, ["127.0.0.2", "127.0.0.1"]).open(), Unreachable)
        assert error.trace["dialogue"] == [{"said": None, "answer": "554 5.3.2 go away"}]
        [before] = error.trace["before"]
        assert before["address"] == "127.0.0.2"
        assert "refuses connections" in before["reply"]

    async def test_a_host_that_greets_by_554_defers(self) -> None:
        mx, port = self.mx()
        mx.script("CONNECT", "554 5.3.2 go away")
        assert "554 5.3.2 go away" in await self.failing(self.direct(port))

    async def test_starttls_is_used_and_told(self) -> None:
        mx, port = self.mx(tls=Pair(self.directory, "other.test").options)
        assert (await self.through(self.direct(port)))[0][0].startswith("250 2.0.0")
        assert mx.messages[0].tls
        assert "TLSv1.3 TLS_" in self.description

    async def test_a_failed_handshake_falls_back_to_a_new_connection_in_clear(self) -> None:
        mx, port = self.mx(tls=NoTLS())
        assert (await self.through(self.direct(port)))[0][0].startswith("250 2.0.0")
        assert (mx.messages[0].tls, mx.connections) == (False, 2)

    async def test_require_never_falls_back(self) -> None:
        for tls in (NoTLS(), None):
            mx, port = self.mx(tls=tls)
            await self.failing(self.direct(port, tls="require"))
            assert (mx.count, mx.connections) == (0, 1)

    async def test_a_large_message_streams_with_back_pressure_and_arrives_whole(self) -> None:
        for tls in (None, Pair(self.directory).options):
            mx, port = self.mx(tls=tls)
            line = b"." + b"x" * 75 + b"\r\n"
            data = line * 100_000
            pieces = [data[start : start + 65_535] for start in range(0, len(data), 65_535)]
            assert (await self.through(self.direct(port), Content(data, pieces)))[0][0].startswith("250 2.0.0")
            assert mx.messages[0].content == data

    async def test_messages_leave_in_chunks_where_that_is_offered(self) -> None:
        line = b"." + b"x" * 75 + b"\r\n"
        large = line * 100_000
        pieces = [large[start : start + 65_535] for start in range(0, len(large), 65_535)]
        for extensions in (["CHUNKING"], ["PIPELINING", "CHUNKING"]):
            mx, port = self.mx(extensions=extensions, tls=Pair(self.directory).options)
            channel = await self.direct(port).open()
            for data in (Content(line), Content(large, pieces), Content(line)):
                [verdict] = await channel.send(entry(), data)
                assert verdict.reply.positive
            channel.close()
            assert [message.content for message in mx.messages] == [line, large, line]
            assert mx.commands.count(b"BDAT 65535") == len(pieces) - 1

    async def test_a_refused_chunk_does_not_hurt_the_next_message(self) -> None:
        for extensions in (["CHUNKING"], ["PIPELINING", "CHUNKING"]):
            mx, port = self.mx(extensions=extensions)
            mx.script("BDAT", "452 4.3.1 full", times=1)
            mx.script("RCPT", "550 5.1.1 gone", times=1)
            channel = await self.direct(port).open()
            told = []
            for data in (Content(), Content(pieces=[b"a\r\n", b"b\r\n", b"c\r\n"]), Content()):
                [verdict] = await channel.send(entry(), data)
                told.append(verdict.reply.code)
            assert told == [550, 452, 250]
            assert (mx.count, mx.connections) == (1, 1)

    async def test_a_message_with_requiretls_does_not_go_to_an_mx_whose_name_nobody_vouches_for(self) -> None:
        """RFC 8689 section 4.2.1: the host's name is not authenticated."""
        mx, port = self.mx(extensions=["REQUIRETLS"], tls=Pair(self.directory).options)
        [(reply, remote, _)] = await self.through(self.direct(port), require_tls=True)
        assert reply.startswith("550 5.7.30 REQUIRETLS support required: ") and "not authenticated" in reply
        assert not remote and not any(command.startswith(b"MAIL") for command in mx.commands)

    async def test_a_connection_is_no_word_in_the_log(self) -> None:
        _, port = self.mx()
        told: list[Any] = []
        globalLogPublisher.addObserver(told.append)
        self.addCleanup(globalLogPublisher.removeObserver, told.append)
        await self.through(self.direct(port))
        assert told == []

    async def test_a_connection_cut_behind_the_dot_is_unknown(self) -> None:
        mx, port = self.mx()
        mx.script("DOT", drop=True)
        [(reply, remote, handed_over)] = await self.through(self.direct(port))
        assert reply.startswith("451 4.4.2") and not remote and handed_over


class SmarthostOverLoopback(Loopback):
    """A smarthost on real sockets: the operator's own name look-up, verified TLS, AUTH."""

    async def test_credentials_go_out_inside_verified_tls(self) -> None:
        pair = Pair(self.directory)
        for implicit, mode in ((False, "opportunistic"), (True, "implicit")):
            mx, port = self.mx(tls=pair.options, implicit=implicit, credentials={"user": "s3cret"})
            assert (await self.through(self.smarthost(port, mode, pair.trust)))[0][0].startswith("250 2.0.0")
            assert mx.commands.count(b"AUTH PLAIN AHVzZXIAczNjcmV0") == 1
            assert mx.messages[0].tls

    async def test_requiretls_is_obeyed_over_verified_tls(self) -> None:
        """RFC 8689 section 4.2.1."""
        pair = Pair(self.directory)
        for extensions, code in ((["REQUIRETLS"], "250 2.0.0"), ([], "550 5.7.30")):
            mx, port = self.mx(extensions=extensions, tls=pair.options, credentials={"user": "s3cret"})
            [(reply, _, _)] = await self.through(self.smarthost(port, "require", pair.trust), require_tls=True)
            assert reply.startswith(code)
            assert [message.parameters for message in mx.messages] == ["REQUIRETLS"] * len(extensions)

    async def test_an_address_is_verified_as_such(self) -> None:
        pair = Pair(self.directory)
        _, port = self.mx(tls=pair.options, credentials={"user": "s3cret"})
        assert (await self.through(self.smarthost(port, "require", pair.trust, "127.0.0.1")))[0][0].startswith("250 2.0.0")

    async def test_a_certificate_that_does_not_verify_gets_no_credentials(self) -> None:
        """HARD-CASES row 24."""
        other, expired, right = Pair(self.directory, "other.test"), Pair(self.directory, days=-1), Pair(self.directory)
        for pair, trust, fault in (
            (right, None, "self-signed"),
            (other, other.trust, "not for localhost"),
            (expired, expired.trust, "expired"),
        ):
            mx, port = self.mx(tls=pair.options, credentials={"user": "s3cret"})
            said = await self.failing(self.smarthost(port, "opportunistic", trust))
            assert said.startswith("451 4.7.5") and fault in said, said
            assert not any(command.startswith(b"AUTH") for command in mx.commands)
            assert mx.connections == 1

    async def test_a_smarthost_without_tls_gets_no_credentials(self) -> None:
        mx, port = self.mx()
        assert (await self.failing(self.smarthost(port, "off"))).startswith("451 4.")
        assert mx.count == 0

    async def test_a_wrong_password_is_the_operators_fault_and_temporary(self) -> None:
        pair = Pair(self.directory)
        _, port = self.mx(tls=pair.options, credentials={"user": "other"})
        assert "535 5.7.8" in await self.failing(self.smarthost(port, "require", pair.trust, "127.0.0.1"))


class Linked:
    """Stands where links are made."""

    def topped(self, entry: QueueEntry, content: IStoredContent) -> IStoredContent:
        return ToppedContent(b"List-Unsubscribe: <https://x>\r\n", content)


class Captured(Loopback):
    """The Maildir."""

    async def test_captured_mail_is_a_maildir_message_with_what_a_delivery_adds(self) -> None:
        maildir = self.directory / "deep" / "capture"
        transport = CaptureTransport(maildir, self.reactor)
        verifyObject(ITransport, transport)
        channel = await transport.open()
        verifyObject(IChannel, channel)
        content = b"Subject: hi\r\n\r\n.hello\r\n"
        verdicts = list(await channel.send(entry("b@in.test", "c@in.test"), Content(content)))
        verdicts += await channel.send(entry(sender=""), Content(content, [content[:5], content[5:]]))
        names = sorted(path.name for path in (maildir / "new").iterdir())
        assert {verdict.reply.text for verdict in verdicts} == {f"captured as {name}" for name in names}
        assert all("id-1" in name for name in names)
        assert all(abs(int(name.partition(".")[0]) - time.time()) < 60 for name in names)
        assert all(verdict.handed_over for verdict in verdicts)
        stored = sorted(path.read_bytes() for path in (maildir / "new").iterdir())
        assert stored == sorted(
            [
                b"Return-Path: <a@out.test>\r\nDelivered-To: b@in.test\r\nDelivered-To: c@in.test\r\n" + content,
                b"Return-Path: <>\r\nDelivered-To: b@in.test\r\n" + content,
            ]
        )
        assert len(mailbox.Maildir(maildir)) == 2
        assert list((maildir / "tmp").iterdir()) == []
        assert stat.S_IMODE(maildir.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in (maildir / "new").iterdir()} == {0o600}

    async def test_a_broadcast_is_captured_with_its_link_to_unsubscribe(self) -> None:
        channel = await CaptureTransport(self.directory, self.reactor, Linked()).open()  # type: ignore[arg-type]
        await channel.send(entry(), Content(b"Subject: hi\r\n\r\nhello\r\n"))
        (path,) = (self.directory / "new").iterdir()
        assert b"\r\nList-Unsubscribe: <https://x>\r\nSubject: hi\r\n" in path.read_bytes()

    async def test_content_that_can_not_be_read_leaves_nothing_behind(self) -> None:
        channel = await CaptureTransport(self.directory, self.reactor).open()
        told = [await channel.send(entry(), Content(pieces=[b"half", LookupError("gone")]))]
        self.flushLoggedErrors()
        assert shown(told) == [("451 4.3.0 The content could not be read from the spool", False, False)]
        assert [path for part in ("tmp", "new") for path in (self.directory / part).iterdir()] == []

    async def test_a_maildir_that_can_not_be_made_is_temporary(self) -> None:
        (self.directory / "file").write_bytes(b"")
        assert (await self.failing(CaptureTransport(self.directory / "file" / "x", self.reactor))).startswith("451 4.3.0")

    async def test_a_maildir_that_has_gone_is_temporary(self) -> None:
        channel = await CaptureTransport(self.directory / "x", self.reactor).open()
        shutil.rmtree(self.directory / "x")
        told = [await channel.send(entry(), Content())]
        assert shown(told)[0][0].startswith("451 4.3.0")
        assert os.path.exists(self.directory)
