"""The parameters of MAIL and RCPT, each by the RFC of its extension (RFC 5321 section 4.1.1.11).

What is not announced is refused with 555, what is malformed with 501; numbers and lengths are bounded before they are converted.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping

from attrs import define, evolve

from lettermta.message import BodyType, DeliverBy, Notify, Options, Refused, Reply
from lettermta.smtp.grammar import SyntaxFault

MAX_HOLD = 30 * 86_400
"""Seconds that a message may be held (RFC 4865 section 4, max-future-release-interval)."""
MAX_ENVID = 100
"""Characters of ENVID (RFC 3461 section 4.4)."""
MAX_ORCPT = 500
"""Characters of ORCPT (RFC 3461 section 4.2)."""

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_XCHAR = re.compile(r"\+([0-9A-F]{2})")
_ORCPT = re.compile(r"([A-Za-z0-9-]{1,64});(.+)")
_UTF8_ADDRESS = "utf-8"
"""The address type of RFC 6533 section 3."""
_BY = re.compile(r"(-?\d{1,9});([RN])(T?)")
_PRIORITY = re.compile(r"-?\d")


@define
class MailParameters:
    """What MAIL's parameters ask for: ``options`` for as long as the message is here, the rest for when it comes in."""

    options: Options = Options()  # noqa: RUF009 - frozen
    size: int | None = None
    hold_until: float | None = None
    """Wall-clock seconds until which the message is held (RFC 4865)."""


def mail_parameters(parameters: Mapping[str, str | None], now: float, *, secure: bool) -> MailParameters:
    """Read MAIL's parameters at the wall-clock time ``now``; ``secure``: whether the channel is encrypted (REQUIRETLS wants it)."""
    read = MailParameters()
    for keyword, value in parameters.items():
        reader = _MAIL.get(keyword)
        if reader is None or (keyword == "REQUIRETLS" and not secure):
            raise Refused(Reply(555, "5.5.4", f"Parameter {keyword} is not supported"))
        reader(read, value, now)
    if "HOLDFOR" in parameters and "HOLDUNTIL" in parameters:
        raise SyntaxFault("one of HOLDFOR and HOLDUNTIL is expected")
    return read


def rcpt_parameters(parameters: Mapping[str, str | None]) -> tuple[frozenset[Notify] | None, str | None]:
    """Read RCPT's parameters: NOTIFY and ORCPT."""
    notify: frozenset[Notify] | None = None
    orcpt: str | None = None
    for keyword, value in parameters.items():
        if keyword == "NOTIFY":
            notify = _notify(value)
        elif keyword == "ORCPT":
            orcpt = _orcpt(value)
        else:
            raise Refused(Reply(555, "5.5.4", f"Parameter {keyword} is not supported"))
    return notify, orcpt


def _size(read: MailParameters, value: str | None, now: float) -> None:
    """RFC 1870 section 3: up to 20 digits."""
    if value is None or not value.isdecimal() or len(value) > 20:
        raise SyntaxFault("SIZE=octets is expected")
    read.size = int(value)


def _body(read: MailParameters, value: str | None, now: float) -> None:
    """RFC 6152 section 2, RFC 3030 section 3."""
    try:
        read.options = evolve(read.options, body=BodyType((value or "").upper()))
    except ValueError:
        raise SyntaxFault("BODY=7BIT, BODY=8BITMIME or BODY=BINARYMIME is expected") from None


def _smtputf8(read: MailParameters, value: str | None, now: float) -> None:
    """RFC 6531 section 3.4."""
    if value is not None:
        raise SyntaxFault("SMTPUTF8 has no value")
    read.options = evolve(read.options, smtputf8=True)


def _ret(read: MailParameters, value: str | None, now: float) -> None:
    """RFC 3461 section 4.3."""
    ret = (value or "").upper()
    if ret not in ("FULL", "HDRS"):
        raise SyntaxFault("RET=FULL or RET=HDRS is expected")
    read.options = evolve(read.options, ret=ret)


def _envid(read: MailParameters, value: str | None, now: float) -> None:
    """RFC 3461 section 4.4."""
    read.options = evolve(read.options, envid=xtext(value or "", MAX_ENVID, "ENVID"))


def _auth(read: MailParameters, value: str | None, now: float) -> None:
    """RFC 4954 section 5: taken and not used, since only the login tells us who sends."""
    if not value:
        raise SyntaxFault("AUTH=mailbox or AUTH=<> is expected")


