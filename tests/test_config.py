"""The configuration file: what it may say, what it comes to, and what an operator reads when it is wrong."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import textwrap
from ipaddress import ip_network
from pathlib import Path

import attrs
import pytest

from lettermta import config as public
from lettermta.config import (
    Config,
    ConfigError,
    Delivery,
    Events,
    Fault,
    HostPort,
    Listener,
    Security,
    Tls,
    load,
    reference_ini,
    reference_markdown,
)
from lettermta.config.kinds import MODERN_CIPHERS

ROOT = Path(__file__).parent.parent
LEAST = "[listener smtp]\nports = 2525\n"


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "mta.test")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tests name their file as an operator does, from the folder above it."""
    (tmp_path / "etc").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str) -> Path:
    path = Path("etc/mta.ini")
    path.write_text(textwrap.dedent(text).lstrip("\n"))
    return path


def read(text: str, **environ: str) -> Config:
    return load(write(text), environ)


def complaints(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text, **environ)
    assert str(caught.value) == "\n".join(map(str, caught.value.faults))
    return str(caught.value).split("\n")


def complaint_about(section: str, line: str, **environ: str) -> str:
    """The one complaint about a key of a section, from its name on."""
    text = f"{LEAST}{line}\n" if section == "listener smtp" else f"{LEAST}[{section}]\n{line}\n"
    (found,) = complaints(text, **environ)
    number = 3 if section == "listener smtp" else 4
    return found.removeprefix(f"etc/mta.ini:{number}: [{section}] ")


