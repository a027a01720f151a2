"""Messages of all kinds, made by hypothesis: what DKIM's canonical forms and a transport's framing could stumble over."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

_WORDS = st.sampled_from(
    [
        *("plain", "=?utf-8?Q?M=C3=BCsli?=", "grüße", "日本語", "a.b", ".", "..", "x" * 60),
        *("tab\there", "colon: semi; comma,", "(comment)", '"quoted"'),
    ]
)
_BLANKS = st.sampled_from([" ", "  ", "\t", " \t ", "\r\n ", "\r\n\t", " \r\n  "])


@st.composite
def _value(draw: st.DrawFn) -> str:
    """A header's value: words with all kinds of blanks and folds in between."""
    words = draw(st.lists(_WORDS, max_size=6))
    text = draw(st.sampled_from(["", " ", "  ", "\t"]))
    for number, word in enumerate(words):
        text += (draw(_BLANKS) if number else "") + word
    return text + draw(st.sampled_from(["", "", " ", "\t ", "   "]))


_FROM = st.sampled_from(
    [
        "From: app@sender.test",
        "from:app@sender.test",
        'FROM: "App, the (first)" <app@sender.test>',
        "From: =?utf-8?B?R3LDvMOfZQ==?=\r\n <app@sender.test>",
        "From:\t(a comment) App\t <app@SENDER.test>  ",
        "From: Grüße <app@sender.test>",
        "From: app@sender.test, other@elsewhere.test",
    ]
)
_NAMES = st.sampled_from(
    [
        *("To", "Cc", "Subject", "Date", "Message-ID", "Reply-To", "Content-Type", "MIME-Version", "Content-Transfer-Encoding"),
        *("List-Id", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Odd", "Sender", "References", "In-Reply-To", "Feedback-ID"),
        *("X-Mailer", "Received", "subject", "SUBJECT"),
    ]
)
_LINES = ["", "", ".", "..", ". x", " ", "\t", "  .  ", "From here", "trailing  ", "trailing\t", "two  blanks \t and tabs\t\tin it"]
_LINE = st.one_of(
    st.sampled_from(_LINES),
    st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=80),
    st.integers(900, 5000).map(lambda length: "long line " * (length // 10)),
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """One message; its lines end in CRLF, the last one may not."""
    fields = [f"{draw(_NAMES)}:{draw(_value())}" for _ in range(draw(st.integers(0, 8)))]
    fields.insert(draw(st.integers(0, len(fields))), draw(_FROM))
    body = "\r\n".join(draw(st.lists(_LINE, max_size=12))) + draw(st.sampled_from(["", "\r\n", "\r\n\r\n\r\n", " \r\n\t\r\n", " "]))
    return ("\r\n".join(fields) + "\r\n\r\n" + body).encode()


def many(count: int) -> list[bytes]:
    """The same ``count`` messages at each run."""
    made: list[bytes] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(messages())
    def make(message: bytes) -> None:
        made.append(message)

    make()
    return made
