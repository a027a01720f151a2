"""A start that can't be: every reason is told on standard error, with what to do about it, and the exit status says which sort it is."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests import tools
from tests.system.program import PATIENCE
from tests.system.site import BIN, Daemon, Settings, Site, free_port, write_ini

FINE: Settings = {"mta": {"hostname": "mta.sender.test", "state_dir": "state"}}


def start(config: Path, *prefix: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Start a daemon that is to end by itself."""
    command = [*prefix, str(BIN / "twistd"), "-n", "--pidfile=", "lettermta", "-c", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, env={**os.environ, **(env or {})})


def listener(port: int) -> Settings:
    return {"listener submission": {"ports": str(port), "addresses": "127.0.0.1"}}


def test_all_faults_of_the_file_are_told_at_once(tmp_path: Path) -> None:
    wrong: Settings = {
        "listener submission": {"ports": "70000", "security": "ssl"},
        "delivery": {"lifetime": "5", "retries": "3"},
        "webhooks": {"url": "https://example.test"},
    }
    config = write_ini(tmp_path / "mta.ini", FINE, wrong)
    ended = start(config)
    assert ended.returncode == os.EX_CONFIG
    for line, fault in [
        (6, "[listener submission] ports: '70000' is not a port"),
        (7, "[listener submission] security: 'ssl'"),
        (10, "[delivery] lifetime: '5' has no unit"),
        (11, "[delivery] retries: unknown key"),
        (13, "[webhooks] unknown section"),
    ]:
        assert f"{config}:{line}: {fault}" in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr

    checked = subprocess.run([str(BIN / "lettermta-admin"), "check-config", "-c", str(config)], capture_output=True, text=True, check=False)
    assert checked.returncode == os.EX_CONFIG
    assert checked.stderr.strip() in ended.stderr, "check-config says the same"


def test_a_missing_file_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    ended = start(tmp_path / "none.ini")
    assert ended.returncode == os.EX_CONFIG
    assert "none.ini" in ended.stderr


def test_every_hook_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    hooks: Settings = {"events": {"hooks": "no_such_module.Hook, os.path.nothing"}}
    ended = start(write_ini(tmp_path / "mta.ini", FINE, listener(free_port()), hooks))
    assert ended.returncode == os.EX_CONFIG
    assert "no_such_module" in ended.stderr
    assert "os.path" in ended.stderr


def test_a_certificate_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("hello")
    tls: Settings = {"tls": {"certificate": "cert.pem", "private_key": "cert.pem"}}
    ended = start(write_ini(tmp_path / "mta.ini", FINE, listener(free_port()), tls))
    assert ended.returncode == os.EX_CONFIG
    assert "cert.pem" in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_certificates_and_hooks_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("hello")
    wrong: Settings = {"tls": {"certificate": "cert.pem", "private_key": "cert.pem"}, "events": {"hooks": "no_such_module.Hook"}}
    config = write_ini(tmp_path / "mta.ini", FINE, listener(free_port()), wrong)
    ended = start(config)
    assert ended.returncode == os.EX_CONFIG
    line = config.read_text().splitlines().index("[tls]") + 2
    assert f"{config}:{line}: [tls] certificate: {tmp_path / 'cert.pem'}: no PEM certificate could be read" in ended.stderr
    assert "[events] hooks: 'no_such_module.Hook': module 'no_such_module' cannot be imported" in ended.stderr


def test_a_port_in_use_is_told_with_reason_and_remedy(tmp_path: Path) -> None:
    with socket.socket() as one, socket.socket() as other:
        ports = []
        for holder in (one, other):
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            ports.append(holder.getsockname()[1])
        both: Settings = {"listener submission": {"ports": f"{ports[0]}, {ports[1]}", "addresses": "127.0.0.1"}}
        ended = start(write_ini(tmp_path / "mta.ini", FINE, both))
    assert ended.returncode == os.EX_UNAVAILABLE
    for port in ports:
        assert f"[listener submission] port {port} on 127.0.0.1: Address already in use" in ended.stderr
        assert f"ss -ltnp 'sport = :{port}'" in ended.stderr


def test_a_state_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """As root too: without the capability to override permissions, root is as bound by them as anyone."""
    prefix = []
    if os.geteuid() == 0:
        prefix = [tools.need("setpriv", "util-linux"), "--bounding-set", "-dac_override,-dac_read_search"]
    state = tmp_path / "state"
    state.mkdir(mode=0o500)
    ended = start(write_ini(tmp_path / "mta.ini", FINE, listener(free_port())), *prefix)
    assert ended.returncode in (os.EX_CANTCREAT, os.EX_UNAVAILABLE)
    assert str(state) in ended.stderr
    assert "Permission denied" in ended.stderr
    assert "etc/dev.ini" in ended.stderr


def test_an_event_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    log: Settings = {"events": {"json_log": "folder"}}
    ended = start(write_ini(tmp_path / "mta.ini", FINE, listener(free_port()), log))
    assert ended.returncode == os.EX_UNAVAILABLE
    assert "folder" in ended.stdout + ended.stderr


def test_a_state_directory_too_deep_for_a_socket_is_told(tmp_path: Path) -> None:
    deep: Settings = {"mta": {"hostname": "mta.sender.test", "state_dir": "d" * 120}}
    ended = start(write_ini(tmp_path / "mta.ini", deep, listener(free_port())))
    assert ended.returncode == os.EX_CANTCREAT
    assert "control.sock" in ended.stderr


@pytest.fixture(scope="module")
def daemon(site: Site) -> Daemon:
    daemon = site.daemon("first")
    daemon.start()
    return daemon


def test_a_second_daemon_on_the_same_state_directory_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    state: Settings = {"mta": {"state_dir": str(daemon.directory / "state")}}
    ended = start(write_ini(tmp_path / "mta.ini", FINE, listener(free_port()), state))
    assert ended.returncode == os.EX_UNAVAILABLE
    assert "in use by another lettermta" in ended.stderr
    assert daemon.queue() == [], "the first one goes on, and can be asked"
    daemon.stop()
