"""The grammar of RFC 5321 that both ends share: paths, domains, address literals, MAIL and RCPT parameters.

Every parser takes octets of bounded length (the caller bounds the line), runs in linear time, and raises :class:`SyntaxFault` whose
text is fit for a reply. Nothing that passes can hold CR, LF, NUL or another control character, so what was parsed here may be
written into a command, a header or a log line (HARD-CASES row 13). Addresses in UTF-8 (RFC 6531 section 3.3) are read as well; that the
transaction has to ask for SMTPUTF8 to use them is for the caller to insist on.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

import idna

_ATEXT = rb"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]"
_DOT_STRING = _ATEXT + rb"+(?:\." + _ATEXT + rb"+)*"
_QUOTED = rb'"(?:[ !#-\[\]-~]|\\[ -~])*"'
_LABEL = rb"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOMAIN = _LABEL + rb"(?:\." + _LABEL + rb")*\.?"
_LITERAL = rb"\[[0-9A-Za-z.:-]{1,64}\]"

_PLAIN_PATH = re.compile(rb"<(" + _DOT_STRING + rb")@(" + _DOMAIN + rb")>")
"""What nearly every path looks like."""
_QUOTED_PATH = re.compile(rb"<(" + _DOT_STRING + rb"|" + _QUOTED + rb")@(" + _DOMAIN + rb"|" + _LITERAL + rb")>")
_UTF8_ATEXT = rb"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\x80-\xff]"
_UTF8_LOCAL = _UTF8_ATEXT + rb"+(?:\." + _UTF8_ATEXT + rb"+)*|" + rb'"(?:[ !#-\[\]-~\x80-\xff]|\\[ -~])*"'
_UTF8_PATH = re.compile(rb"<(" + _UTF8_LOCAL + rb")@([A-Za-z0-9_.\-\x80-\xff]+|" + _LITERAL + rb")>")
"""RFC 6531 section 3.3, before the octets are known to be UTF-8 and the domain to be one."""
_UNSAFE = re.compile("[\x80-\x9f\u2028\u2029]")
"""What could end a line or steer a terminal, of what is not ASCII."""
_SOURCE_ROUTE = re.compile(rb"<(?:@" + _DOMAIN + rb")(?:,@" + _DOMAIN + rb")*:")
_DOMAIN_ONLY = re.compile(_DOMAIN)
_LABEL_ONLY = re.compile(_LABEL)
_PARAMETER = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~]+))?")
_UTF8_PARAMETER = re.compile(rb"(ORCPT)=(utf-8;[!-<>-~\x80-\xff]+)", re.IGNORECASE)
"""The one value that may be in UTF-8 (RFC 6533 section 3, utf-8-addr-unitext)."""
_HELO = re.compile(rb"[A-Za-z0-9_.:\-\[\]]{1,255}")

MAX_LOCAL_PART = 255
"""RFC 5321 section 4.5.3.1.1 says 64 and asks not to insist: return paths that encode a recipient (VERP) are longer."""
MAX_DOMAIN = 255
"""RFC 5321 section 4.5.3.1.2; of a domain in UTF-8, in its A-labels."""
MAX_LABEL = 63
"""RFC 1035 section 2.3.4."""


class SyntaxFault(ValueError):
    """The octets don't follow the grammar; the text says what was expected."""


def address_literal(text: str) -> str | None:
    """The IP address of a literal such as ``[192.0.2.1]`` or ``[IPv6:2001:db8::1]`` (RFC 5321 section 4.1.3), or None."""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    inner = text[1:-1]
    try:
        if inner[:5].lower() == "ipv6:":
            return str(ipaddress.IPv6Address(inner[5:]))
        return str(ipaddress.IPv4Address(inner))
    except ValueError:
        return None


def is_domain(text: str) -> bool:
    """Whether ``text`` is a domain name of letters, digits, hyphens and underscores (the last is not in RFC 5321, but in use)."""
    return len(text) <= MAX_DOMAIN and text.isascii() and _DOMAIN_ONLY.fullmatch(text.encode()) is not None


def helo_name(argument: bytes) -> str:
    """The name or literal that a client gives itself in HELO or EHLO, for the Received field (RFC 5321 section 4.1.1.1).

    Clients call themselves anything; what can't be quoted in a header safely is refused, everything else is taken.
    """
    name = argument.strip()
    if _HELO.fullmatch(name) is None:
        raise SyntaxFault("a domain name or address literal is expected")
    return name.decode("ascii")


def reverse_path(argument: bytes) -> tuple[str, Mapping[str, str | None]]:
    """The sender and the parameters of ``MAIL FROM:<sender> PARAMETERS`` behind the word MAIL (RFC 5321 section 4.1.1.2)."""
    rest = _after_keyword(argument, b"FROM:")
    if rest.startswith(b"<>"):
        return "", _parameters(rest[2:])
    return _path(rest)


