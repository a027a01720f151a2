"""The remote MX that users and we test with."""

from __future__ import annotations

import json
import signal
import smtplib
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from lettermta.testing.mx import RemoteMX
from lettermta.testing.mx.__main__ import main


class Client:
    """A session on paper."""

    def __init__(self, mx: RemoteMX, clock: Clock | None = None) -> None:
        self.transport = StringTransport()
        self._session = mx.session(clock or Clock())
        self._session.makeConnection(self.transport)

    def says(self, data: str) -> str:
        self._session.dataReceived(data.encode())
        return self.heard()

    def heard(self) -> str:
        heard = self.transport.value().decode()
        self.transport.clear()
        return heard


ENVELOPE = "EHLO out.test\r\nMAIL FROM:<a@out.test> SIZE=9\r\nRCPT TO:<b@in.test>\r\nRCPT TO:<c@in.test>\r\nDATA\r\n"


def test_a_pipelined_message_is_kept_without_its_stuffing() -> None:
    mx = RemoteMX()
    for cut in (1, 7, 1000):
        client = Client(mx)
        said = ENVELOPE + "..dot\r\n.\r\nQUIT\r\n"
        for start in range(0, len(said), cut):
            client.says(said[start : start + cut])
        message = mx.messages.pop()
        assert (message.sender, message.recipients, message.content) == ("a@out.test", ("b@in.test", "c@in.test"), b".dot\r\n")
        assert (message.parameters, message.helo) == ("SIZE=9", "out.test")


def test_scripts_answer_by_stage_recipient_and_number_of_times() -> None:
    mx = RemoteMX(extensions=())
    mx.script("MAIL", "451 4.3.0 later", times=1)
    mx.script("RCPT", "550 5.1.1 gone", recipient="c@in.test")
    mx.script("NOOP", b"\0rubbish")
    client = Client(mx)
    client.heard()
    assert client.says("EHLO x\r\nMAIL FROM:<>\r\n") == "250 mx.test\r\n451 4.3.0 later\r\n"
    said = client.says("MAIL FROM:<>\r\nRCPT TO:<b@in.test>\r\nRCPT TO:<c@in.test>\r\nNOOP\r\n")
    assert said == "250 2.1.0 ok\r\n250 2.1.5 ok\r\n550 5.1.1 gone\r\n\0rubbish"
    client.says("DATA\r\n.\r\n")
    assert mx.messages[0].recipients == ("b@in.test",)


def test_a_delay_holds_everything_behind_it() -> None:
    clock, mx = Clock(), RemoteMX()
    mx.script("DATA", delay=30, times=1)
    client = Client(mx, clock)
    client.heard()
    assert client.says(ENVELOPE + "x\r\n.\r\nNOOP\r\n").endswith("250 2.1.5 ok\r\n")
    clock.advance(30)
    assert client.heard() == "354 go ahead\r\n250 2.0.0 Ok: queued as 1\r\n250 2.0.0 ok\r\n"


def test_a_drop_behind_the_dot_has_taken_the_message() -> None:
    mx = RemoteMX()
    mx.script("DOT", drop=True)
    client = Client(mx)
    assert client.says(ENVELOPE + "x\r\n.\r\n").endswith("354 go ahead\r\n")
    assert (mx.count, client.transport.disconnecting) == (1, True)


def test_chunks_are_put_together_and_a_refused_one_is_swallowed() -> None:
    refused = "MAIL FROM:<>\r\nBDAT 4\r\nRSETRCPT TO:<b@in.test>\r\nBDAT 5\r\n.\r\nabBDAT 3 LAST\r\n.\r\nMAIL FROM:<>\r\nRSET\r\n"
    taken = "MAIL FROM:<>\r\nRCPT TO:<b@in.test>\r\nBDAT 5\r\n.\r\nabDATA\r\nBDAT 3 LAST\r\n.\r\n"
    for cut in (1, 7, 1000):
        mx = RemoteMX(extensions=["CHUNKING"])
        mx.script("BDAT", "452 4.3.1 full", times=1)
        client = Client(mx)
        client.heard()
        for said, codes in ((refused, "250 503 250 452 503 503 250"), (taken, "250 250 250 503 250")):
            heard = "".join(client.says(said[start : start + cut]) for start in range(0, len(said), cut))
            assert " ".join(line[:3] for line in heard.splitlines()) == codes
        assert [message.content for message in mx.messages] == [b".\r\nab.\r\n"]


def test_the_program_writes_a_line_for_each_message(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "lettermta.testing.mx", "--port", "0", "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        try:
            with smtplib.SMTP("127.0.0.1", int(process.stdout.readline().removeprefix("listening ")), timeout=10) as client:
                client.sendmail("a@out.test", ["b@in.test", "c@in.test"], "Subject: ü\r\n\r\n.hi\r\n".encode())
                client.sendmail("", ["d@in.test"], b"Subject: \xff\r\n\r\n")
                first, second = (json.loads(line) for line in out.read_bytes().splitlines())
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "received 2\n"
    assert (first["sender"], first["recipients"], first["content"]) == (
        "a@out.test",
        ["b@in.test", "c@in.test"],
        "Subject: ü\r\n\r\n.hi\r\n",
    )
    assert second["content_base64"] == "U3ViamVjdDog/w0KDQo="
    assert process.returncode == 0


def test_the_program_misbehaves_as_it_is_told() -> None:
    options = ["--without", "8bitmime", "--script", "MAIL", "451 4.3.0 later", "--drop", "NOOP"]
    command = [sys.executable, "-m", "lettermta.testing.mx", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        try:
            with smtplib.SMTP("127.0.0.1", int(process.stdout.readline().removeprefix("listening ")), timeout=10) as client:
                client.ehlo()
                assert not client.has_extn("8BITMIME") and client.has_extn("SMTPUTF8")
                assert client.mail("a@out.test") == (451, b"4.3.0 later")
                with pytest.raises(smtplib.SMTPServerDisconnected):
                    client.noop()
        finally:
            process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--script", "DATUM", "250 ok"], "no stage 'DATUM'"),
        (["--delay", "DOT", "soon"], "'soon' is no number of seconds"),
        (["--certificate", "/etc/hostname"], "/etc/hostname: no certificate and key"),
        (["--out", "/nowhere/out.jsonl"], "No such file or directory"),
        (["--interface", "192.0.2.1"], "listen on 192.0.2.1"),
    ],
)
def test_the_program_tells_what_it_can_not_do(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(options)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
