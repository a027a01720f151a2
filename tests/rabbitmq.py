"""Debian's RabbitMQ, run by a test: a node of its own, with its own ports, directories, cookie and name daemon, all below one directory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.tools import need

PATIENCE = 120.0
"""Seconds that a node may take to start or to stop: two cores are shared by everything."""
SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
CONTROL = "/usr/lib/rabbitmq/bin/rabbitmqctl"
"""The wrappers in the PATH would change the user and the directories."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RabbitMQ:
    """One node; ``port`` speaks AMQP, with the user guest. ``start`` and ``kill`` may be called in turns: what is durable stays."""

    def __init__(self, directory: Path, config: str = "") -> None:
        need("rabbitmq-server", "rabbitmq-server")
        self._epmd_path = need("epmd", "erlang-base")
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.port, self._dist, self._epmd_port = free_port(), free_port(), free_port()
        (directory / "rabbitmq.conf").write_text(f"log.console = false\nlog.file.level = warning\n{config}")
        (directory / "plugins").write_text("[].")
        self._epmd: subprocess.Popen[bytes] | None = None
        self._node: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def _environment(self) -> dict[str, str]:
        at = self._directory
        return {
            "PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin",
            "HOME": str(at),  # where the cookie is made
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"lettermta{os.getpid()}x{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist),
            "RABBITMQ_MNESIA_BASE": str(at / "mnesia"),
            "RABBITMQ_LOG_BASE": str(at / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(at / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(at / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(at / "none"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(at / "generated"),
            "RABBITMQ_PID_FILE": str(at / "pid"),
            # Two schedulers that don't spin while they wait: others run on these cores too.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"
            " -kernel inet_dist_use_interface {127,0,0,1}",
        }

    def start(self) -> None:
        """Start the node, and wait until it answers."""
        environment = self._environment()
        output = (self._directory / "output").open("ab")
        if self._epmd is None:
            self._epmd = subprocess.Popen([self._epmd_path], env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        self._node = subprocess.Popen(
            [SERVER], env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True, cwd=self._directory
        )
        output.close()
        limit = time.monotonic() + PATIENCE
        while not self._answers():
            assert self._node.poll() is None, f"RabbitMQ ended by itself:\n{self.said()}"
            assert time.monotonic() < limit, f"RabbitMQ does not answer:\n{self.said()}"
            self._wait(0.1)

    def _answers(self) -> bool:
        """Whether it greets as AMQP does: a wrong header is answered by the right one."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
                probe.sendall(b"AMQP\x00\x00\x00\x00")
                return probe.recv(8).startswith(b"AMQP")
        except OSError:
            return False

    def _wait(self, seconds: float) -> None:
        assert self._node is not None
        try:
            self._node.wait(seconds)
        except subprocess.TimeoutExpired:
            pass

    def sync(self) -> None:
        """Have what was declared on the disk: RabbitMQ answers before, and a crash within the next seconds forgets a durable queue."""
        command = [CONTROL, "eval", "mnesia:sync_log()."]
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.stdout.strip() == "ok", done.stdout + done.stderr

    def kill(self) -> None:
        """End the node as a crash of its machine's power supply would, but for the disk."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the node and its name daemon."""
        self._end(signal.SIGKILL)
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait(PATIENCE)
            self._epmd = None

    def _end(self, number: int) -> None:
        if self._node is not None:
            os.killpg(self._node.pid, number)
            self._node.wait(PATIENCE)
            self._node = None

    def said(self) -> str:
        """The end of what it wrote, for a test that failed."""
        logs = [self._directory / "output", *(self._directory / "log").glob("*.log")]
        return "\n".join(f"{path}:\n{path.read_text(errors='replace')[-3000:]}" for path in logs if path.exists())
