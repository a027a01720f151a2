"""Paths, names and literals of SMTP commands, and their parameters (lettermta.smtp.grammar, lettermta.smtp.parameters)."""

from __future__ import annotations

from collections.abc import Mapping

from fuzz.promises import clean, pumped, require, swift
from lettermta.message import Refused
from lettermta.smtp import grammar
from lettermta.smtp.parameters import mail_parameters, rcpt_parameters

TOKENS = (
    *(
        b'FROM: TO: <> < > @ , : . " \\ [ ] IPv6: a b.example =?+41 SIZE= BODY=8BITMIME NOTIFY=NEVER ORCPT=rfc822; ENVID= RET=HDRS '
        b"BY= HOLDFOR= HOLDUNTIL= MT-PRIORITY= SMTPUTF8 REQUIRETLS AUTH=<>".split()
    ),
    b" ",
    b"\t",
    b"\r",
    b"\n",
    b"\0",
    b"\xc3\xbc",
    b"\xff",
)

_LINE = 2048
"""What the caller bounds a line to."""


def one(data: bytes) -> None:
    """Read ``data`` as each thing that a command's argument may be, as it is and pumped."""
    for octets in pumped(data, _LINE):
        with swift("an argument"):
            _helo(octets)
            _path(octets, b"FROM:")
            _path(octets, b"TO:")
            _literal(octets)


def _helo(octets: bytes) -> None:
    try:
        clean(grammar.helo_name(octets), "a HELO name")
    except grammar.SyntaxFault as fault:
        clean(str(fault), "a fault")


def _path(octets: bytes, keyword: bytes) -> None:
    argument = octets if octets[: len(keyword)].upper() == keyword else keyword + octets
    parse = grammar.reverse_path if keyword == b"FROM:" else grammar.forward_path
    try:
        address, parameters = parse(argument)
    except grammar.SyntaxFault as fault:
        clean(str(fault), "a fault")
        return
    clean(address, "an address")
    if address:
        local, at, domain = address.rpartition("@")
        require(local and at and domain, "an address has two parts")
        require(not domain.endswith("."), "a domain has no dot at its end")
        again, none = parse(keyword + b"<" + address.encode() + b">")
        require(again == address and not none, "an address that was read reads as itself")
    else:
        require(keyword == b"FROM:", "a recipient is not empty")
    _parameters(parameters, keyword)


def _parameters(parameters: Mapping[str, str | None], keyword: bytes) -> None:
    for name, value in parameters.items():
        clean(f"{name}{value}", "a parameter")
        require(name == name.upper(), "keywords are in upper case")
    try:
        if keyword == b"FROM:":
            clean(mail_parameters(parameters, 1_800_000_000.0, secure=True).options.envid or "", "ENVID")
        else:
            clean(rcpt_parameters(parameters)[1] or "", "ORCPT")
    except grammar.SyntaxFault as fault:
        clean(str(fault), "a fault")
    except Refused as refused:
        clean(refused.reply.text, "a reply")


def _literal(octets: bytes) -> None:
    text = octets.decode("latin-1")
    address = grammar.address_literal(text)
    if address is not None:
        clean(address, "an address literal")
        require(text.startswith("[") and text.endswith("]"), "a literal has brackets")
    if grammar.is_domain(text):
        clean(text, "a domain")
        require(len(text) <= grammar.MAX_DOMAIN, "a domain is bounded")
