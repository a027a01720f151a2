"""Real servers for TLS policies: a signed zone (ldns, NSD), a validating resolver (unbound), a web server (nginx), a receiver (Postfix).

Each has a folder of its own and nothing of the system's configuration; all of them are on loopback and end with the test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.system.program import PATIENCE, Program
from tests.system.site import free_port
from tests.tools import need

_NEGATIVE_TTL = 60


class Zones:
    """NSD with zones, some of them signed; and unbound, which validates those."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._anchors: list[Path] = []
        self._zones: list[tuple[str, Path]] = []
        self._running: list[Program] = []
        folder.mkdir()

    def add(self, name: str, lines: Sequence[str]) -> None:
        """A zone without signatures; ``lines`` are records, names in them relative to the zone unless they end with a dot."""
        self._zones.append((name, self._write(name, lines)))

    def add_signed(self, name: str, lines: Sequence[str], *, spoil: Mapping[str, str] = {}, expired: bool = False) -> None:
        """A zone with signatures that the resolver trusts. ``spoil`` changes texts behind the signing, as somebody on the path would."""
        plain = self._write(name, lines)
        command = [need("ldns-keygen", "ldnsutils"), "-a", "ECDSAP256SHA256", "-k", "-r", "/dev/urandom", name]
        key = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, check=True).stdout.strip()
        signed = self._folder / f"{name}.signed"
        dates = ["-i", "20200101000000", "-e", "20200201000000"] if expired else []
        subprocess.run([need("ldns-signzone", "ldnsutils"), *dates, "-f", str(signed), str(plain), key], cwd=self._folder, check=True)
        text = signed.read_text()
        for right, wrong in spoil.items():
            assert right in text, f"nothing to spoil in {name}: {right}"
            text = text.replace(right, wrong)
        signed.write_text(text)
        self._zones.append((name, signed))
        self._anchors.append(self._folder / f"{key}.key")

    def _write(self, name: str, lines: Sequence[str]) -> Path:
        path = self._folder / f"{name}.zone"
        head = [f"$ORIGIN {name}.", "$TTL 300", f"@ SOA ns root 1 3600 600 86400 {_NEGATIVE_TTL}", "@ NS ns", "ns A 127.0.0.1"]
        path.write_text("\n".join([*head, *lines, ""]))
        return path

    def start(self) -> int:
        """Serve; returns the resolver's port."""
        authority, resolver = free_port(), free_port()
        folder = self._folder
        zones = "".join(f'zone:\n  name: "{name}"\n  zonefile: "{path}"\n' for name, path in self._zones)
        nsd = folder / "nsd.conf"
        nsd.write_text(
            f'server:\n  ip-address: 127.0.0.1@{authority}\n  server-count: 1\n  username: ""\n  chroot: ""\n  zonesdir: "{folder}"\n'
            f'  database: ""\n  pidfile: ""\n  xfrdfile: "{folder}/xfrd"\n  zonelistfile: "{folder}/list"\n  xfrdir: "{folder}"\n'
            f"remote-control:\n  control-enable: no\n{zones}"
        )
        self._run([need("nsd", "nsd"), "-d", "-c", str(nsd)], "nsd started")
        unbound = folder / "unbound.conf"
        stubs = "".join(f'stub-zone:\n  name: "{name}"\n  stub-addr: 127.0.0.1@{authority}\n' for name, _ in self._zones)
        anchors = "".join(f'  trust-anchor-file: "{path}"\n' for path in self._anchors)
        unbound.write_text(
            f'server:\n  interface: 127.0.0.1@{resolver}\n  username: ""\n  chroot: ""\n  directory: "{folder}"\n  pidfile: ""\n'
            f'  use-syslog: no\n  logfile: ""\n  do-ip6: no\n  do-not-query-localhost: no\n  num-threads: 1\n'
            f'  module-config: "validator iterator"\n  local-zone: "." refuse\n  local-zone: "test." transparent\n{anchors}'
            f"remote-control:\n  control-enable: no\n{stubs}"
        )
        self._run([need("unbound", "unbound"), "-d", "-v", "-c", str(unbound)], "start of service")
        return resolver

    def _run(self, command: list[str], ready: str) -> None:
        program = Program(command)
        self._running.append(program)
        program.line(ready)

    def dispose(self) -> None:
        """End both."""
        for program in reversed(self._running):
            program.dispose()


