"""What a value may look like: each kind turns text into a value, and says in words what it takes.

A kind raises :class:`~lettermta.config.faults.Wrong` with the part of the text that is wrong, and nothing else. Sizes are octets,
durations are seconds. The only kinds that look outside the text are :data:`FILES` and :data:`REPLY_RULES`,
which open what they name.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Callable
from datetime import date
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import unquote, urlsplit

from attrs import field, frozen
from cryptography.x509 import load_pem_x509_certificates

from lettermta.config.faults import Wrong
from lettermta.config.reply_rules import BadRules, ReplyRule, reply_rules

T = TypeVar("T")
E = TypeVar("E", bound=enum.StrEnum)
Network = IPv4Network | IPv6Network

MODERN_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption, with ECDSA and RSA certificates (RFC 9325 section 4.2)."""

LISTED = "separated by commas or blanks"

_SEPARATOR = re.compile(r"[,\s]+")
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 366 * 86400
_SIZE = re.compile(r"(\d{1,15})(|KB|MB|GB)", re.ASCII)
_OCTETS = {"": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_LOOSE_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")  # the accounts' rule, which a test holds it to; they are above the configuration
_PATTERN = re.compile(r"[A-Za-z0-9*?_-]+(?:\.[A-Za-z0-9*?_-]+)*")
_RATE = re.compile(r"(\d{1,9})/([smh])", re.ASCII)
_MAPPED = IPv6Network("::ffff:0:0/96")
_WORDS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}


@frozen
class Kind(Generic[T]):
    """``parse`` takes the text, stripped, and the folder that relative paths start from; ``expected`` completes "expected …"."""

    parse: Callable[[str, Path], T]
    expected: str


@frozen
class HostPort:
    """A host, by name or address, and a port. Its ``str()`` is what the file takes: ``host:port``, ``[2001:db8::1]:port``."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@frozen
class Rate:
    """So many in so many seconds. Its ``str()`` is what the file takes: ``100/m``."""

    number: int
    unit: str

    @property
    def seconds(self) -> float:
        """The time that the number is for."""
        return _SECONDS[self.unit]

    def __str__(self) -> str:
        return f"{self.number}/{self.unit}"


@frozen
class AMQPAddress:
    """Where a broker is and how to log in there, out of a URL."""

    host: str
    port: int
    tls: bool
    user: str
    password: str = field(repr=False)
    vhost: str


def one(parse: Callable[[str], T], expected: str) -> Kind[T]:
    """A kind for a value that is never empty."""

    def parse_one(text: str, folder: Path) -> T:
        if not text:
            raise Wrong("", "is empty")
        return parse(text)

    return Kind(parse_one, expected)


def optional(kind: Kind[T]) -> Kind[T | None]:
    """The same kind, or an empty value, which is None."""
    return Kind(lambda text, folder: kind.parse(text, folder) if text else None, f"{kind.expected}, or nothing")


def several(parse: Callable[[str], T], expected: str, *, least: int = 0, repeats: bool = False) -> Kind[tuple[T, ...]]:
    """A kind for a list: ``least`` items or more, none of them twice unless ``repeats``."""

    def parse_list(text: str, folder: Path) -> tuple[T, ...]:
        items: list[T] = []
        for item in _items(text):
            value = parse(item)
            if value in items and not repeats:
                raise Wrong(item, "is there twice")
            items.append(value)
        if len(items) < least:
            raise Wrong("", "is empty")
        return tuple(items)

    return Kind(parse_list, f"{expected}, {LISTED}")


def choice(enumeration: type[E]) -> Kind[E]:
    """One of an enumeration's values."""

    def parse(text: str) -> E:
        try:
            return enumeration(text)
        except ValueError:
            raise Wrong(text, "is none of the choices") from None

    return one(parse, either([member.value for member in enumeration]))


def either(words: list[str]) -> str:
    """``a, b or c``."""
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def is_domain(text: str) -> bool:
    """Whether this is a domain name in ASCII (RFC 1035 section 2.3.4, RFC 5321 section 4.1.2), a single label included."""
    labels = text.split(".")
    return len(text) <= 253 and all(map(_LABEL.fullmatch, labels)) and not _ends_like_ipv4(labels)


def _ends_like_ipv4(labels: list[str]) -> bool:
    return len(labels) > 1 and labels[-1].isdigit()  # RFC 1123 section 2.1; a lone number may be the name of a container


