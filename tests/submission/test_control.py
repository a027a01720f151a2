"""Control headers: what they mean, what refuses a message, and that none of them leaves (COMPATIBILITY.md section 1)."""

from __future__ import annotations

import pytest

from tests.submission.conftest import HEAD, Site, leaving

BODY = "\nhello\n"


def test_route_tag_and_metadata_reach_the_event_and_the_spool(site: Site) -> None:
    site.accounts.create_route("demo", "newsletter")
    stored = site.accepted(
        "X-Lettermint-Route: newsletter\nX-LM-Tag: test-email\nX-LM-Metadata-source: swaks-test\nX-Metadata-Order_Id: 1234\n" + HEAD + BODY
    )
    assert stored.message.route == "newsletter"
    assert (stored.message.tag, dict(stored.message.metadata)) == ("test-email", {"source": "swaks-test", "Order_Id": "1234"})
    assert site.data["tag"] == "test-email"
    assert site.data["metadata"] == {"source": "swaks-test", "Order_Id": "1234"}
    assert site.events[-1].context["route"] == "newsletter"


def test_without_control_headers_the_default_route_is_taken(site: Site) -> None:
    stored = site.accepted(HEAD + BODY)
    assert (stored.message.route, stored.message.tag, dict(stored.message.metadata)) == ("outgoing", None, {})
    assert (site.data["tag"], site.data["metadata"], site.data["tags"]) == (None, {}, [])
    site.accounts.create_route("demo", "other", default=True)
    assert site.accepted(HEAD + BODY).message.route == "other"


@pytest.mark.parametrize("slug", ["unknown", "Outgoing", "foreign", ""])
def test_an_unknown_route_refuses_the_message(site: Site, slug: str) -> None:
    site.accounts.create_project("other")
    site.accounts.create_route("other", "foreign")
    reply = site.submit(f"X-Lettermint-Route: {slug}\n" + HEAD + BODY)
    assert reply == "550 5.7.1 X-Lettermint-Route: the project has no such route"
    assert (site.stored, site.events) == ([], [])


def tag_of(site: Site, head: str) -> str | None:
    return site.accepted(head + HEAD + BODY).message.tag


def metadata_of(site: Site, head: str) -> dict[str, str]:
    return dict(site.accepted(head + HEAD + BODY).message.metadata)


@pytest.mark.parametrize(
    ("head", "tag"),
    [
        ("X-Tag: orders\n", "orders"),
        ("X-LM-Tag: orders\n", "orders"),
        ("x-tag:orders\n", "orders"),
        ("X-TAG : orders \n", "orders"),
        ("X-Lm-Tag: a\nX-Tag: b\n", "a"),
        ("X-Tag: b\nX-LM-Tag: a\nX-Tag: c\n", "a"),
        ("X-Tag: a\nX-Tag: b\nX-Tag: c\n", "c"),
        ("X-LM-Tag: a\nX-LM-Tag: b\n", "b"),
        ("X-Tag:\n orders\n", "orders"),
        ("X-Tag: two\n\twords\n", "two\twords"),
        ("X-Tag: two words_and-more 3\n", "two words_and-more 3"),
        ("X-Tag: =?utf-8?Q?two_words?=\n", "two words"),
        ("X-Tag: =?utf-8?B?b3JkZXJz?=\n", "orders"),
        ("X-Tag: =?utf-8?Q?or?=\n =?utf-8?Q?ders?=\n", "orders"),
        ("X-Tag: " + "t" * 255 + "\n", "t" * 255),
    ],
)
def test_how_tags_are_read(site: Site, head: str, tag: str) -> None:
    assert tag_of(site, head) == tag


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "two  words",
        "a,b",
        "a.b",
        "müsli",
        "=?utf-8?Q?m=C3=BCsli?=",
        "=?utf-8?Q?a=0A?=",
        "=?utf-8?Q?a=0Ab?=",
        "=?utf-8?Q?a=0Db?=",
        "=?utf-8?Q?a=0Cb?=",
        "=?utf-8?Q?a=00b?=",
        "=?unknown?Q?a?=",
        "a\n  b",
        "<b>",
        "a=b",
        "t" * 256,
    ],
)
@pytest.mark.parametrize("name", ["X-Tag", "X-LM-Tag"])
def test_a_bad_tag_refuses_the_message_naming_header_and_rule(site: Site, name: str, value: str) -> None:
    reply = site.submit(f"{name}: {value}\n" + HEAD + BODY)
    assert reply.startswith(f"550 5.6.0 {name}: a tag ")
    assert (site.stored, site.events) == ([], [])
    assert len(reply) < 200