class WebServer:
    """nginx by HTTPS on port 443 of an address: ``pages`` has the MTA-STS policies by host, ``pairs`` the certificates; a page that is a
    URL is a redirect to it, one that is a number the status of every answer.
    """

    def __init__(self, folder: Path, address: str, pages: Mapping[str, str], pairs: Mapping[str, Path]) -> None:
        folder.mkdir()
        servers = ""
        for number, (host, text) in enumerate(pages.items()):
            page = folder / str(number) / ".well-known" / "mta-sts.txt"
            page.parent.mkdir(parents=True)
            page.write_text(text)
            answer = f"root {folder / str(number)}"
            if text.startswith("https://") or text.isdigit():
                answer = f"return {text}" if text.isdigit() else f"return 302 {text}"
            servers += (
                f"server {{ listen {address}:443 ssl; server_name {host}; {answer}; default_type text/plain;\n"
                f"ssl_certificate {pairs[host]}; ssl_certificate_key {pairs[host]}; }}\n"
            )
        folder.chmod(0o755)
        config = folder / "nginx.conf"
        config.write_text(
            f"daemon off; pid {folder}/pid; error_log stderr notice; worker_processes 1;\n"
            f"{'user root;' if os.geteuid() == 0 else ''}\nevents {{}}\n"
            f"http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n"
            f"fastcgi_temp_path {folder}/fcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n{servers}}}\n"
        )
        self._program = Program([need("nginx", "nginx-light"), "-p", str(folder), "-c", str(config)])
        self._program.line("start worker process ")

    def dispose(self) -> None:
        """End it."""
        self._program.end()  # a master that is killed leaves its worker behind


class Postfix:
    """Postfix as a receiver that throws all mail away, with STARTTLS by ``pair`` (certificate and key in one file)."""

    def __init__(self, folder: Path, address: str, port: int, pair: Path, domain: str) -> None:
        self._postfix = need("postfix", "postfix")
        self._config = folder / "etc"
        self.log = folder / "log"
        for path in (self._config, folder / "queue", folder / "data"):
            path.mkdir(parents=True)
        folder.chmod(0o755)
        shutil.chown(folder / "data", "postfix")
        (self._config / "main.cf").write_text(
            f"compatibility_level = 3.6\nqueue_directory = {folder}/queue\ndata_directory = {folder}/data\nmaillog_file = {self.log}\n"
            f"maillog_file_prefixes = {folder}\nmyhostname = mx.{domain}\nmydestination = {domain}\ninet_interfaces = 127.0.0.1\n"
            f"inet_protocols = ipv4\nmynetworks = 192.0.2.0/24\nlocal_recipient_maps =\nlocal_transport = discard:\n"
            f"default_transport = discard:\nalias_maps =\nsmtpd_tls_security_level = may\nsmtpd_tls_chain_files = {pair}\n"
            f"smtpd_tls_loglevel = 1\nsmtpd_recipient_restrictions = reject_unauth_destination\nsmtpd_peername_lookup = no\n"
        )
        services = (
            f"{address}:{port} inet n - n - - smtpd",
            "cleanup unix n - n - 0 cleanup",
            "qmgr unix n - n 300 1 qmgr",
            "rewrite unix - - n - - trivial-rewrite",
            "bounce unix - - n - 0 bounce",
            "defer unix - - n - 0 bounce",
            "trace unix - - n - 0 bounce",
            "tlsmgr unix - - n 1000? 1 tlsmgr",
            "discard unix - - n - - discard",
            "anvil unix - - n - 1 anvil",
            "proxymap unix - - n - - proxymap",
            "error unix - - n - - error",
            "retry unix - - n - - error",
            "postlog unix-dgram n - n - 1 postlogd",
        )
        (self._config / "master.cf").write_text("\n".join(services) + "\n")
        self._say("start")
        self._reader = Program(["tail", "-n", "+1", "-F", str(self.log)])
        self.line("daemon started")

    def _say(self, word: str) -> None:
        done = subprocess.run([self._postfix, "-c", str(self._config), word], capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, f"postfix {word}: {done.stderr} {self.log.read_text() if self.log.exists() else ''}"

    def line(self, pattern: str) -> str:
        """The first line of its log that has the pattern in it, once it is there."""
        return self._reader.line(pattern).string

    def dispose(self) -> None:
        """End it."""
        self._reader.dispose()
        self._say("abort")
