"""What a submission server owes a message before it lets it out (RFC 6409 section 8, RFC 5322 section 3.6).

Date and Message-ID are added where they are missing; a header that is broken in a way that receivers punish is refused, with the rule.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from attrs import frozen

from lettermta.accounts.errors import InvalidAccount
from lettermta.accounts.model import ReceivedField
from lettermta.accounts.rules import domain_name
from lettermta.header import Field, mailboxes
from lettermta.message import Refused, Reply
from lettermta.submission.trace import date

LONGEST_LINE = 998
"""Octets of a line without its CRLF (RFC 5322 section 2.1.1)."""


@frozen
class HeaderRules:
    """What is asked of header blocks. ``eight_bit``: octets above 127 are taken without SMTPUTF8, as clients do send them.
    ``received``: the field that is added for routes which say nothing of their own.
    """

    message_id_domain: str = "localhost"
    eight_bit: bool = True
    most_fields: int = 1000
    received: ReceivedField = ReceivedField.FULL


def check_block(head: bytes, fields: Sequence[Field], kept: Sequence[Field], rules: HeaderRules, *, smtputf8: bool) -> None:
    """Refuse a header block that is broken as a whole. What does not leave, as it is not ``kept``, may have lines of any length: some
    clients don't fold a long value of metadata.
    """
    if len(fields) > rules.most_fields:
        raise _refused(f"More than {rules.most_fields} header fields")
    if any(len(line) > LONGEST_LINE for field in kept if len(field.raw) > LONGEST_LINE for line in field.raw.split(b"\r\n")):
        raise _refused(f"A header line of more than {LONGEST_LINE} octets (RFC 5322 section 2.1.1)")
    if not rules.eight_bit and not smtputf8 and not head.isascii():
        raise Refused(Reply(550, "5.6.7", "Octets above 127 in the header need SMTPUTF8 (RFC 6531)"), "8-bit header", "header")


def check_from(fields: Sequence[Field]) -> Sequence[str]:
    """The addresses of the one From field that a message has (RFC 5322 section 3.6.2)."""
    found = [field for field in fields if field.key == "from"]
    if len(found) != 1:
        raise _refused("A message has one From field" + (", this one has several" if found else ""))
    addresses = [address for _, address in mailboxes([found[0].unfolded])]
    if not addresses:
        raise _refused("From has no address")
    return addresses


def check_sender(sender: str, authors: Sequence[str], domains: Collection[str]) -> None:
    """Refuse mail whose sender or author is of none of the project's domains; the null sender has none to be checked."""
    for address in [sender, *authors] if sender else authors:
        domain = address.rpartition("@")[2]
        try:
            known = domain_name(domain) in domains
        except InvalidAccount:
            known = False
        if not known:
            raise Refused(Reply(550, "5.7.1", "The sender's domain is none of the project's domains"), "foreign sender domain", "sender")


def missing_fields(fields: Sequence[Field], identifier: str, moment: float, rules: HeaderRules) -> bytes:
    """Date and Message-ID, as far as they are not there."""
    keys = {field.key for field in fields}
    added = "" if "date" in keys else f"Date: {date(int(moment))}\r\n"
    if "message-id" not in keys:
        added += f"Message-ID: <{identifier}@{rules.message_id_domain}>\r\n"
    return added.encode()


def _refused(rule: str) -> Refused:
    return Refused(Reply(550, "5.6.0", rule), "broken header", "header")
