"""A running daemon: its hooks, what is revoked under it, reloading, and stopping with a message in hand."""

from __future__ import annotations

import json
import os
import shutil
import signal
import smtplib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from lettermta.smtp.tls import CertificatePair, self_signed
from tests.system.program import PATIENCE
from tests.system.site import Daemon, Settings, Site, free_port, mail, submit, unverified

HOOK = '''
import os

from twisted.internet import reactor
from twisted.internet.task import deferLater
from zope.interface import implementer

from lettermta.interfaces import IEventHook, ISubmissionPolicy
from lettermta.policy import Accept, Hold, Refuse


@implementer(ISubmissionPolicy)
class Ask:
    """Does what the subject says."""

    def __init__(self, word):
        self.word = word

    async def look_at(self, message):
        await deferLater(reactor, 0.01)
        subject = message.header("Subject") or ""
        if subject == "forbidden":
            return Refuse(self.word)
        if subject == "odd":
            return Hold(reason=self.word)
        if subject == "slow":
            await deferLater(reactor, 3600)
        return Accept(tag="judged") if subject == "tag me" else None


@implementer(IEventHook)
class Tell:
    """Writes each event to the standard output that the test reads."""

    def event_happened(self, event):
        os.write(1, b"HOOK " + event.payload + b"\\n")
'''


@pytest.fixture(scope="module")
def daemon(site: Site) -> Iterator[Daemon]:
    (site.directory / "example_hook_of_the_test.py").write_text(HOOK)
    settings: Settings = {
        "events": {"hooks": "example_hook_of_the_test.Tell"},
        "submission": {"policies": "example_hook_of_the_test.Ask", "policy_timeout": "500ms"},
        "policy example_hook_of_the_test.Ask": {"word": "as the policy says"},
    }
    path = os.pathsep.join(filter(None, [str(site.directory), os.environ.get("PYTHONPATH")]))
    daemon = site.daemon("daemon", settings, env={"PYTHONPATH": path})
    daemon.start()
    site.receiver()
    yield daemon
    daemon.stop()


def test_a_hook_in_python_gets_each_event_as_it_is_in_the_log(daemon: Daemon) -> None:
    identifier = daemon.send(mail("X-LM-Tag: hooked", "X-LM-Metadata-Order: 7"), "you@example.test")
    daemon.running.line(f'HOOK .*"message.delivered".*{identifier}')
    told = [line.removeprefix("HOOK ") for line in daemon.running.lines if line.startswith("HOOK ") and identifier in line]
    events = daemon.events_until(identifier, "message.delivered")
    assert [json.loads(line) for line in told] == events
    assert [event["event"] for event in events] == ["message.created", "message.sent", "message.delivered"]
    assert {event["data"]["tag"] for event in events} == {"hooked"}
    assert all(event["data"]["metadata"] == {"Order": "7"} for event in events)


def test_a_policy_in_python_tags_refuses_holds_and_is_not_waited_for(daemon: Daemon) -> None:
    tagged = daemon.send(mail("Subject: tag me"), "you@example.test")
    assert {event["data"]["tag"] for event in daemon.events_until(tagged, "message.delivered")} == {"judged"}
    for subject, code, said in (("forbidden", 550, b"as the policy says"), ("slow", 451, b"could not be judged")):
        with pytest.raises(smtplib.SMTPDataError) as refused, daemon.client() as client:
            client.sendmail("app@sender.test", "you@example.test", mail(f"Subject: {subject}"))
        assert refused.value.smtp_code == code
        assert said in refused.value.smtp_error
    held = daemon.send(mail("Subject: odd"), "you@example.test")
    [row] = daemon.queue_until(bool, "--id", held)
    assert (row["state"], row["last_reply"]) == ("held", "as the policy says")
    daemon.tool("lettermta-queue", "release", "--id", held)
    daemon.events_until(held, "message.delivered")


def test_a_revoked_token_is_refused_in_an_open_session(daemon: Daemon) -> None:
    daemon.admin("project", "create", "passing")
    value = daemon.admin("token", "create", "--project", "passing", "--import", "a-token-from-elsewhere-1234567890")
    assert value == "a-token-from-elsewhere-1234567890"
    [token] = [json.loads(line) for line in daemon.admin("token", "list", "--project", "passing", "--json").splitlines()]
    with smtplib.SMTP("127.0.0.1", daemon.port, timeout=PATIENCE) as client:
        client.starttls(context=unverified())
        client.login("lettr", value)
        submit(client, mail(), "you@example.test")
        daemon.admin("token", "revoke", token["id"])
        assert client.mail("app@sender.test")[0] == 535
        with pytest.raises(smtplib.SMTPAuthenticationError), smtplib.SMTP("127.0.0.1", daemon.port, timeout=PATIENCE) as again:
            again.starttls(context=unverified())
            again.login("lettr", value)