def _require_tls(read: MailParameters, value: str | None, now: float) -> None:
    """RFC 8689 section 2."""
    if value is not None:
        raise SyntaxFault("REQUIRETLS has no value")
    read.options = evolve(read.options, require_tls=True)


def _hold_for(read: MailParameters, value: str | None, now: float) -> None:
    """RFC 4865 section 4."""
    if value is None or not value.isdecimal() or len(value) > 9:
        raise SyntaxFault("HOLDFOR=seconds is expected")
    _hold(read, now + int(value), now)


def _hold_until(read: MailParameters, value: str | None, now: float) -> None:
    """RFC 4865 section 4: an Internet date-time (RFC 3339)."""
    try:
        moment = datetime.datetime.fromisoformat(value or "")
        if moment.tzinfo is None:
            raise ValueError
        until = moment.timestamp()
    except (ValueError, OverflowError):
        raise SyntaxFault("HOLDUNTIL=date-time is expected, like 2026-12-24T18:00:00Z") from None
    _hold(read, until, now)


def _hold(read: MailParameters, until: float, now: float) -> None:
    if until > now + MAX_HOLD:
        raise Refused(Reply(501, "5.5.4", f"A message can be held for {MAX_HOLD} seconds at the most"))
    read.hold_until = until


def _by(read: MailParameters, value: str | None, now: float) -> None:
    """RFC 2852 section 4: a deadline that has passed already is refused in mode R."""
    match = _BY.fullmatch((value or "").upper())
    if match is None:
        raise SyntaxFault("BY=seconds;R or BY=seconds;N is expected")
    seconds, bounce = int(match[1]), match[2] == "R"
    if bounce and seconds <= 0:
        raise SyntaxFault("BY with R wants a time to come")
    read.options = evolve(read.options, deliver_by=DeliverBy(now + seconds, bounce, bool(match[3])))


def _priority(read: MailParameters, value: str | None, now: float) -> None:
    """RFC 6710 section 4."""
    if value is None or _PRIORITY.fullmatch(value) is None:
        raise SyntaxFault("MT-PRIORITY from -9 to 9 is expected")
    read.options = evolve(read.options, priority=int(value))


def _notify(value: str | None) -> frozenset[Notify]:
    """RFC 3461 section 4.1: NEVER alone, or any of the others."""
    try:
        notify = frozenset(Notify(word) for word in (value or "").upper().split(","))
    except ValueError:
        raise SyntaxFault("NOTIFY=NEVER or a list of SUCCESS,FAILURE,DELAY is expected") from None
    if Notify.NEVER in notify and len(notify) > 1:
        raise SyntaxFault("NOTIFY=NEVER stands alone")
    return notify


def _orcpt(value: str | None) -> str:
    """RFC 3461 section 4.2; an address of the type utf-8 may come as UTF-8 instead of in xtext (RFC 6533 section 3)."""
    match = _ORCPT.fullmatch(value or "")
    if match is None:
        raise SyntaxFault("ORCPT=type;address is expected, like rfc822;user@example.com")
    kind, address = match[1].lower(), match[2]
    if kind == _UTF8_ADDRESS and not address.isascii():
        if len(address) > MAX_ORCPT or not address.isprintable():
            raise SyntaxFault(f"ORCPT of at most {MAX_ORCPT} printable characters is expected")
        return f"{kind};{address}"
    return f"{kind};{xtext(address, MAX_ORCPT, 'ORCPT')}"


def xtext(value: str, most: int, keyword: str) -> str:
    """Decode xtext (RFC 3461 section 4): ``+`` and two hexadecimal digits for an octet; what decodes to a control character is refused."""
    if not value or len(value) > most or _XTEXT.fullmatch(value) is None:
        raise SyntaxFault(f"{keyword} in xtext of 1 to {most} characters is expected")
    text = _XCHAR.sub(lambda match: chr(int(match[1], 16)), value)
    if not all(" " <= character <= "~" for character in text):
        raise SyntaxFault(f"{keyword} of printable ASCII is expected")
    return text


_MAIL: Mapping[str, Callable[[MailParameters, str | None, float], None]] = {
    "SIZE": _size,
    "BODY": _body,
    "SMTPUTF8": _smtputf8,
    "AUTH": _auth,
    "RET": _ret,
    "ENVID": _envid,
    "REQUIRETLS": _require_tls,
    "HOLDFOR": _hold_for,
    "HOLDUNTIL": _hold_until,
    "BY": _by,
    "MT-PRIORITY": _priority,
}
