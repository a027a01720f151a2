"""Open files as the bound of connections, asked of a process with limits of its own."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

from lettermta.ops import descriptors

ASK = """
import json, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 1024))
from lettermta.ops import descriptors
print(json.dumps([descriptors.allowed(), descriptors.raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE)]))
"""


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    told = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True).stdout
    assert json.loads(told) == [1024, 1024, 1024, 1024]


def test_connections_leave_descriptors_for_what_goes_out() -> None:
    assert descriptors.connections_within(10_000, 1024) == 768
    assert descriptors.connections_within(700, 1024) == 700
    assert descriptors.connections_within(10_000, math.inf) == 10_000


def test_a_shortage_names_key_limit_and_remedy() -> None:
    assert descriptors.shortage(10_000, 20_000) is None
    told = descriptors.shortage(10_000, 1024) or ""
    assert "[limits] connections = 10000" in told
    assert "1024 open files" in told
    assert "768 connections" in told
    assert "LimitNOFILE" in told


def test_check_config_warns_of_connections_that_there_cannot_be(tmp_path: Path) -> None:
    config = tmp_path / "mta.ini"
    config.write_text("[mta]\nhostname = mta.example\nstate_dir = state\n[listener submission]\nports = 2525\n")
    admin = Path(sys.executable).with_name("lettermta-admin")
    command = ["sh", "-c", 'ulimit -n 1024 && exec "$0" -c "$1" check-config --json', str(admin), str(config)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == os.EX_OK, "it works, with fewer"
    [warning] = json.loads(checked.stdout)["warnings"]
    assert "connections = 10000" in warning
    assert warning in checked.stderr