def test_the_queue_tool_shows_a_delivered_message_from_its_events(daemon: Daemon) -> None:
    identifier = daemon.send(mail("Subject: shown"), "you@example.test")
    daemon.running.line(f"{identifier}: delivered")
    daemon.queue_until(lambda rows: not rows, "--id", identifier)
    shown = json.loads(daemon.tool("lettermta-queue", "show", "--json", identifier).stdout)
    assert shown["recipients"] == []
    assert shown["events"][0]["document"]["data"]["subject"] == "shown"


def served(port: int) -> bytes:
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=PATIENCE))


def install(pair: CertificatePair, directory: Path) -> None:
    shutil.copy(pair.certificate, directory / "cert.pem")
    shutil.copy(pair.private_key, directory / "key.pem")


def test_sighup_serves_the_new_certificate_and_keeps_the_old_one_in_place_of_a_broken_one(site: Site) -> None:
    port = free_port()
    tls = site.directory / "tls"
    tls.mkdir()
    old, new = (self_signed(site.directory / name, f"{name}.test") for name in ("old", "new"))
    install(old, tls)
    settings: Settings = {
        "tls": {"certificate": str(tls / "cert.pem"), "private_key": str(tls / "key.pem")},
        "listener submissions": {"ports": str(port), "addresses": "127.0.0.1", "security": "tls"},
    }
    daemon = site.daemon("reloading", settings)
    daemon.start()
    expected = {pair: ssl.PEM_cert_to_DER_cert(pair.certificate.read_text()) for pair in (old, new)}
    assert served(port) == expected[old]

    open_session = daemon.client(daemon.port)
    install(new, tls)
    daemon.running.send_signal(signal.SIGHUP)
    daemon.running.line("certificates, limits, shaping and throttle rules reloaded")
    assert daemon.notice().startswith("RELOADING=1\nMONOTONIC_USEC="), "the service manager knows"
    assert daemon.notice() == "READY=1\nSTATUS=certificates, limits, shaping and throttle rules reloaded, and the settings of webhooks"
    assert served(port) == expected[new]
    assert open_session.noop()[0] == 250, "who is connected stays connected"
    open_session.quit()

    (tls / "cert.pem").write_text("broken")
    daemon.running.send_signal(signal.SIGHUP)
    daemon.running.line("reload refused.*cert.pem")
    assert daemon.notice().startswith("RELOADING=1\n")
    assert daemon.notice().startswith("READY=1\nSTATUS=reload refused: ")
    assert served(port) == expected[new]

    install(old, tls)
    (tls / "key.pem").write_bytes(new.private_key.read_bytes())
    daemon.running.send_signal(signal.SIGHUP)
    line = daemon.config.read_text().splitlines().index(f"private_key = {tls / 'key.pem'}") + 1
    daemon.running.line(f"{daemon.config}:{line}: .tls. private_key: {tls / 'key.pem'}: not the private key of")
    assert served(port) == expected[new]

    install(old, tls)
    daemon.config.write_text(daemon.config.read_text() + "\n[delivery]\nlifetime = 5\n")
    daemon.running.send_signal(signal.SIGHUP)
    daemon.running.line("reload refused", count=3)
    assert served(port) == expected[new], "a fault anywhere in the file keeps all of the old"
    daemon.stop()


def test_a_certificate_that_comes_with_a_reload_ends_the_warning_of_the_self_signed_one(site: Site) -> None:
    web = free_port()
    daemon = site.daemon("waiting", {"http": {"listen": f"127.0.0.1:{web}"}})
    daemon.start()
    assert "self-signed" in fetched(f"http://127.0.0.1:{web}/health")
    pair = self_signed(site.directory / "its own", "mta.sender.test")
    install(pair, site.directory)
    tls = f"\n[tls]\ncertificate = {site.directory / 'cert.pem'}\nprivate_key = {site.directory / 'key.pem'}\n"
    daemon.config.write_text(daemon.config.read_text() + tls)
    daemon.running.send_signal(signal.SIGHUP)
    daemon.running.line("certificates, .* reloaded")
    assert "self-signed" not in fetched(f"http://127.0.0.1:{web}/health")
    assert "lettermta_certificate_self_signed 0.0" in fetched(f"http://127.0.0.1:{web}/metrics")
    daemon.stop()