@pytest.mark.usefixtures("folder")
class TestValues:
    def test_a_listener_with_its_ports_is_a_whole_configuration(self, folder: Path) -> None:
        config = read(LEAST)
        assert config == Config(path=folder / "etc/mta.ini", listeners=(Listener(name="smtp", ports=(2525,)),))
        assert config.mta.hostname == "mta.test"
        assert config.mta.state_dir == Path("/var/lib/lettermta")
        assert config.listeners[0].addresses == ("0.0.0.0", "::")
        assert config.listeners[0].security is Security.STARTTLS
        assert config.listeners[0].detection_time == 0.5
        assert config.submission.usernames == ("lettermint", "lettr")
        assert (config.limits.message_size, config.limits.recipients) == (26214400, 1000)
        assert config.delivery == Delivery(
            port=25,
            relayhost=None,
            schedule=(300, 900, 1800, 3600, 7200, 14400),
            lifetime=432000,
            tls=public.DeliveryTLS.OPPORTUNISTIC,
            allow_networks=(),
            connect_timeout=30,
            command_timeout=300,
            data_timeout=600,
            capture_all=False,
        )
        assert config.events == Events(json_log=None, hooks=())

    def test_every_key_can_be_set(self, folder: Path) -> None:
        for name in ("a.pem", "a.key"):
            (folder / "etc" / name).write_text("PEM")
        config = read(
            """
            [mta]
            hostname = mta.example.com
            state_dir = ../state
            workers = 1
            [tls]
            certificate = a.pem
            private_key = a.key
            minimum = TLSv1.3
            ciphers = ECDHE-RSA-AES128-GCM-SHA256
            [listener either]
            ports = 2465
            addresses = 127.0.0.1, ::1
            security = auto
            auth_before_tls = cram-md5
            detection_time = 1.5s
            trusted_networks = 10.0.0.0/8 2001:db8::/32 192.0.2.7
            trusted_project = printers
            [submission]
            usernames = apikey
            [limits]
            message_size = 10KB
            recipients = 50
            [dns]
            servers = 127.0.0.1, 127.0.0.1:5300, [::1]:53, 2001:db8::53
            timeout = 2s
            [delivery]
            port = 2526
            relayhost = smtp.example.com:587
            schedule = 1m, 1m, 1h
            lifetime = 4h
            tls = require
            allow_networks = 0.0.0.0/0 ::/0
            connect_timeout = 1s
            command_timeout = 2m
            data_timeout = 3m
            capture_all = yes
            [events]
            json_log = /var/log/events.jsonl
            hooks = example.hooks.Count, example.hooks.Print
            """
        )
        assert config == Config(
            path=folder / "etc/mta.ini",
            mta=public.Mta(hostname="mta.example.com", state_dir=folder / "state", workers=1),
            tls=Tls(
                certificate=(folder / "etc/a.pem",),
                private_key=(folder / "etc/a.key",),
                minimum=public.TLSVersion.V1_3,
                ciphers="ECDHE-RSA-AES128-GCM-SHA256",
            ),
            listeners=(
                Listener(
                    name="either",
                    ports=(2465,),
                    addresses=("127.0.0.1", "::1"),
                    security=Security.AUTO,
                    auth_before_tls=public.AuthBeforeTLS.CRAM_MD5,
                    detection_time=1.5,
                    trusted_networks=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"), ip_network("192.0.2.7/32")),
                    trusted_project="printers",
                ),
            ),
            submission=public.Submission(usernames=("apikey",)),
            limits=public.Limits(message_size=10240, recipients=50),
            dns=public.Dns(
                servers=(HostPort("127.0.0.1", 53), HostPort("127.0.0.1", 5300), HostPort("::1", 53), HostPort("2001:db8::53", 53)),
                timeout=2,
            ),
            delivery=Delivery(
                port=2526,
                relayhost=HostPort("smtp.example.com", 587),
                schedule=(60, 60, 3600),
                lifetime=14400,
                tls=public.DeliveryTLS.REQUIRE,
                allow_networks=(ip_network("0.0.0.0/0"), ip_network("::/0")),
                connect_timeout=1,
                command_timeout=120,
                data_timeout=180,
                capture_all=True,
            ),
            events=Events(json_log=Path("/var/log/events.jsonl"), hooks=("example.hooks.Count", "example.hooks.Print")),
        )

    def test_each_default_passes_for_a_value_in_the_file(self) -> None:
        """What etc/mta.ini shows behind a "#" does what it says, and the defaults of the classes are the same."""
        shown = "".join(line[1:] if re.match(r"#[a-z_]+ =", line) else line for line in reference_ini().splitlines(True))
        config = read(shown)
        assert config == attrs.evolve(read(LEAST), listeners=config.listeners, mta=public.Mta(hostname="mta.example.com"))

    def test_the_default_ciphers_are_good_for_openssl(self) -> None:
        assert complaint_about("tls", f"ciphers = {MODERN_CIPHERS.replace('ECDHE', 'NOSUCH')}").startswith("ciphers: 'NOSUCH")
        assert read(f"{LEAST}[tls]\nciphers = {MODERN_CIPHERS}:ECDHE+AESGCM").tls.ciphers.startswith(MODERN_CIPHERS)

    @pytest.mark.parametrize(
        ("text", "seconds"), [("500ms", 0.5), ("30s", 30), ("5m", 300), ("4h", 14400), ("5d", 432000), ("0.5h", 1800), ("366d", 31622400)]
    )
    def test_durations(self, text: str, seconds: float) -> None:
        assert read(f"{LEAST}[dns]\ntimeout = {text}").dns.timeout == seconds

    @pytest.mark.parametrize(("text", "octets"), [("1000", 1000), ("10KB", 10240), ("25MB", 26214400), ("1GB", 1073741824)])
    def test_sizes_count_by_1024(self, text: str, octets: int) -> None:
        assert read(f"{LEAST}[limits]\nmessage_size = {text}").limits.message_size == octets

    @pytest.mark.parametrize(
        ("text", "relay"),
        [
            ("", None),
            ("smtp.example.com", HostPort("smtp.example.com", 25)),
            ("[smtp.example.com]:587", HostPort("smtp.example.com", 587)),
            ("mail_sink:2526", HostPort("mail_sink", 2526)),
            ("192.0.2.1:26", HostPort("192.0.2.1", 26)),
            ("2001:db8::1", HostPort("2001:db8::1", 25)),
            ("[2001:DB8::1]:26", HostPort("2001:db8::1", 26)),
        ],
    )
    def test_relay_hosts(self, text: str, relay: HostPort | None) -> None:
        assert read(f"{LEAST}[delivery]\nrelayhost = {text}").delivery.relayhost == relay

    def test_a_host_with_its_port_is_written_as_the_file_takes_it(self) -> None:
        assert [str(HostPort("mx.example", 25)), str(HostPort("::1", 53))] == ["mx.example:25", "[::1]:53"]

    @pytest.mark.parametrize("name", ["localhost", "mta.example.com", "[192.0.2.1]", "[IPv6:2001:db8::1]", "xn--bcher-kva.example"])
    def test_host_names(self, name: str) -> None:
        assert read(f"{LEAST}[mta]\nhostname = {name}").mta.hostname == name

    def test_trusting_the_mapped_form_of_a_network_trusts_the_network(self) -> None:
        text = f"{LEAST}trusted_networks = ::ffff:10.0.0.0/104\ntrusted_project = a"
        assert read(text).listeners[0].trusted_networks == (ip_network("10.0.0.0/8"),)


