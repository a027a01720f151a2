"""Which mail gets a link as it leaves, and that nobody gets somebody else's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, succeed

from lettermta.accounts.model import ReturnPathUse
from lettermta.delivery.dkim import signer
from lettermta.delivery.dkim.canonical import body_hash
from lettermta.delivery.dkim.signer import Signer
from lettermta.delivery.finishing import Finisher
from lettermta.delivery.leaving import WholeContent
from lettermta.delivery.unsubscribe.links import Links
from lettermta.delivery.unsubscribe.token import read
from lettermta.interfaces import IStoredContent
from lettermta.message import BodyType, Options, QueueEntry
from lettermta.wiring import in_turn
from tests.delivery.dkim.test_signer import Pieces
from tests.delivery.dkim.test_signer import read as octets_of
from tests.delivery.test_finishing import threaded
from tests.delivery.test_return_path import NOW, Site
from tests.test_counts import grown

URL = "https://news.shop.test/unsubscribe"
MESSAGE = b"From: News <news@shop.test>\r\nSubject: hi\r\n\r\nHello.\r\n"
WANTED = Options(unsubscribe=True)


class Place:
    """Accounts with the domain shop.test, and what finishes its mail."""

    def __init__(self, state_dir: Path, url: str = URL) -> None:
        self.site = Site(state_dir)
        self.links = Links(self.site.directory, url)
        self.finisher = Finisher(Signer(self.site.directory, threaded, threaded, lambda: NOW), threaded, self.links)

    def entry(self, *recipients: str, options: Options = WANTED, tag: str | None = "november") -> QueueEntry:
        context = orjson.dumps({"project_id": self.site.project.id})
        entry = self.site.entry(*recipients, sender="news@shop.test", options=options)
        return evolve(entry, facts=orjson.dumps({"message_id": entry.id, "tag": tag}), context=context)

    def left(self, entry: QueueEntry, content: IStoredContent, *, eight_bit: bool = True) -> bytes:
        """What a peer gets."""
        made: list[Any] = []
        ready = self.finisher.finish(entry, content, eight_bit=eight_bit, binary=False)
        (ready if isinstance(ready, Deferred) else succeed(ready)).addCallback(made.append)
        return octets_of(made[0][1])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.site.directory.close()
    place.site.store.close()


def link_of(content: bytes) -> str:
    (link,) = re.findall(rb"^List-Unsubscribe: <(.*)>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nFrom:", content, re.MULTILINE)
    return str(link.decode())


def test_a_link_says_whose_mail_to_whom_it_is(place: Place) -> None:
    entry = place.entry("jane@example.com")
    link = link_of(place.left(entry, WholeContent(MESSAGE)))
    assert link.startswith(URL + "/")
    meant = read(link.removeprefix(URL + "/"), place.site.directory.unsubscribe_key)
    assert (meant.message_id, meant.project_id) == (entry.id, place.site.project.id)
    assert (meant.address, meant.tag) == ("jane@example.com", "november")


@pytest.mark.parametrize("eight_bit", [True, False])
@pytest.mark.parametrize("content", [WholeContent(MESSAGE), Pieces(MESSAGE[:20], MESSAGE[20:])])
def test_the_copies_of_one_message_have_links_of_their_own_and_signatures_to_match(
    place: Place, content: IStoredContent, eight_bit: bool
) -> None:
    """What was signed for one is known for a while, and must not go out with another one's link."""
    parts = place.links.parted(place.entry("jane@example.com", "joe@example.com"))
    assert [[one.address for one in part.recipients] for part in parts] == [["jane@example.com"], ["joe@example.com"]]
    jane, joe = (place.left(part, content, eight_bit=eight_bit) for part in parts)
    assert link_of(jane) != link_of(joe)
    assert jane.startswith(b"DKIM-Signature:")
    assert jane.partition(b"List-Unsubscribe:")[0] != joe.partition(b"List-Unsubscribe:")[0]
    assert link_of(place.left(parts[0], content, eight_bit=eight_bit)) == link_of(jane), "at the next attempt, too"


def test_the_body_of_all_copies_is_hashed_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[bytes] = []
    monkeypatch.setattr(signer, "body_hash", lambda body: hashed.append(body) or body_hash(body))
    parts = place.links.parted(place.entry("jane@example.com", "joe@example.com", "ann@example.com"))
    with grown() as growth:
        for part in parts:
            place.left(part, WholeContent(MESSAGE))
    assert hashed == [b"Hello.\r\n"]
    assert growth["lettermta_dkim_messages_total result=signed"] == 3
    in_pieces = Pieces(MESSAGE[:20], MESSAGE[20:])
    for part in place.links.parted(place.entry("jane@example.com", "joe@example.com", "ann@example.com")):
        place.left(part, in_pieces)
    assert in_pieces.finished == 4, "one that hashes, and three that send"


def test_eight_bit_mail_is_converted_with_its_link(place: Place) -> None:
    text = MESSAGE.replace(b"\r\n\r\nHello", b"\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGr\xc3\xbc\xc3\x9fe")
    left = place.left(place.entry("jane@example.com", options=evolve(WANTED, body=BodyType.EIGHT_BIT)), WholeContent(text), eight_bit=False)
    assert left.isascii()
    assert link_of(left)


def test_other_mail_leaves_as_it_is(place: Place) -> None:
    entry = place.entry("jane@example.com", "joe@example.com", options=Options())
    assert list(place.links.parted(entry)) == [entry]
    assert place.left(entry, WholeContent(MESSAGE)).endswith(b"\r\n" + MESSAGE)


def test_each_copy_has_a_return_path_too_where_the_domain_has_one(place: Place) -> None:
    place.site.use(ReturnPathUse.ON)
    parted = in_turn(place.links.parted, place.site.paths.parted)
    parts = parted(place.entry("jane@example.com", "joe@example.com"))
    assert [len(part.recipients) for part in parts] == [1, 1]
    paths = [part.return_path for part in parts]
    assert None not in paths
    assert len(set(paths)) == 2


def test_no_line_gets_too_long_of_a_tag(tmp_path: Path) -> None:
    """RFC 5322 section 2.1.1: the longest URL, tag and address that there can be."""
    place = Place(tmp_path, "https://news.shop.test/".ljust(400, "x"))
    address = "j" * 64 + "@" + "e" * 250 + ".com"
    content = place.left(place.entry(address, tag="t" * 255), WholeContent(MESSAGE))
    assert max(map(len, content.split(b"\r\n"))) <= 998
    meant = read(link_of(content).rpartition("/")[2], place.site.directory.unsubscribe_key)
    assert (meant.address, meant.tag) == (address, None)
    place.site.directory.close()
    place.site.store.close()