def test_pages_come_by_https_where_that_is_asked_for_and_follow_a_reload(site: Site) -> None:
    web = free_port()
    daemon = site.daemon("https", {"http": {"listen": f"127.0.0.1:{web}", "tls": "yes"}})
    daemon.start()
    assert fetched(f"https://127.0.0.1:{web}/ready", context=unverified()).startswith("ready")
    pair = self_signed(site.directory / "of the pages", "pages.sender.test")
    own = site.directory / "https pages"
    own.mkdir()
    install(pair, own)
    shutil.copytree(own, daemon.directory / "pages")
    daemon.config.write_text(daemon.config.read_text() + "\n[tls]\ncertificate = pages/cert.pem\nprivate_key = pages/key.pem\n")
    daemon.running.send_signal(signal.SIGHUP)
    daemon.running.line("certificates, .* reloaded")
    assert served(web) == ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())
    daemon.stop()


def fetched(url: str, context: ssl.SSLContext | None = None) -> str:
    with urlopen(url, timeout=PATIENCE, context=context) as answer:
        text: str = answer.read().decode()
    return text


def test_limits_follow_a_reload(site: Site) -> None:
    daemon = site.daemon("relimited", {"limits": {"message_size": "1000000", "recipients": "5", "errors": "20"}})
    daemon.start()
    before = daemon.client()
    daemon.config.write_text(
        daemon.config.read_text()
        .replace("message_size = 1000000", "message_size = 2000000")
        .replace("recipients = 5", "recipients = 1")
        .replace("errors = 20", "errors = 2")
    )
    daemon.running.send_signal(signal.SIGHUP)
    daemon.running.line("limits.* reloaded")
    after = daemon.client()
    for client in (before, after):
        client.ehlo()
        assert client.esmtp_features["size"] == "2000000"
        assert client.mail("app@sender.test")[0] == 250
        assert [client.rcpt(f"{name}@two.test")[0] for name in "ab"] == [250, 452]
    before.quit()
    assert after.docmd("NONSENSE")[0] == 500
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
        for _ in range(5):
            after.docmd("NONSENSE")
    daemon.stop()


def test_sigterm_lets_a_message_in_hand_finish_and_ends_idle_sessions(site: Site) -> None:
    daemon = site.daemon("stopping")
    daemon.start()
    content = mail(body="one\r\ntwo\r\n")
    idle = daemon.client()
    busy = daemon.client()
    assert busy.mail("app@sender.test")[0] == 250
    assert busy.rcpt("you@two.test")[0] == 250
    assert busy.docmd("DATA")[0] == 354
    busy.send(content[:-5])

    daemon.running.send_signal(signal.SIGTERM)
    assert daemon.notice() == "STOPPING=1"
    assert idle.getreply()[0] == 421
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", daemon.port), PATIENCE)
    busy.send(content[-5:] + b".\r\n")
    code, said = busy.getreply()
    assert code == 250
    assert busy.getreply()[0] == 421
    idle.close()
    busy.close()
    assert daemon.running.ended() == 0
    identifier = said.decode().split()[-1]
    assert [row["id"] for row in daemon.queue()] == [identifier], "what was acknowledged while stopping is in the spool"


def test_restarts_keep_what_is_queued_and_accounts(site: Site) -> None:
    daemon = site.daemon("again")
    daemon.start()
    identifier = daemon.send(mail(), "you@two.test")
    for _ in range(2):
        daemon.stop()
        daemon.start()
    assert [row["id"] for row in daemon.queue()] == [identifier]
    assert daemon.send(mail(), "you@two.test")
    daemon.stop()


def test_a_reload_names_the_changed_keys_that_hold_from_the_next_start_only(site: Site) -> None:
    daemon = site.daemon("rekeyed", {"limits": {"recipients": "5"}})
    daemon.start()
    daemon.config.write_text(
        daemon.config.read_text().replace("recipients = 5", "recipients = 6").replace("schedule = 1s", "schedule = 2s")
    )
    daemon.running.send_signal(signal.SIGHUP)
    daemon.running.line(r"in force from the next start only: \[delivery\] schedule$")
    assert daemon.notice().startswith("RELOADING=1")
    assert daemon.notice().endswith("; from the next start only: [delivery] schedule")
    daemon.stop()
