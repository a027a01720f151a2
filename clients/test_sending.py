"""Every client of ``docs/clients.md``, by the page's own code: what it sends arrives whole, and its tag and metadata are told."""

# ruff: noqa: D103 - a test's name says what it promises

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from clients.document import IMPLICIT_TLS, Section, sections, texts
from clients.running import CLIENTS
from clients.site import INVOICE, ClientSite, Delivery

SECTIONS = sections()
EVERY = pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
CHOICES = [(section, mechanism) for section in SECTIONS.values() for mechanism in section.mechanisms]

SUBJECT = "Grüße aus Köln: Ihre Bestellung 4711 wurde heute verschickt und ist bald bei Ihnen"
TEXT = "Hallo Jörg, Ihre Bestellung ist unterwegs."
HTML = "<p>Hallo Jörg, Ihre Bestellung ist <b>unterwegs</b>.</p>"
SELLER = "Zoë Müller"
LONG = "Zoë Müller (Filiale Köln-Nippes, Kasse 3), vertreten durch Łukasz Dvořák-Øvergård und Ångström & Söhne GmbH"
CONTROL = re.compile(r"X-LM-|X-Tag$|X-Metadata-|X-Lettermint-|X-Lettr-|Idempotency-Key$|Bcc$|Return-Path$", re.I)


def send(site: ClientSite, section: Section, purposes: Sequence[str], port: int, seller: str = SELLER) -> Delivery:
    """Send as the page says, and check all that has to be the same for every client; returns the rest."""
    recipient, ran = site.send(section, purposes, port, authority=site.authority, **({SELLER: seller} if seller != SELLER else {}))
    assert ran.status == 0, ran.said
    delivery = site.delivered(recipient)
    assert delivery.envelope["sender"] == "shop@example.com"
    assert "SMTPUTF8" not in delivery.envelope["parameters"], "nothing in the message needs it, so no receiver may have to refuse it"
    order, sold_by = section.keys
    assert [event["event"] for event in delivery.events] == ["message.created", "message.sent", "message.delivered"]
    for event in delivery.events:
        assert event["data"]["tag"] == "order-confirmation"
        assert event["data"]["metadata"] == {order: "4711", sold_by: seller}
        assert event["data"]["subject"] == SUBJECT
    assert_whole(delivery)
    return delivery


def assert_whole(delivery: Delivery) -> None:
    """What was written is what arrived, as Python's email package reads it."""
    message = delivery.message
    assert not [name for name in message.keys() if CONTROL.match(name)]  # noqa: SIM118 - a message isn't a mapping
    assert message.defects == []
    # Django folds before the first word; Python's parser keeps the blank of that fold, which mail readers don't.
    assert message["Subject"].lstrip() == SUBJECT
    assert [(address.display_name, address.addr_spec) for address in message["From"].addresses] == [("Shop", "shop@example.com")]
    # Go declares SMTPUTF8 unasked, which RFC 6531 section 4.3 gives a keyword of its own.
    assert re.search(r"with (ESMTPSA|UTF8SMTPSA) \(TLSv1\.3 ", message["Received"]), message["Received"]
    leaves = [part for part in message.walk() if not part.is_multipart()]
    assert sorted(part.get_content_type() for part in leaves) == ["application/pdf", "text/html", "text/plain"]
    for part in leaves:
        assert part.defects == []
    alternatives = [part for part in message.walk() if part.get_content_type() == "multipart/alternative"]
    assert [part.get_content_type() for part in alternatives[0].iter_parts()][:2] == ["text/plain", "text/html"]
    plain, html = (message.get_body((kind,)) for kind in ("plain", "html"))
    assert plain is not None
    assert html is not None
    assert (plain.get_content().strip(), html.get_content().strip()) == (TEXT, HTML)
    [attachment] = message.iter_attachments()
    assert attachment.get_filename() == "invoice.pdf"
    assert attachment.get_content() == INVOICE


def test_the_page_has_every_client() -> None:
    assert set(SECTIONS) == set(CLIENTS)
    assert set(texts()) - set(CLIENTS) == {"Laravel", "WordPress", "Rails", "Supabase Auth"}
    assert all("Not run here" in texts()[title] for title in set(texts()) - set(CLIENTS))


@pytest.mark.parametrize(
    ("title", "client", "setting"),
    [("WordPress", "PHPMailer", r"^ +(\$mail->(?!AltBody).*;)$"), ("Rails", "Ruby's mail", r"^ +((?:address|user_name): .*)$")],
    ids=["WordPress", "Rails"],
)
def test_what_is_not_run_has_the_settings_of_what_is(title: str, client: str, setting: str) -> None:
    settings = [match.replace("PHPMailer\\PHPMailer\\", "") for match in re.findall(setting, texts()[title], re.M)]
    assert settings
    for line in settings:
        assert line in texts()[client]


@EVERY
def test_over_starttls(site: ClientSite, section: Section) -> None:
    assert send(site, section, (), site.starttls).login == section.default


@EVERY
def test_over_implicit_tls(site: ClientSite, section: Section) -> None:
    assert send(site, section, (IMPLICIT_TLS,), site.implicit).login == section.default


@EVERY
def test_starttls_on_the_port_that_takes_both(site: ClientSite, section: Section) -> None:
    send(site, section, (), site.either)


@EVERY
def test_implicit_tls_on_the_port_that_takes_both(site: ClientSite, section: Section) -> None:
    send(site, section, (IMPLICIT_TLS,), site.either)


@pytest.mark.parametrize(("section", "mechanism"), CHOICES, ids=[f"{section.title}-{mechanism}" for section, mechanism in CHOICES])
def test_the_mechanism_can_be_chosen(site: ClientSite, section: Section, mechanism: str) -> None:
    assert send(site, section, (f"AUTH {mechanism}",), site.starttls).login == mechanism


@EVERY
def test_long_metadata_comes_through(site: ClientSite, section: Section) -> None:
    """However the client folds and encodes it; where the page encodes by hand, there is nothing of the client's to be tested."""
    if not any(SELLER in text for text in section.files.values()):
        assert section.title == "msmtp"
        return
    send(site, section, (), site.starttls, seller=LONG)
