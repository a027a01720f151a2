"""A lettermta to be measured: started as an operator would, in a directory of its own, and what the kernel knows of its process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent

INI = """
[mta]
hostname = mta.example
state_dir = {dir}/state
[listener bench]
ports = {port}
addresses = 127.0.0.1
trusted_networks = 127.0.0.0/8
trusted_project = bench
[events]
json_log = {dir}/events.jsonl
"""


def free_port() -> int:
    """A port of loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Until something listens on ``port``."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


class Process:
    """Another process, as the kernel accounts for it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Resident MB."""
        return self._status("VmRSS")

    def peak(self) -> float:
        """The most MB that were resident since :meth:`forget_peak`."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """From now on the peak is counted anew (proc(5), clear_refs)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def _status(self, name: str) -> float:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024 / 1e6
        raise SystemExit(f"process {self.pid} has no {name}")


class Daemon(Process):
    """lettermta with the project ``bench``, which loopback sends for without a login; ``more`` is the rest of its configuration.

    ``again``: there has been one in this directory before, so that the project is there.
    """

    def __init__(self, directory: Path, port: int, more: str = "", *, again: bool = False) -> None:
        self.port = port
        self.ini = directory / "mta.ini"
        self.ini.write_text(INI.format(dir=directory, port=port) + more)
        self._log = (directory / "log").open("wb")
        self._process = subprocess.Popen(
            [BIN / "twistd", "-n", "--pidfile=", "lettermta", "-c", self.ini], stdout=self._log, stderr=subprocess.STDOUT
        )
        super().__init__(self._process.pid)
        try:
            if not again:
                self.admin("project", "create", "bench")
            wait_for(port)
        except BaseException:
            self.stop()
            raise

    def admin(self, *arguments: str) -> str:
        """What lettermta-admin prints."""
        return subprocess.run([BIN / "lettermta-admin", "-c", self.ini, *arguments], check=True, capture_output=True, text=True).stdout

    def stop(self) -> None:
        """End it in good order."""
        self._process.terminate()
        self._process.wait()
        self._log.close()