@pytest.mark.usefixtures("folder")
class TestForm:
    def test_lists_are_separated_by_commas_blanks_and_indented_lines(self) -> None:
        text = """
            [listener a]
            ports = 25,587
                # a comment between them
              2525 , 2587

            \t465
            """
        assert read(text).listeners[0].ports == (25, 587, 2525, 2587, 465)

    def test_comments_are_whole_lines_and_values_keep_their_signs(self) -> None:
        config = read("; one\n# two\n" + LEAST + "[events]\njson_log = /a#b;c\n")
        assert config.events.json_log == Path("/a#b;c")

    def test_crlf_and_a_byte_order_mark_are_no_fault(self) -> None:
        path = Path("etc/mta.ini")
        path.write_bytes(b"\xef\xbb\xbf" + LEAST.replace("\n", "\r\n").encode())
        assert load(path, {}).listeners[0].ports == (2525,)

    def test_environment_variables_stand_for_values_and_lists(self) -> None:
        config = read("[mta]\nhostname = ${HOST}.example.com\n[listener a]\nports = 25 ${MORE}\n", HOST="mta1", MORE="587, 2525")
        assert (config.mta.hostname, config.listeners[0].ports) == ("mta1.example.com", (25, 587, 2525))

    def test_relative_paths_start_from_the_folder_of_the_file(self, folder: Path) -> None:
        config = read(LEAST + "[mta]\nstate_dir = state\n[events]\njson_log = ../log/e.jsonl\n")
        assert (config.mta.state_dir, config.events.json_log) == (folder / "etc/state", folder / "log/e.jsonl")

    def test_a_linked_certificate_stays_a_link_so_that_renewing_it_works(self, folder: Path) -> None:
        (folder / "etc/archive1.pem").write_text("PEM")
        (folder / "etc/live.pem").symlink_to("archive1.pem")
        assert read(f"{LEAST}[tls]\ncertificate = live.pem\nprivate_key = live.pem").tls.certificate == (folder / "etc/live.pem",)

    def test_a_missing_file(self) -> None:
        with pytest.raises(ConfigError) as caught:
            load("etc/none.ini")
        assert str(caught.value) == "etc/none.ini: can't be read: No such file or directory; expected a configuration file"
        assert caught.value.faults == (
            Fault(Path("etc/none.ini"), None, None, None, "can't be read: No such file or directory", "a configuration file"),
        )

    def test_a_folder_in_the_place_of_the_file(self) -> None:
        with pytest.raises(ConfigError, match=r"^etc: can't be read: Is a directory; expected a configuration file$"):
            load("etc")

    def test_a_file_that_is_not_utf8(self) -> None:
        Path("etc/mta.ini").write_bytes(b"[mta]\n\n# caf\xe9\n")
        with pytest.raises(ConfigError, match=r"^etc/mta\.ini:3: this line is not UTF-8; expected text in UTF-8$"):
            load("etc/mta.ini")

    def test_malformed_lines_are_all_reported_and_what_hangs_on_them_is_not(self) -> None:
        text = """
            ports = 25
            [listener a
            ports = nothing of this is judged
            [listener b] # comment
            [listener c]
              ports = 26
            ports = 27
              security = tls
            = 5
            just words
              and more of them
            addresses = 127.0.0.1\x07
            [mta]
            """
        assert complaints(text) == [
            "etc/mta.ini:1: ports: this key stands before the first section; expected a [section] above it",
            "etc/mta.ini:2: '[listener a' is not the name of a section; expected [section] alone on its line",
            "etc/mta.ini:4: '[listener b] # comment' is not the name of a section; expected [section] alone on its line",
            "etc/mta.ini:6: [listener c] an indented line continues a value, and there is none before it; "
            "expected keys and sections at the start of their line",
            "etc/mta.ini:8: [listener c] 'security = tls' is indented, so it continues the value before it; "
            "expected keys and sections at the start of their line",
            "etc/mta.ini:9: [listener c] '= 5' is neither a [section] nor key = value nor a comment; expected one of them",
            "etc/mta.ini:10: [listener c] 'just words' is neither a [section] nor key = value nor a comment; expected one of them",
            "etc/mta.ini:12: [listener c] a control character; expected text",
        ]

    def test_an_indented_section_is_not_taken_for_an_item_of_a_list(self) -> None:
        assert complaints(LEAST + "[submission]\nusernames = a\n  [limits]\n") == [
            "etc/mta.ini:5: [submission] '[limits]' is indented, so it continues the value before it; "
            "expected keys and sections at the start of their line"
        ]
        assert len(read(LEAST + "[dns]\nservers =\n  [::1]\n  [::2]:53\n").dns.servers) == 2

    def test_sections_and_keys_stand_once(self) -> None:
        text = """
            [listener a]
            ports = 25
            [limits]
            recipients = 1
            recipients = 2
            [listener  a]
            ports = 26
            security = none
            """
        assert complaints(text) == [
            "etc/mta.ini:5: [limits] recipients: this key is already on line 4; expected each key once in its section",
            "etc/mta.ini:6: [listener a] this section is already on line 1; expected each section once",
            "etc/mta.ini:7: [listener a] ports: this key is already on line 2; expected each key once in its section",
            "etc/mta.ini:8: [listener a] security: 'none' is none of the choices; expected starttls, tls or auto",
        ]

    def test_unknown_names_are_refused_with_what_may_have_been_meant(self) -> None:
        text = """
            [listner smtp]
            ports = x
            [weather]
            [mta two]
            [Limits]
            [mta]
            hostnmae = a
            State_Dir = /b
            relayhost = c
            colour = red
            [listener smtp]
            name = smtp
            ports = 25
            """
        names = (
            "mta, tls, listener NAME, submission, policy NAME, limits, dns, delivery, shaping NAME, source NAME, pool NAME, "
            "events, hook NAME, amqp, http or unsubscribe"
        )
        assert complaints(text) == [
            f"etc/mta.ini:1: [listner smtp] unknown section (did you mean [listener NAME]?); expected {names}",
            f"etc/mta.ini:3: [weather] unknown section; expected {names}",
            "etc/mta.ini:4: [mta two] there is only one such section, without a name; expected [mta]",
            f"etc/mta.ini:5: [Limits] unknown section (did you mean [limits]?); expected {names}",
            "etc/mta.ini:7: [mta] hostnmae: unknown key (did you mean hostname?); expected hostname, state_dir or workers",
            "etc/mta.ini:8: [mta] State_Dir: unknown key (did you mean state_dir?); expected hostname, state_dir or workers",
            "etc/mta.ini:9: [mta] relayhost: unknown key (it belongs to [delivery]); expected hostname, state_dir or workers",
            "etc/mta.ini:10: [mta] colour: unknown key; expected hostname, state_dir or workers",
            "etc/mta.ini:12: [listener smtp] name: unknown key; expected ports, addresses, security, auth_before_tls, detection_time, "
            "trusted_networks, trusted_project, proxy_protocol_from or role",
        ]

    @pytest.mark.parametrize(
        ("name", "here"),
        [
            ("myhostname", "[mta] hostname"),
            ("inet_interfaces", "[listener NAME] addresses"),
            ("smtp_helo_name", "[source NAME] hostname"),
            ("default_destination_rate_delay", "[shaping NAME] rate"),
            ("maximal_queue_lifetime", "[delivery] lifetime"),
        ],
    )
    def test_parameters_of_postfix_are_known_by_what_they_are_called_here(self, name: str, here: str) -> None:
        assert f"unknown key (what Postfix calls so is {here})" in complaints(f"[dns]\n{name} = x\n")[-1]

    def test_a_hook_has_a_section_whose_keys_are_its_own(self) -> None:
        text = """
            [listener smtp]
            ports = 2525
            [events]
            hooks = shop.hooks.Bounces, shop.hooks.Other
            [hook shop.hooks.Bounces]
            path = /var/lib/shop
              and more
            password = ${SECRET}
            empty =
            """
        config = read(text, SECRET="hunter2")
        (section,) = config.hooks
        assert section.name == "shop.hooks.Bounces"
        assert section.settings == {"path": "/var/lib/shop\nand more", "password": "hunter2", "empty": ""}
        assert complaints(text) == [
            "etc/mta.ini:8: [hook shop.hooks.Bounces] password: the environment variable SECRET is not set; "
            "expected ${NAME} with the name of a variable that is set"
        ]

    def test_a_broker_is_a_url_whose_password_is_never_shown(self) -> None:
        config = read(LEAST + "[amqp]\nurl = amqps://me:${SECRET}@broker.test/a%2Fb\n", SECRET="s%40cret")
        assert config.amqp.url is not None
        assert (config.amqp.url.host, config.amqp.url.port, config.amqp.url.tls) == ("broker.test", 5671, True)
        assert (config.amqp.url.user, config.amqp.url.password, config.amqp.url.vhost) == ("me", "s@cret", "a/b")
        assert "cret" not in repr(config)
        url = read(LEAST + "[amqp]\nurl = amqp://[::1]:5673\n").amqp.url
        assert url is not None
        assert (url.host, url.port, url.user, url.password, url.vhost) == ("::1", 5673, "guest", "guest", "/")
        for wrong in ("http://a:secret@b", "amqp://", "amqp://a:secret@b:x/", "amqp://a:secret@b/c/d", "amqp://a:secret@b/?x=1", "secret"):
            assert "secret" not in complaint_about("amqp", f"url = {wrong}")
        assert complaint_about("amqp", "ca = x") == "ca: there is no url that it would be for; expected url with it"
        assert complaint_about("amqp", "routing_key = {tag}").startswith("routing_key: '{tag}' has braces around something else")

    def test_a_section_that_no_hook_would_read_is_refused(self) -> None:
        text = "[listener smtp]\nports = 2525\n[events]\nhooks = a.B\n[hook a.C]\nx = 1\n[hook a]\n[hook a.B]\nclass = x\na-b = 1\n"
        argument = "is not the name of an argument; expected letters, digits and underscores, and no word of Python"
        assert complaints(text) == [
            "etc/mta.ini:5: [hook a.C] is not named in [events] hooks; expected a.B",
            "etc/mta.ini:7: [hook a] name: 'a' is not a dotted name; expected a dotted name like package.module.Class",
            f"etc/mta.ini:9: [hook a.B] class: {argument}",
            f"etc/mta.ini:10: [hook a.B] a-b: {argument}",
        ]

    def test_listeners_are_needed_and_have_names_and_ports(self) -> None:
        assert complaints("[mta]\n") == ["etc/mta.ini: [listener NAME] there is none of these sections; expected at least one"]
        assert complaints("[listener]\nports = 25\n[listener a b]\n[listener c]\n\n") == [
            "etc/mta.ini:1: [listener] this section has no name; expected [listener NAME]",
            "etc/mta.ini:3: [listener a b] name: 'a b' is not a name; expected at most 64 letters, digits, dots, dashes and underscores, "
            "a letter or digit first",
            "etc/mta.ini:3: [listener a b] ports: this key is missing; expected numbers from 1 to 65535, separated by commas or blanks",
            "etc/mta.ini:4: [listener c] ports: this key is missing; expected numbers from 1 to 65535, separated by commas or blanks",
        ]

    def test_every_fault_is_reported_in_the_order_of_the_lines(self) -> None:
        text = """
            [delivery]
            lifetime = 5
            [listener smtp]
            ports = 25,
              70000
            [mta]
            workers = auto
            """
        assert complaints(text) == [
            "etc/mta.ini:2: [delivery] lifetime: '5' has no unit; expected a number with its unit: 500ms, 30s, 5m, 4h, 5d",
            "etc/mta.ini:5: [listener smtp] ports: '70000' is not a port; expected numbers from 1 to 65535, separated by commas or blanks",
            "etc/mta.ini:7: [mta] workers: 'auto' does not work yet: lettermta runs in one process as of now; expected 1",
        ]

    def test_every_item_of_a_list_that_is_wrong_is_reported(self) -> None:
        text = """
            [listener smtp]
            ports = 0, 25, 25
              70000
            [tls]
            certificate = none.pem, neither.pem
            private_key =
            """
        expected = f"expected numbers from 1 to 65535, {LISTED}"
        assert complaints(text) == [
            f"etc/mta.ini:2: [listener smtp] ports: '0' is not a port; {expected}",
            f"etc/mta.ini:2: [listener smtp] ports: '25' is there twice; {expected}",
            f"etc/mta.ini:3: [listener smtp] ports: '70000' is not a port; {expected}",
            f"etc/mta.ini:5: [tls] certificate: 'none.pem' can't be read: No such file or directory; expected {FILES}",
            f"etc/mta.ini:5: [tls] certificate: 'neither.pem' can't be read: No such file or directory; expected {FILES}",
        ]