def test_a_bad_tag_that_does_not_count_does_no_harm(site: Site) -> None:
    assert tag_of(site, "X-Tag: bad,\nX-Tag: good\n") == "good"
    assert tag_of(site, "X-Tag: bad,\nX-LM-Tag: good\n") == "good"


@pytest.mark.parametrize(
    ("head", "metadata"),
    [
        ("X-Metadata-k: v\n", {"k": "v"}),
        ("X-LM-Metadata-k: v\n", {"k": "v"}),
        ("x-metadata-userId: v\n", {"userId": "v"}),
        ("X-METADATA-UserId: v\nX-Metadata-userid: w\n", {"UserId": "v", "userid": "w"}),
        ("X-LM-Metadata-k: lm\nX-Metadata-k: plain\nX-Metadata-other: o\n", {"k": "lm", "other": "o"}),
        ("X-Metadata-k: plain\nX-LM-Metadata-k: lm\n", {"k": "lm"}),
        ("X-Metadata-k: 1\nX-Metadata-k: 2\n", {"k": "2"}),
        ("X-Metadata-k:\n", {"k": ""}),
        ("X-Metadata-k: a: b; =c\n", {"k": "a: b; =c"}),
        ("X-Metadata-k:\n  folded\n  twice\n", {"k": "folded  twice"}),
        ("X-Metadata-k: =?utf-8?Q?m=C3=BCsli?= and more\n", {"k": "müsli and more"}),
        ("X-Metadata-k: müsli\n", {"k": "müsli"}),
        ("X-Metadata-k: =?utf-8?Q?two=0Alines?=\n", {"k": "two\nlines"}),
        ("X-Metadata-k : blank before the colon\n", {"k": "blank before the colon"}),
        ("X-Metadata-a b: a blank in the key\n", {"a b": "a blank in the key"}),
        ("X-Metadata-ümlaut: v\n", {"ümlaut": "v"}),
        ("X-Metadata-k-l_m.n: v\n", {"k-l_m.n": "v"}),
        ("X-Metadata-" + "k" * 255 + ": " + "v" * 1000 + "\n", {"k" * 255: "v" * 1000}),
        ("".join([f"X-Metadata-k{n}: v\n" for n in range(50)]), {f"k{n}": "v" for n in range(50)}),
        ("".join([f"X-Metadata-k: {n}\n" for n in range(60)]), {"k": "59"}),
    ],
)
def test_how_metadata_is_read(site: Site, head: str, metadata: dict[str, str]) -> None:
    assert metadata_of(site, head) == metadata
    assert site.data["metadata"] == metadata


def test_invalid_utf_8_in_metadata_is_shown_as_such(site: Site) -> None:
    stored = site.accepted(b"From: a@out.test\r\nX-Metadata-k: m\xfcsli\r\n\r\nx\r\n")
    assert dict(stored.message.metadata) == {"k": "m\ufffdsli"}


@pytest.mark.parametrize(
    ("head", "reply"),
    [
        ("X-Metadata-: v\n", "X-Metadata-: a metadata header has its key"),
        ("X-LM-Metadata- : v\n", "X-LM-Metadata-: a metadata header has its key"),
        ("X-Metadata-" + "k" * 256 + ": v\n", "X-Metadata-" + "k" * 53 + ": a metadata key has at most 255 characters"),
        ("X-Metadata-k: " + "v" * 1001 + "\n", "X-Metadata-k: a metadata value has at most 1000 characters"),
        ("".join([f"X-Metadata-k{n}: v\n" for n in range(51)]), "X-Metadata-k50: a message has at most 50 metadata keys"),
        (
            "".join([f"X-Metadata-k{n}: {'v' * 1000}\n" for n in range(17)]),
            "X-Metadata-k16: the metadata of a message has at most 16384 octets",
        ),
        (
            "".join([f"X-Metadata-k{n}: {'ü' * 1000}\n" for n in range(9)]),
            "X-Metadata-k8: the metadata of a message has at most 16384 octets",
        ),
        ("X-Metadata-" + "ü" * 256 + ": v\n", "X-Metadata-" + "?" * 53 + ": a metadata key"),
        ("X-Metadata-k: =?utf-8?Q?a=00b?=\n", "X-Metadata-k: metadata has no NUL in it"),
    ],
)
def test_metadata_over_its_bounds_refuses_the_message(site: Site, head: str, reply: str) -> None:
    assert site.submit(head + HEAD + BODY).startswith("550 5.6.0 " + reply)
    assert (site.stored, site.events) == ([], [])


