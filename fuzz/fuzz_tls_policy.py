"""What receivers publish about their TLS: MTA-STS policies and announcements, TLSA records, whom reports go to (lettermta.delivery.tls)."""

from __future__ import annotations

from fuzz.promises import clean, require, swift
from lettermta.delivery.tls.reporting import targets
from lettermta.delivery.tls.sts_policy import LONGEST_AGE, Mode, NotAPolicy, announced, parse
from lettermta.delivery.tls.tlsa import TLSA, usable

TOKENS = (
    *(b"version mode mx max_age enforce testing none STSv1 : 604800 example.com *. mail.".split()),
    *(b"v=STSv1; id= v=TLSRPTv1; rua= mailto: https:// , ; ? @ % %2C a@in.test".split()),
    b"\r\n",
    b"\n",
    b"\0",
    b"\xc3\xbc",
    b"\xff",
    b"version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 60\n",
    b"v=TLSRPTv1; rua=mailto:a@in.test",
    b"\x03\x01\x01",
    b"\x30\x82",
)


def one(data: bytes) -> None:
    """Read ``data`` as each of them."""
    with swift("policy"):
        _policy(data)
    text = data.decode("ascii", "replace")
    with swift("records"):
        identifier = announced([text])
        wanted = targets([text])
    if identifier is not None:
        require(identifier.isalnum() and len(identifier) <= 32, "an id is what an id may be")
    for address in wanted.addresses:
        clean(address, "an address for reports")
        require(address.count("@") == 1 and " " not in address, "an address is one")
    for url in wanted.urls:
        clean(url, "a URL for reports")
    if len(data) > 3:
        with swift("tlsa"):
            record = TLSA(data[0] % 4, data[1] % 3, data[2] % 4, data[3:])
            require(usable([record]) in ((), (record,)), "a record can be used or not")


def _policy(data: bytes) -> None:
    try:
        policy = parse(data)
    except NotAPolicy as error:
        require(len(str(error)) < 400, "a fault is told in few words")
        return
    require(policy.mode is Mode.NONE or bool(policy.mx), "a policy in force names hosts")
    require(0 <= policy.max_age <= LONGEST_AGE, "an age is bounded")
    require(parse("\n".join(policy.lines).encode()) == policy, "what is kept reads as what was fetched")
    for host in policy.mx:
        clean(host, "a host")
        require(not host.startswith("*.") or policy.names(f"a{host[1:]}"), "a star is one label")