DURATION = "a number with its unit: 500ms, 30s, 5m, 4h, 5d"
NETWORKS = "networks like 10.0.0.0/8 or 2001:db8::/32"
LISTED = "separated by commas or blanks"
FILES = f"paths of files that lettermta can read, {LISTED}"
HOSTNAME = "a domain name like mta.example.com, or an address literal like [192.0.2.1] or [IPv6:2001:db8::1]"
RELAY = "a host and maybe a port: smtp.example.com, 192.0.2.1:587, [2001:db8::1]:25, or nothing"
SERVERS = f"IP addresses, each maybe with a port: 192.0.2.53, 127.0.0.1:5300, [::1]:53, {LISTED}"
WIDE = f"is so wide that strangers could submit: an open relay; expected {NETWORKS}, no wider than /8 (IPv6: /16), {LISTED}"


@pytest.mark.usefixtures("folder")
class TestWrongValues:
    @pytest.mark.parametrize(
        ("section", "line", "complaint"),
        [
            ("mta", "hostname =", f"hostname: is empty; expected {HOSTNAME}"),
            ("mta", "hostname = my_host.example", f"hostname: 'my_host.example' is not a domain name; expected {HOSTNAME}"),
            ("mta", "hostname = 192.0.2.1", f"hostname: '192.0.2.1' is not a domain name; expected {HOSTNAME}"),
            ("mta", "hostname = [2001:db8::1]", f"hostname: '[2001:db8::1]' is not an address literal; expected {HOSTNAME}"),
            ("mta", "hostname = mx.example.", f"hostname: 'mx.example.' is not a domain name; expected {HOSTNAME}"),
            ("mta", "workers = 4", "workers: '4' does not work yet: lettermta runs in one process as of now; expected 1"),
            ("mta", "workers = many", "workers: 'many' is not a number; expected 1"),
            ("mta", "state_dir =", "state_dir: is empty; expected the path of a folder"),
            ("tls", "minimum = TLSv1.1", "minimum: 'TLSv1.1' is none of the choices; expected TLSv1.2 or TLSv1.3"),
            (
                "tls",
                "ciphers = RC4-SHA",
                "ciphers: 'RC4-SHA' gives OpenSSL no cipher that it knows; "
                "expected OpenSSL names of ciphers for TLS 1.2, separated by colons (see openssl ciphers)",
            ),
            (
                "tls",
                "certificate = none.pem",
                f"certificate: 'none.pem' can't be read: No such file or directory; expected {FILES}",
            ),
            ("tls", "private_key = /", f"private_key: '/' is not a file; expected {FILES}"),
            (
                "tls",
                "certificate = mta.ini",
                "certificate: the number of certificates is 1, that of private keys 0; "
                "expected one private_key for each certificate, in the same order",
            ),
            (
                "listener smtp",
                "addresses = localhost",
                f"addresses: 'localhost' is not an IP address; expected IPv4 and IPv6 addresses, {LISTED}",
            ),
            ("listener smtp", "addresses = ::1 ::1", f"addresses: '::1' is there twice; expected IPv4 and IPv6 addresses, {LISTED}"),
            (
                "listener smtp",
                "addresses = 0.0.0.0 127.0.0.1",
                "addresses: '127.0.0.1' overlaps another address of this listener; expected 0.0.0.0 or single IPv4 addresses, likewise ::",
            ),
            ("listener smtp", "security = STARTTLS", "security: 'STARTTLS' is none of the choices; expected starttls, tls or auto"),
            ("listener smtp", "auth_before_tls = plain", "auth_before_tls: 'plain' is none of the choices; expected none, cram-md5 or all"),
            ("listener smtp", "detection_time = 0s", f"detection_time: '0s' is no time at all; expected {DURATION}"),
            ("listener smtp", "trusted_networks = 0.0.0.0/0", f"trusted_networks: '0.0.0.0/0' {WIDE}"),
            ("listener smtp", "trusted_networks = ::1, ::/0", f"trusted_networks: '::/0' {WIDE}"),
            ("listener smtp", "trusted_networks = ::ffff:0:0/96", f"trusted_networks: '::ffff:0:0/96' {WIDE}"),
            ("listener smtp", "trusted_networks = 10.0.0.0/7", f"trusted_networks: '10.0.0.0/7' {WIDE}"),
            (
                "listener smtp",
                "trusted_networks = 10.0.0.0/8",
                "trusted_networks: there is no trusted_project for them; expected both or neither",
            ),
            ("listener smtp", "trusted_project = a", "trusted_project: there are no trusted_networks for it; expected both or neither"),
            ("submission", "usernames = ,", f"usernames: is empty; expected user names, {LISTED}"),
            (
                "limits",
                "message_size = 25M",
                "message_size: '25M' is not a size; expected a number of octets, or one with its unit: 10KB, 25MB, 1GB",
            ),
            ("limits", "recipients = 0", "recipients: '0' is not a number from 1 on; expected a number from 1 on"),
            ("dns", "timeout = 5 s", f"timeout: '5 s' is not a duration; expected {DURATION}"),
            ("dns", "servers = ns.example", f"servers: 'ns.example' is not an IP address; expected {SERVERS}"),
            ("dns", "servers = 127.0.0.1:", f"servers: '127.0.0.1:' has no port behind its colon; expected {SERVERS}"),
            ("delivery", "relayhost = a.example:smtp", f"relayhost: 'a.example:smtp' is not a port; expected {RELAY}"),
            ("delivery", "relayhost = 192.0.2.256", f"relayhost: '192.0.2.256' is neither a host name nor an IP address; expected {RELAY}"),
            ("delivery", "schedule =", f"schedule: is empty; expected durations like 5m or 4h, {LISTED}"),
            ("delivery", "schedule = 5m 1h 4", f"schedule: '4' has no unit; expected durations like 5m or 4h, {LISTED}"),
            ("delivery", "lifetime = 367d", f"lifetime: '367d' is more than a year; expected {DURATION}"),
            (
                "delivery",
                "allow_networks = 10.0.0.1/8",
                f"allow_networks: '10.0.0.1/8' is not a network: bits behind its prefix are set; expected {NETWORKS}, {LISTED}",
            ),
            ("delivery", "allow_networks = private", f"allow_networks: 'private' is not a network; expected {NETWORKS}, {LISTED}"),
            ("delivery", "capture_all = maybe", "capture_all: 'maybe' is neither yes nor no; expected yes or no"),
            ("events", "hooks = Count", f"hooks: 'Count' is not a dotted name; expected dotted names like package.module.Class, {LISTED}"),
        ],
    )
    def test_complaint(self, section: str, line: str, complaint: str) -> None:
        assert complaint_about(section, line) == complaint

    def test_a_port_belongs_to_one_listener_for_an_address(self) -> None:
        text = """
            [listener a]
            ports = 25 587
            addresses = 127.0.0.1
            [listener b]
            ports = 25
            addresses = ::1, 127.0.0.2
            [listener c]
            ports = 465
              587
            """
        assert complaints(text) == [
            "etc/mta.ini:9: [listener c] ports: '587' is taken by [listener a] on line 1; expected each port once for an address"
        ]

    def test_a_machine_whose_name_is_no_domain_name_has_to_be_told_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(socket, "gethostname", lambda: "my_host")
        assert complaints(LEAST)[0].startswith(
            "etc/mta.ini: [mta] hostname: this machine's name, 'my_host', is not a domain name; expected a domain"
        )


