"""Every documented port and login: the listeners of etc/mta.ini as they stand, but on ports that anyone may bind."""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
from collections.abc import Iterator

import pytest
from attrs import define

from tests.system.program import PATIENCE, ROOT
from tests.system.site import Daemon, Receiver, Site, free_port, mail, submit, unverified

PORTS = (25, 587, 2525, 2587, 465, 2465)
STARTTLS, IMPLICIT = "STARTTLS", "implicit TLS"
WAYS = [(port, IMPLICIT if port == 465 else STARTTLS) for port in PORTS] + [(2465, IMPLICIT)]
ADDRESSES = {"IPv4": "127.0.0.1", "IPv6": "::1"}


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@define
class SixPorts:
    """A daemon on etc/mta.ini, and which port stands for which of the documented ones."""

    daemon: Daemon
    ports: dict[int, int]
    receiver: Receiver

    def connect(self, port: int, security: str, address: str) -> smtplib.SMTP:
        """A client with TLS, not logged in."""
        if security == IMPLICIT:
            return smtplib.SMTP_SSL(address, self.ports[port], "client.test", timeout=PATIENCE, context=unverified())
        client = smtplib.SMTP(address, self.ports[port], "client.test", timeout=PATIENCE)
        client.ehlo()
        assert not client.has_extn("auth"), "no login is offered in clear"
        client.starttls(context=unverified())
        return client


def shipped_ini(site: Site, ports: dict[int, int]) -> str:
    """etc/mta.ini with other ports, a state directory of the test's, and delivery to the test's receivers."""

    def replaced(match: re.Match[str]) -> str:
        return "ports = " + ", ".join(str(ports.setdefault(int(port), free_port("0.0.0.0"))) for port in match[1].split(","))

    text = re.sub(r"^ports = (.*)$", replaced, (ROOT / "etc" / "mta.ini").read_text(), flags=re.M)
    changes = {"state_dir": "state", "hostname": "mta.sender.test", "servers": f"127.0.0.1:{site.dns_port}", "port": str(site.port)}
    for key, value in {**changes, "allow_networks": "127.0.0.0/8", "json_log": "events.jsonl"}.items():
        text, count = re.subn(rf"^#?{key} =.*$", f"{key} = {value}", text, flags=re.M)
        assert count == 1, key
    return text


@pytest.fixture(scope="module")
def six(site: Site) -> Iterator[SixPorts]:
    ports: dict[int, int] = {}
    daemon = site.daemon("six")
    daemon.config.write_text(shipped_ini(site, ports))
    assert sorted(ports) == sorted(PORTS)
    daemon.start()
    yield SixPorts(daemon, ports, site.receiver())
    daemon.stop()


@pytest.mark.parametrize("family", ADDRESSES)
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize(("port", "security"), WAYS)
def test_port_takes_mail(six: SixPorts, port: int, security: str, mechanism: str, family: str) -> None:
    if family == "IPv6" and not has_ipv6():
        six.daemon.running.line(f"this machine has no IPv6: port {six.ports[port]} listens on IPv4 only")
        return
    with six.connect(port, security, ADDRESSES[family]) as client:
        client.ehlo()
        assert not client.has_extn("starttls"), "TLS is there already"
        assert mechanism in client.esmtp_features["auth"].split()
        client.user, client.password = "lettermint", six.daemon.token
        code, _ = client.auth(mechanism, getattr(client, "auth_" + mechanism.lower().replace("-", "_")))
        assert code == 235
        identifier = submit(client, mail(f"Subject: {mechanism} on {port}"), "you@example.test")
    content = six.receiver.received(identifier)["content"]
    assert f"Subject: {mechanism} on {port}\r\n".encode() in content
    address = {"IPv4": "[127.0.0.1]", "IPv6": "[IPv6:::1]"}[family]
    assert content.startswith(f"Received: from client.test ({address})\r\n\tby mta.sender.test with ESMTPSA".encode())


def test_smtplib_as_every_application_uses_it(six: SixPorts) -> None:
    """``login`` takes the first mechanism that both sides know: CRAM-MD5, unasked."""
    with six.connect(587, STARTTLS, "127.0.0.1") as client:
        client.login("lettr", six.daemon.token)
        assert client.sendmail("app@sender.test", ["you@example.test"], mail()) == {}


@pytest.mark.parametrize(("user", "password"), [("lettermint", "wrong"), ("Lettermint", None), ("someone", None), ("lettermint", "")])
def test_wrong_credentials_have_one_answer(six: SixPorts, user: str, password: str | None) -> None:
    with six.connect(465, IMPLICIT, "127.0.0.1") as client:
        client.ehlo()
        client.user, client.password = user, six.daemon.token if password is None else password or "x"
        with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
            client.auth("LOGIN", client.auth_login)
        assert (caught.value.smtp_code, caught.value.smtp_error) == (535, b"5.7.8 Authentication credentials invalid")
        assert client.mail("app@sender.test")[0] == 530


def test_a_project_without_smtp_is_refused(six: SixPorts) -> None:
    six.daemon.admin("project", "create", "quiet", "--no-smtp")
    token = six.daemon.admin("token", "create", "--project", "quiet")
    with six.connect(2587, STARTTLS, "127.0.0.1") as client, pytest.raises(smtplib.SMTPAuthenticationError):
        client.login("lettermint", token)
    six.daemon.running.line("SMTP is switched off for project quiet")


@pytest.mark.parametrize("port", [25, 2465])
def test_the_first_word_of_banner_and_ehlo_is_the_host_name(six: SixPorts, port: int) -> None:
    with smtplib.SMTP(timeout=PATIENCE) as client:
        code, banner = client.connect("127.0.0.1", six.ports[port])
        assert (code, banner.split()[0]) == (220, b"mta.sender.test")
        assert client.ehlo()[1].split()[0] == b"mta.sender.test"
        assert client.esmtp_features["size"] == "26214400"


def test_tls_1_1_is_refused_and_1_2_is_not(six: SixPorts) -> None:
    context = unverified()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with smtplib.SMTP_SSL("127.0.0.1", six.ports[465], timeout=PATIENCE, context=context) as client:
        assert client.noop()[0] == 250
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        smtplib.SMTP_SSL("127.0.0.1", six.ports[465], timeout=PATIENCE, context=context)
