"""A real Exim that takes everything and reports on some of it: Debian's program with a configuration and a spool of its own.

It can't be installed beside Postfix, so it runs as it was unpacked; the user that it insists on is known to it alone, by a mount namespace.
Recipients whose local part is ``nobody`` or ``full`` fail once they have been taken; reports go to a port of loopback.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tests import tools
from tests.system.program import Program

EXIM = "127.0.0.34"
DOMAIN = "exim.test"
ZONE = {DOMAIN: {"MX": [(10, f"mx.{DOMAIN}")]}, f"mx.{DOMAIN}": {"A": [EXIM]}}

_USER = "Debian-exim"
_NUMBER = 64_321
_CONFIG = """\
primary_hostname = exim.test
exim_path = {program}
local_interfaces = {address}
daemon_smtp_ports = {port}
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
pid_file_path = {folder}/exim.pid
deliver_drop_privilege
keep_environment = LD_LIBRARY_PATH
tls_advertise_hosts =
host_lookup =
rfc1413_hosts =
acl_smtp_rcpt = accept
begin routers
back:
  driver = manualroute
  domains = ! exim.test
  transport = out
  route_list = * 127.0.0.1::{back} byname
  self = send
nobody:
  driver = redirect
  local_parts = nobody
  allow_fail
  data = :fail: user unknown
full:
  driver = redirect
  local_parts = full
  allow_fail
  data = :fail: mailbox is full
rest:
  driver = redirect
  data = :blackhole:
begin transports
out:
  driver = smtp
  allow_localhost
begin retry
* * F,1h,1s
"""


class Exim:
    """Receives at ``port`` of :data:`EXIM` from the moment it is made until it is disposed of; reports go to port ``back``."""

    def __init__(self, port: int, back: int) -> None:
        root = tools.unpacked("exim4-daemon-light", "libidn12")
        unshare = tools.need("unshare", "util-linux")
        self.folder = Path(tempfile.mkdtemp(prefix="exim-"))
        self.folder.chmod(0o755)
        for name in ("spool", "log"):
            (self.folder / name).mkdir()
            shutil.chown(self.folder / name, _NUMBER, _NUMBER)
        program = root / "usr/sbin/exim4"
        config = self.folder / "exim.conf"
        config.write_text(_CONFIG.format(program=program, address=EXIM, port=port, back=back, folder=self.folder))
        passwd, group = self.folder / "passwd", self.folder / "group"
        passwd.write_text(f"{Path('/etc/passwd').read_text()}{_USER}:x:{_NUMBER}:{_NUMBER}::/:/bin/false\n")
        group.write_text(f"{Path('/etc/group').read_text()}{_USER}:x:{_NUMBER}:\n")
        libraries = next((root / "usr/lib").glob("*-linux-gnu*"))
        script = (
            f"mount --bind {passwd} /etc/passwd && mount --bind {group} /etc/group && "
            f"export LD_LIBRARY_PATH={libraries} && exec {program} -C {config} -bdf -q1s -v"
        )
        self._program = Program([unshare, "--mount", "sh", "-c", script])
        self._program.line("listening for SMTP")

    def log(self) -> str:
        """What it wrote to its logs."""
        return "".join(path.read_text(errors="replace") for path in sorted((self.folder / "log").iterdir()))

    def dispose(self) -> None:
        """Stop it, and leave nothing behind."""
        self._program.dispose()
        shutil.rmtree(self.folder, ignore_errors=True)
