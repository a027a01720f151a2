"""A real Postfix that receives: Debian's package with a configuration and a queue of its own, on addresses of loopback.

One host for each way to speak to it: ``PLAIN`` offers neither STARTTLS nor CHUNKING, ``CHUNKS`` offers CHUNKING, ``TLS`` both. All mail
for any domain in :data:`DOMAINS` ends in one Maildir, each copy with the address that it was for. Recipients whose local part begins with
``refused`` get 550, with ``later`` 450, and with ``hangup`` 421 and the end of the connection.
"""

from __future__ import annotations

import email
import email.policy
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from pathlib import Path

from lettermta.smtp.tls import self_signed
from tests import tools
from tests.system.program import PATIENCE

PLAIN, CHUNKS, TLS = "127.0.0.31", "127.0.0.32", "127.0.0.33"
DOMAINS = ("plain.test", "chunks.test", "tls.test")
ZONE = {domain: {"MX": [(10, f"mx.{domain}")]} for domain in DOMAINS} | {
    f"mx.{domain}": {"A": [address]} for domain, address in zip(DOMAINS, (PLAIN, CHUNKS, TLS), strict=True)
}

_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = postfix.test
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mydestination =
local_recipient_maps =
alias_maps =
mynetworks = 127.0.0.0/8
smtp_host_lookup = native
smtp_dns_support_level = disabled
smtputf8_enable = yes
message_size_limit = 52428800
virtual_mailbox_limit = 0
maillog_file = {folder}/maillog
maillog_file_prefixes = {folder}
virtual_mailbox_domains = {domains}
virtual_mailbox_maps = static:all/
virtual_mailbox_base = {folder}/mail
virtual_minimum_uid = {owner}
virtual_uid_maps = static:{owner}
virtual_gid_maps = static:{group}
smtpd_tls_chain_files = {folder}/tls.pem
smtpd_recipient_restrictions = check_recipient_access regexp:{folder}/etc/access, permit_mynetworks, reject
smtpd_client_connection_count_limit = 0
smtpd_error_sleep_time = 0
"""
_MASTER = """\
{plain}:{port} inet n - n - - smtpd -o smtpd_tls_security_level=none -o smtpd_discard_ehlo_keywords=chunking,silent-discard
{chunks}:{port} inet n - n - - smtpd -o smtpd_tls_security_level=none
{tls}:{port} inet n - n - - smtpd -o smtpd_tls_security_level=may
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""
_ACCESS = """\
/^refused/ 550 5.1.1 No such user here
/^later/ 450 4.2.0 Not now
/^hangup/ 421 4.3.2 Shutting down
"""

_NEVER = threading.Event()


class Postfix:
    """Receives from the moment it is made until it is disposed of. ``settings`` go over those of main.cf."""

    def __init__(self, port: int, settings: Mapping[str, str] | None = None) -> None:
        self._command = tools.need("postfix", "postfix")
        # Its daemons run as users of their own, so it can't lie below a folder that is ours alone.
        self.folder = Path(tempfile.mkdtemp(prefix="postfix-"))
        self.folder.chmod(0o755)
        for name in ("etc", "spool", "data", "mail"):
            (self.folder / name).mkdir()
        shutil.chown(self.folder / "data", "postfix", "postfix")
        shutil.chown(self.folder / "mail", "nobody", "nogroup")
        pair = self_signed(self.folder / "pair", "postfix.test")
        chain = self.folder / "tls.pem"
        chain.touch(mode=0o600)
        chain.write_bytes(pair.private_key.read_bytes() + pair.certificate.read_bytes())
        status = (self.folder / "mail").stat()
        values = {"folder": self.folder, "domains": " ".join(DOMAINS), "owner": status.st_uid, "group": status.st_gid}
        (self.folder / "etc/main.cf").write_text(_MAIN.format(**values))
        if settings:
            with open(self.folder / "etc/main.cf", "a") as file:
                file.writelines(f"{key} = {value}\n" for key, value in settings.items())
        (self.folder / "etc/master.cf").write_text(_MASTER.format(port=port, plain=PLAIN, chunks=CHUNKS, tls=TLS))
        (self.folder / "etc/access").write_text(_ACCESS)
        self.port = port
        self._do("start")

    def _do(self, what: str) -> None:
        done = subprocess.run(
            [self._command, "-c", str(self.folder / "etc"), what],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env={"PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"},
        )
        assert done.returncode == 0, f"postfix {what}: {done.stdout}{done.stderr}{self.log()}"

    def log(self) -> str:
        """What it wrote to its log."""
        file = self.folder / "maillog"
        return file.read_text(errors="replace") if file.exists() else ""

    def logged(self, pattern: str) -> str:
        """The first line of its log that has the pattern, once there is one."""
        limit = time.monotonic() + PATIENCE
        while (found := re.search(f".*{pattern}.*", self.log())) is None:
            assert time.monotonic() < limit, f"no {pattern}: {self.log()[-3000:]}"
            _NEVER.wait(0.02)
        return found[0]

    def mail(self, *, where: Callable[[EmailMessage], bool] = lambda _: True) -> list[EmailMessage]:
        """Every copy that it has delivered so far."""
        found = []
        for file in sorted((self.folder / "mail/all/new").glob("*")):
            message = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
            assert isinstance(message, EmailMessage)
            if where(message):
                found.append(message)
        return found

    def arrived(self, tag: str, count: int) -> list[EmailMessage]:
        """The copies of messages whose subject is ``tag``, once there are ``count`` of them."""
        limit = time.monotonic() + PATIENCE
        while len(found := self.mail(where=lambda message: message["Subject"] == tag)) < count:
            assert time.monotonic() < limit, f"{len(found)} of {count} have arrived: {self.log()[-3000:]}"
            _NEVER.wait(0.02)  # nobody tells us of new files
        return found

    def dispose(self) -> None:
        """Stop it, and leave nothing behind."""
        try:
            self._do("stop")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


def recipients(copies: list[EmailMessage]) -> list[str]:
    """Whom the copies are for, in order."""
    return sorted(str(copy["Delivered-To"]) for copy in copies)