@pytest.mark.usefixtures("folder")
@pytest.mark.usefixtures("folder")
class TestUnsubscribe:
    def test_what_links_begin_with_has_no_slash_at_its_end(self) -> None:
        for text, url in (
            ("https://news.example.com/unsubscribe/", "https://news.example.com/unsubscribe"),
            ("https://news.example.com", "https://news.example.com"),
            ("https://NEWS.example.com:8443/a/b", "https://news.example.com:8443/a/b"),
            ("https://[2001:db8::1]/u", "https://[2001:db8::1]/u"),
        ):
            config = read(f"{LEAST}[unsubscribe]\nurl = {text}\nlisten = 127.0.0.1:9120\n")
            assert (config.unsubscribe.url, len(config.unsubscribe.listen)) == (url, 1)

    def test_links_lead_somewhere_and_somebody_is_led_there(self) -> None:
        assert complaint_about("unsubscribe", "url = https://news.example.com/u") == (
            "url: there is no listen, so nobody would answer; expected listen with it"
        )
        assert complaint_about("unsubscribe", "listen = 127.0.0.1:9120") == (
            "listen: there is no url, so no mail would have a link; expected url with it"
        )

    @pytest.mark.parametrize(
        ("url", "complaint"),
        [
            ("http://news.example.com/u", "does not begin with https://"),
            ("news.example.com", "does not begin with https://"),
            ("https://news.example.com/u?a=b", "has a query or a fragment"),
            ("https://news.example.com/u#a", "has a query or a fragment"),
            ("https:///u", "is neither a host name nor an IP address"),
            ("https://news.example.com:x/u", "is no URL"),
            ("https://[::1/u", "is no URL"),
            ("https://me:secret@news.example.com/u", "has a user in its URL"),
            ("https://news.example.com/a b", "has more than 400 characters, or some that no URL has"),
            ("https://news.example.com/<a>", "has more than 400 characters, or some that no URL has"),
            ("https://news.example.com/" + "a" * 400, "has more than 400 characters, or some that no URL has"),
        ],
    )
    def test_what_is_no_such_url_is_refused(self, url: str, complaint: str) -> None:
        found = complaints(f"{LEAST}[unsubscribe]\nurl = {url}\nlisten = 127.0.0.1:9120\n")
        assert complaint in found[0]
        assert "secret" not in found[0]
        assert found[0].endswith("expected a URL like https://news.example.com/unsubscribe, without query and fragment, or nothing")