@pytest.mark.parametrize("line", [b"X-A: b\nX-LM-Tag: hidden\r\n", b"X-A: b\rBcc: hidden@in.test\r\n"])
def test_no_control_header_is_hidden_behind_a_bare_line_end(site: Site, line: bytes) -> None:
    """HARD-CASES rows 1 and 32: BODY=BINARYMIME lets any octets come, but a header is lines all the same (RFC 3030 section 3)."""
    client = site.logged_in()
    client.says("MAIL FROM:<a@out.test> BODY=BINARYMIME", "RCPT TO:<b@in.test>")
    content = b"From: a@out.test\r\n" + line + b"\r\nhello\r\n"
    [reply] = client.sends(b"BDAT %d LAST\r\n" % len(content) + content)
    assert reply == "550 5.6.0 A bare CR or LF in the header block (RFC 5322 section 2.2)"
    assert (site.stored, site.events) == ([], [])


@pytest.mark.parametrize("name", ["X-Metadata-a\x1b[2Jb", "X-Metadata-a\tb", "X-Metadata-\x7f"])
def test_a_reply_quotes_nothing_that_could_do_harm(site: Site, name: str) -> None:
    reply = site.submit(f"{name}: {'v' * 1001}\n" + HEAD + BODY)
    assert reply.startswith("550 5.6.0 X-Metadata-")
    assert reply.isprintable()


def test_metadata_without_a_colon_is_no_header(site: Site) -> None:
    assert site.submit("Subject: x\nX-Metadata-k\n" + BODY).startswith("550 5.6.0 Header line 2 is not of the form Name: value")


CONTROL = [
    "X-Lettermint-Route: outgoing",
    "x-lettermint-ROUTE:\n outgoing",
    "X-LM-Tag: a",
    "X-Lm-Preserve-Message-Id: true",
    "X-LM-Anything-New: x\n\tfolded\n folded again",
    "X-LM-Metadata-k: v",
    "X-Tag: a",
    "X-TAG :\n a",
    "X-Metadata-k: =?utf-8?Q?a?=\n =?utf-8?Q?b?=",
    "X-METADATA-Other: v",
    "X-Metadata-a b: v",
    "X-Lettr-Anything: v",
    "Idempotency-Key: 123",
    "Bcc: secret@in.test,\n other-secret@in.test",
    "BCC : secret@in.test",
    "Return-Path: <a@out.test>",
]


@pytest.mark.parametrize("control", CONTROL)
def test_control_headers_never_leave_and_nothing_else_is_touched(site: Site, control: str) -> None:
    """HARD-CASES row 32."""
    before, after = (
        "From: a@out.test\nSubject: =?utf-8?q?x?=\n  folded\t\nX-Tagged: stays\nx-odd:no blank  \n",
        "X-LMTag: stays\nTo: b@in.test\nBcc-Not: stays\nX-Metadata: stays\n",
    )
    stored = site.accepted(before + control + "\n" + after + "\nBcc: in the body\n")
    assert leaving(stored) == (before + after + "\nBcc: in the body\n").replace("\n", "\r\n").encode()
    assert not any(
        name["name"].lower().startswith(("x-lm-", "x-tag ", "bcc", "x-metadata-", "x-lettr-")) and name["name"] != "Bcc-Not"
        for name in site.data["headers"]
    )


def test_all_of_them_at_once(site: Site) -> None:
    stored = site.accepted("\n".join(["From: a@out.test", "Subject: x", *CONTROL, "X-Last: y"]) + "\n" + BODY)
    assert leaving(stored) == b"From: a@out.test\r\nSubject: x\r\nX-Last: y\r\n\r\nhello\r\n"
    assert site.data["headers"] == [{"name": "X-Last", "value": "y"}]


def test_of_control_headers_and_an_author_only_the_author_is_left(site: Site) -> None:
    assert leaving(site.accepted("X-Tag: a\nFrom: a@out.test\nBcc: c@in.test\n" + BODY)) == b"From: a@out.test\r\n\r\nhello\r\n"