def _items(text: str) -> list[str]:
    return [item for item in _SEPARATOR.split(text) if item]


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text) or int(text) < 1:
        raise Wrong(text, "is not a number from 1 on")
    return int(text)


def _workers(text: str) -> int:
    if text == "auto" or (_NUMBER.fullmatch(text) and text != "1"):
        raise Wrong(text, "does not work yet: lettermta runs in one process as of now")
    if text != "1":
        raise Wrong(text, "is not a number")
    return 1


def _boolean(text: str) -> bool:
    if text not in _WORDS:
        raise Wrong(text, "is neither yes nor no")
    return _WORDS[text]


def _duration(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise Wrong(text, "has no unit" if _NUMBER.fullmatch(text) else "is not a duration")
    seconds = float(match[1]) * _SECONDS[match[2]]
    if not 0 < seconds <= _LONGEST:
        raise Wrong(text, "is more than a year" if seconds else "is no time at all")
    return seconds


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None or not int(match[1]):
        raise Wrong(text, "is not a size")
    return int(match[1]) * _OCTETS[match[2]]


def _port(text: str) -> int:
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= 65535:
        raise Wrong(text, "is not a port")
    return int(text)


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise Wrong(text, "is not an IP address") from None


def _network(text: str) -> Network:
    try:
        network = ip_network(text)
    except ValueError:
        try:
            ip_network(text, strict=False)
        except ValueError:
            raise Wrong(text, "is not a network") from None
        raise Wrong(text, "is not a network: bits behind its prefix are set") from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        # Peers are compared in their IPv4 form, so this is what the operator means, and what has to be judged.
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def _trusted_network(text: str) -> Network:
    network = _network(text)
    if network.prefixlen < (8 if network.version == 4 else 16):
        raise Wrong(text, "is so wide that strangers could submit: an open relay")
    return network


def _hostname(text: str) -> str:
    if text.startswith("[") and text.endswith("]"):  # RFC 5321 section 4.1.3
        inner = text[1:-1]
        six = inner[:5].lower() == "ipv6:"
        try:
            if ip_address(inner[5:] if six else inner).version == (6 if six else 4):
                return text
        except ValueError:
            pass
        raise Wrong(text, "is not an address literal")
    if not is_domain(text):
        raise Wrong(text, "is not a domain name")
    return text


def _host_port(text: str, default: int) -> HostPort:
    bracketed = re.fullmatch(r"\[([^\[\]]+)\](?::(.*))?", text)
    if bracketed:
        host, port = bracketed[1], bracketed[2]
    elif text.count(":") > 1:
        host, port = text, None
    else:
        host, colon, rest = text.partition(":")
        port = rest if colon else None
    try:
        return HostPort(_host(host), default if port is None else _port(port))
    except Wrong as wrong:
        raise Wrong(text, "has no port behind its colon" if port == "" else wrong.complaint) from None


def _host(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        labels = text.split(".")
        # Names of containers and private networks have underscores, which RFC 1123 doesn't allow and resolvers don't mind.
        if len(text) > 253 or not all(map(_LOOSE_LABEL.fullmatch, labels)) or _ends_like_ipv4(labels):
            raise Wrong(text, "is neither a host name nor an IP address") from None
        return text


def _name_server(text: str) -> HostPort:
    server = _host_port(text, 53)
    try:
        ip_address(server.host)
    except ValueError:
        raise Wrong(text, "is not an IP address") from None
    return server


def _own_address(text: str) -> HostPort:
    own = _host_port(text, 0)
    try:
        ip_address(own.host)
    except ValueError:
        raise Wrong(text, "is not an IP address") from None
    if not own.port:
        raise Wrong(text, "has no port")
    return own


def _amqp(text: str) -> AMQPAddress:
    """As RabbitMQ's URI specification has it. What is wrong is never quoted: it may hold a password."""
    url = urlsplit(text)
    try:
        port = url.port
    except ValueError:
        raise Wrong("", "has no port from 1 to 65535 in its URL") from None
    if url.scheme not in ("amqp", "amqps"):
        raise Wrong("", "does not begin with amqp:// or amqps://")
    if not url.hostname:
        raise Wrong("", "has no host in its URL")
    if url.query or url.fragment or url.path.count("/") > 1:
        raise Wrong("", "has something behind the virtual host in its URL")
    tls = url.scheme == "amqps"
    try:
        host = _host(url.hostname)
    except Wrong:
        raise Wrong("", "has neither a host name nor an IP address in its URL") from None
    return AMQPAddress(
        host=host,
        port=port or (5671 if tls else 5672),
        tls=tls,
        user=unquote(url.username or "guest"),
        password=unquote("guest" if url.password is None else url.password),
        vhost=unquote(url.path[1:]) or "/",
    )


def _routing_key(text: str) -> str:
    try:
        longest = text.format(project="p" * 63, route="r" * 63, event="e" * 30)
    except (LookupError, ValueError, AttributeError):
        raise Wrong(text, "has braces around something else than project, route or event") from None
    if len(longest.encode()) > 255:
        raise Wrong(text, "may come to more than 255 octets")
    return text


def _exchange(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,255}", text) or text.startswith("amq."):
        raise Wrong(text, "is not the name of an exchange of one's own")
    return text


def _dotted(text: str) -> str:
    parts = text.split(".")
    if len(parts) < 2 or not all(map(str.isidentifier, parts)):
        raise Wrong(text, "is not a dotted name")
    return text


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise Wrong(text, "is not a name")
    return text


def _pattern(text: str) -> str:
    if not _PATTERN.fullmatch(text) or len(text) > 253:
        raise Wrong(text, "is neither a domain name nor a pattern of one")
    return text.lower()


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Wrong(text, "is not a date") from None


def _rate(text: str) -> Rate:
    match = _RATE.fullmatch(text.replace(" ", ""))
    if match is None or not int(match[1]):
        raise Wrong(text, "is not a rate")
    return Rate(int(match[1]), match[2])


def _code(text: str) -> str:
    if not re.fullmatch(r"[45][0-9?]{2}", text, re.ASCII):
        raise Wrong(text, "is no reply code of a failure")
    return text


def _enhanced(text: str) -> str:
    if not re.fullmatch(r"[45]\.(\d{1,3}|\*)\.(\d{1,3}|\*)", text, re.ASCII):
        raise Wrong(text, "is no enhanced code of a failure")
    return text


def _expression(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise Wrong(text, f"is no regular expression: {error}") from None


def _project(text: str, folder: Path) -> str:
    if text and not _SLUG.fullmatch(text):
        raise Wrong(text, "is not a slug (1 to 63 of a-z, 0-9, _ and -, the first one a letter or digit)")
    return text


def _ciphers(text: str) -> str:
    ciphers = ":".join(_items(text))
    if ciphers == MODERN_CIPHERS:
        return ciphers  # most files leave the ciphers alone, and OpenSSL is slow to load
    from OpenSSL import SSL

    try:
        SSL.Context(SSL.TLS_SERVER_METHOD).set_cipher_list(ciphers.encode())
    except SSL.Error:
        raise Wrong(text, "gives OpenSSL no cipher that it knows") from None
    return ciphers


def _path(text: str, folder: Path) -> Path:
    if not text:
        raise Wrong("", "is empty")
    if "\0" in text:
        raise Wrong(text, "has a NUL in it, as no path can")
    path = folder / text
    # Symbolic links stay, so that what they point to may change; but ".." is only right on the real folders.
    return path.resolve() if ".." in path.parts else path


def _files(text: str, folder: Path) -> tuple[Path, ...]:
    files = []
    for item in _items(text):
        path = _path(item, folder)
        try:
            if not path.is_file() and path.exists():
                raise Wrong(item, "is not a file")
            os.close(os.open(path, os.O_RDONLY))
        except OSError as error:
            raise Wrong(item, f"can't be read: {error.strerror}") from None
        files.append(path)
    return tuple(files)


def _authorities(text: str, folder: Path) -> Path:
    path = _path(text, folder)
    try:
        load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise Wrong(text, f"can't be read: {error.strerror}") from None
    except ValueError as error:
        raise Wrong(text, f"has no certificates in it, or broken ones: {error}") from None
    return path


def _mail_address(text: str) -> str:
    local, _, domain = text.rpartition("@")
    if not re.fullmatch(r"[A-Za-z0-9._+-]{1,64}", local) or not is_domain(domain):
        raise Wrong(text, "is not an address like fbl@bounces.example.com")
    return text.lower()


def _reply_rules(text: str, folder: Path) -> tuple[ReplyRule, ...]:
    if not text:
        return ()
    try:
        return reply_rules(_path(text, folder).read_text("utf-8"))
    except OSError as error:
        raise Wrong(text, f"can't be read: {error.strerror}") from None
    except (BadRules, UnicodeDecodeError) as error:
        raise Wrong(text, f"has faults: {'; '.join(str(error).splitlines())}") from None


def _readable(text: str, folder: Path) -> Path:
    files = _files(text, folder)
    if len(files) != 1:
        raise Wrong(text, "is not one file")
    return files[0]


NUMBER = one(_number, "a number from 1 on")
WORKERS = one(_workers, "1")
BOOLEAN = one(_boolean, "yes or no")
DURATION = one(_duration, "a number with its unit: 500ms, 30s, 5m, 4h, 5d")
DURATIONS = several(_duration, "durations like 5m or 4h", least=1, repeats=True)
SIZE = one(_size, "a number of octets, or one with its unit: 10KB, 25MB, 1GB")
PORT = one(_port, "a number from 1 to 65535")
PORTS = several(_port, "numbers from 1 to 65535", least=1)
ADDRESSES = several(_address, "IPv4 and IPv6 addresses", least=1)
NETWORKS = several(_network, "networks like 10.0.0.0/8 or 2001:db8::/32")
TRUSTED_NETWORKS = several(_trusted_network, "networks like 10.0.0.0/8 or 2001:db8::/32, no wider than /8 (IPv6: /16)")
HOSTNAME = one(_hostname, "a domain name like mta.example.com, or an address literal like [192.0.2.1] or [IPv6:2001:db8::1]")
DOMAIN = optional(HOSTNAME)
RELAY = optional(one(lambda text: _host_port(text, 25), "a host and maybe a port: smtp.example.com, 192.0.2.1:587, [2001:db8::1]:25"))
NAME_SERVERS = several(_name_server, "IP addresses, each maybe with a port: 192.0.2.53, 127.0.0.1:5300, [::1]:53")
LISTEN = several(_own_address, "IP addresses of this machine, each with a port: 127.0.0.1:9110, [::1]:9110")
USERNAMES = several(str, "user names", least=1)
TEXT = Kind(lambda text, folder: text, "text")
DOTTED = one(_dotted, "a dotted name like package.module.Class")
HOOKS = several(_dotted, "dotted names like package.module.Class")
AMQP = optional(one(_amqp, "a URL like amqps://user:password@host:5671/vhost"))
EXCHANGE = one(_exchange, "1 to 255 letters, digits, dots, dashes, underscores and colons, not amq. first")
ROUTING_KEY = one(_routing_key, "a text in which {project}, {route} and {event} are put in")
NAME = one(_name, "at most 64 letters, digits, dots, dashes and underscores, a letter or digit first")
PATTERN = one(_pattern, "a domain or the name of an MX host, where * stands for any characters and ? for one: example.com, *.example.com")
PATTERNS = several(_pattern, "domains or names of MX hosts, with * and ? for patterns")
CODES = several(_code, "reply codes of 4yz or 5yz, ? for any digit: 421, 45?")
ENHANCED_CODES = several(_enhanced, "enhanced codes of 4.y.z or 5.y.z, * for any number: 4.7.*, 4.2.1")
EXPRESSION = one(_expression, "a regular expression in the syntax of Python, capitals or not")
NAMES = several(_name, "names", least=1)
SOURCES = several(_address, "IPv4 and IPv6 addresses")
PLAN = several(_number, "numbers of messages", least=1, repeats=True)
DAY = one(_day, "a date like 2026-12-31")
RATE = one(_rate, "a number of messages in a second, minute or hour: 10/s, 100/m, 5000/h")
PROJECT = Kind(_project, "the slug of a project, or nothing")
CIPHERS = one(_ciphers, "OpenSSL names of ciphers for TLS 1.2, separated by colons (see openssl ciphers)")
PATH = Kind(_path, "the path of a folder")
FILE = optional(Kind(_path, "the path of a file"))
AUTHORITIES = optional(Kind(_authorities, "the path of a file of certificates in PEM"))
READABLE_FILE = Kind(_readable, "the path of a file that lettermta can read")
FILES = Kind(_files, f"paths of files that lettermta can read, {LISTED}")
MAIL_ADDRESS = optional(one(_mail_address, "an address of mail like reports@example.com"))
MAIL_ADDRESSES = several(_mail_address, "addresses of mail like fbl@bounces.example.com")
REPLY_RULES = Kind(_reply_rules, "the path of a file of rules (inbound.md)")