class TestReplyClasses:
    def test_a_file_of_rules_is_read_from_beside_the_configuration(self, folder: Path) -> None:
        (folder / "etc/mine.toml").write_text('[[rule]]\nclass = "rate"\ncodes = ["4xx"]')
        assert len(read(LEAST + "[delivery]\nreply_classes = mine.toml").delivery.reply_classes) == 1
        assert read(LEAST).delivery.reply_classes == ()

    def test_its_faults_are_faults_of_the_configuration(self, folder: Path) -> None:
        (folder / "etc/bad.toml").write_text('[[rule]]\nclass = "nice"\n[[rule]]\nclass = "rate"')
        complaint = complaint_about("delivery", "reply_classes = bad.toml")
        assert "rule 1: class is 'nice'" in complaint
        assert "rule 2: it has neither codes nor texts" in complaint
        assert "No such file" in complaint_about("delivery", "reply_classes = none.toml")


@pytest.mark.usefixtures("folder")
class TestEnvironment:
    def test_a_variable_that_is_not_set(self) -> None:
        assert (
            complaint_about("mta", "hostname = ${NO_SUCH}.example")
            == "hostname: the environment variable NO_SUCH is not set; expected ${NAME} with the name of a variable that is set"
        )

    @pytest.mark.parametrize("text", ["${}", "${a b}", "${OPEN", "${1}"])
    def test_what_is_no_name_of_a_variable(self, text: str) -> None:
        assert complaint_about("mta", f"hostname = {text}").startswith(f"hostname: '{text}' is not the name of a variable; expected")

    @pytest.mark.parametrize(
        "line",
        [
            "[mta]\nhostname = a ${SECRET}",
            "[tls]\ncertificate = ${SECRET}",
            "[tls]\nciphers = ${SECRET}",
            "[limits]\nmessage_size = ${SECRET}",
            "[dns]\nservers = 127.0.0.1, ${SECRET}",
            "[delivery]\nrelayhost = ${SECRET}:x",
            "[delivery]\ncapture_all = ${SECRET}",
            "[events]\nhooks = ${SECRET}",
            "[events]\nhooks = a.b ${SECRET} ${NO_SUCH}",
        ],
    )
    def test_its_content_is_never_shown(self, line: str) -> None:
        (complaint,) = complaints(LEAST + line, SECRET="!s3cr3t!")
        assert "s3cr3t" not in complaint
        assert "'" not in complaint or line.partition("= ")[2] in complaint

    def test_nor_when_it_is_what_two_listeners_share(self) -> None:
        (complaint,) = complaints("[listener a]\nports = 2525\n[listener b]\nports = ${PORT}\n", PORT="2525")
        assert complaint.startswith("etc/mta.ini:4: [listener b] ports: '${PORT}' is taken by [listener a] on line 1")


