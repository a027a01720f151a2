"""What comes back to return paths: any server's report, or anybody's anything (lettermta.delivery.returns)."""

from __future__ import annotations

from fuzz.promises import clean, pumped, require, swift
from lettermta.delivery.classes import Classifier
from lettermta.delivery.returns.finding import LONGEST, Kind
from lettermta.delivery.returns.mime import LONGEST_TEXT, MOST_PARTS, parse
from lettermta.delivery.returns.reason import LONGEST as LONGEST_REASON
from lettermta.delivery.returns.recognise import recognise

TOKENS = (
    b"\r\n",
    b"\r\n\r\n",
    b"--b\r\n",
    b"--b--\r\n",
    b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n",
    b'Content-Type: multipart/mixed; boundary="b"\r\n',
    b"Content-Type: message/delivery-status\r\n\r\n",
    b"Content-Type: message/feedback-report\r\n\r\n",
    b"Content-Type: text/html; charset=utf-7\r\n\r\n",
    b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Transfer-Encoding: quoted-printable\r\n",
    b"Final-Recipient: rfc822; jane@example.com\r\n",
    b"Action: failed\r\n",
    b"Action: delayed\r\n",
    b"Status: 5.1.1\r\n",
    b"Diagnostic-Code: smtp; 550-5.1.1 no\r\n 550 5.1.1 user\r\n",
    b"Feedback-Type: abuse\r\n",
    b"Auto-Submitted: auto-replied\r\n",
    b"X-Failed-Recipients: jane@example.com\r\n",
    b"From: MAILER-DAEMON@x\r\n",
    b"Subject: =?utf-8?Q?Undelivered=1b[2J?=\r\n",
    b"This is the qmail-send program at ",
    b"Sorry it didn't work out.",
    b"--- Below this line is a copy",
    b"\\x{FC}",
    b"<style>",
    b"</",
    b"&#27;",
    b"\0",
    b"\xff",
    b"\xe2\x80\xae",
)

_CLASSIFIER = Classifier()


def one(data: bytes) -> None:
    """Take it apart, say what it is, and what it is about."""
    for octets in pumped(data):
        with swift("returns"):
            parsed = parse(octets)
            found = [recognise(parsed, "jane@example.com", null_sender) for null_sender in (True, False)]
        require(len(parsed.parts) <= MOST_PARTS and len(parsed.reading) <= LONGEST_TEXT, "what is looked at is bounded")
        for finding in found:
            for text in (finding.form, finding.reporter, finding.detail):
                require(len(text) <= LONGEST, "names are bounded")
                clean(text, "a name")
            require((finding.reply is not None) is (finding.kind in (Kind.FAILED, Kind.DELAYED)), "failures and delays have a reason")
            if finding.reply is not None:
                require(400 <= finding.reply.code <= 599 and len(finding.reply.text) <= LONGEST_REASON, "a reason is bounded")
                clean(str(finding.reply), "a reason")
                _CLASSIFIER.classify(finding.reply)