def forward_path(argument: bytes, here: str | None = None) -> tuple[str, Mapping[str, str | None]]:
    """The recipient and the parameters of ``RCPT TO:<recipient> PARAMETERS`` behind the word RCPT (RFC 5321 section 4.1.1.3).

    With ``here``, ``<postmaster>`` alone is the one of that domain (section 4.5.1).
    """
    rest = _after_keyword(argument, b"TO:")
    if here is not None and rest[:12].lower() == b"<postmaster>":
        return f"postmaster@{here}", _parameters(rest[12:])
    return _path(rest)


def _after_keyword(argument: bytes, keyword: bytes) -> bytes:
    if argument[: len(keyword)].upper() != keyword:
        raise SyntaxFault(f"{keyword.decode()}<address> is expected")
    # A blank behind the colon is not in the grammar, but sent by old clients and taken by every server.
    return argument[len(keyword) :].lstrip(b" ")


def _path(octets: bytes) -> tuple[str, Mapping[str, str | None]]:
    route = _SOURCE_ROUTE.match(octets)
    if route is not None:
        # RFC 5321 appendix C: a source route is taken and ignored.
        octets = b"<" + octets[route.end() :]
    match = _PLAIN_PATH.match(octets) or _QUOTED_PATH.match(octets)
    if match is None:
        match = None if octets.isascii() else _UTF8_PATH.match(octets)
        if match is None:
            raise SyntaxFault("<local-part@domain> is expected")
    if len(match[1]) > MAX_LOCAL_PART:
        raise SyntaxFault(f"a local part of at most {MAX_LOCAL_PART} octets is expected")
    local, domain = _text(match[1]), _text(match[2]).removesuffix(".")
    if len(domain) > MAX_DOMAIN:
        raise SyntaxFault(f"a domain of at most {MAX_DOMAIN} characters is expected")
    if domain.startswith("[") and address_literal(domain) is None:
        raise SyntaxFault("an address literal like [192.0.2.1] or [IPv6:2001:db8::1] is expected")
    if match.re is _UTF8_PATH and not domain.startswith("["):
        _check_domain(domain)
    return f"{local}@{domain}", _parameters(octets[match.end() :])


def _text(octets: bytes) -> str:
    """ASCII, whose grammar has let no control character in, or UTF-8 without them (RFC 6532 section 3.1)."""
    if octets.isascii():
        return octets.decode("ascii")
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        raise SyntaxFault("an address in ASCII or UTF-8 is expected") from None
    if _UNSAFE.search(text):
        raise SyntaxFault("an address without control characters is expected")
    return text


def _check_domain(domain: str) -> None:
    """A domain whose labels are by RFC 5321 or, where they are not ASCII, by IDNA 2008 (RFC 6531 section 3.3), in any case and width."""
    labels = domain.split(".")
    # Bounded first: what is longer can't have an A-label, and making one takes more than linear time.
    if any(len(label) > MAX_LABEL for label in labels):
        raise SyntaxFault(f"labels of at most {MAX_LABEL} characters are expected")
    try:
        labels = [label if label.isascii() else idna.alabel(idna.uts46_remap(label, std3_rules=False)).decode("ascii") for label in labels]
    except idna.IDNAError:
        raise SyntaxFault("a domain by IDNA 2008 is expected") from None
    if not all(_LABEL_ONLY.fullmatch(label.encode()) for label in labels):
        raise SyntaxFault("a domain of letters, digits and hyphens, with dots between its labels, is expected")
    if len(".".join(labels)) > MAX_DOMAIN:
        raise SyntaxFault(f"a domain of at most {MAX_DOMAIN} characters is expected")


_NONE: Mapping[str, str | None] = {}


def _parameters(octets: bytes) -> Mapping[str, str | None]:
    """ESMTP parameters by upper-case keyword (RFC 5321 section 4.1.2, esmtp-param); a keyword given twice is a fault."""
    if not octets.strip(b" \t"):
        return _NONE
    if not octets.startswith(b" "):
        raise SyntaxFault("a blank is expected behind the address")
    parameters: dict[str, str | None] = {}
    for word in octets.split(b" "):
        if not word:
            continue
        match = _PARAMETER.fullmatch(word) or _UTF8_PARAMETER.fullmatch(word)
        if match is None:
            raise SyntaxFault("parameters like KEYWORD=value are expected behind the address")
        keyword = match[1].decode("ascii").upper()
        if keyword in parameters:
            raise SyntaxFault(f"{keyword} is expected once")
        parameters[keyword] = None if match[2] is None else _text(match[2])
    return parameters