class TestReference:
    def test_the_production_file_is_what_the_schema_says(self) -> None:
        assert (ROOT / "etc/mta.ini").read_text() == reference_ini(), "python -m lettermta.config ini > etc/mta.ini"

    def test_the_page_is_what_the_schema_says(self) -> None:
        page = (ROOT / "docs/configuration.md").read_text()
        assert page == reference_markdown(), "python -m lettermta.config markdown > docs/configuration.md"

    def test_the_production_file_listens_on_the_six_ports(self) -> None:
        listeners = load(ROOT / "etc/mta.ini", {}).listeners
        assert {port: listener.security for listener in listeners for port in listener.ports} == {
            25: Security.STARTTLS,
            587: Security.STARTTLS,
            2525: Security.STARTTLS,
            2587: Security.STARTTLS,
            465: Security.TLS,
            2465: Security.AUTO,
        }

    def test_the_newcomers_file_keeps_to_itself(self) -> None:
        config = load(ROOT / "etc/dev.ini", {})
        assert {port for listener in config.listeners for port in listener.ports} == {2525, 2587, 2465}
        assert {address for listener in config.listeners for address in listener.addresses} == {"127.0.0.1"}
        assert config.delivery.capture_all
        assert config.mta.state_dir == ROOT / "state"

    def test_the_examples_of_faults_on_the_page_are_what_the_reader_says(self, folder: Path) -> None:
        lines = [""] * 24
        lines[10:12] = ["[listener smtp]", "ports = 70000"]
        lines[18:20] = ["[dns]", "server = 192.0.2.53"]
        lines[22:24] = ["[delivery]", "lifetime = 5"]
        assert "\n".join(complaints("#" + "\n".join(lines))) in reference_markdown()

    def test_both_are_printed_by_a_command(self) -> None:
        printed = subprocess.run([sys.executable, "-m", "lettermta.config", "ini"], cwd=ROOT, capture_output=True, text=True, check=True)
        assert printed.stdout == reference_ini()
        assert printed.stderr == ""

    def test_reading_needs_no_reactor(self) -> None:
        code = "import sys, lettermta.config; lettermta.config.load('etc/dev.ini'); sys.exit('twisted.internet.reactor' in sys.modules)"
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
