"""The lock of a home: one pod at a time, told apart from a dead one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from base.errors import MachineError
from base.home import Home
from control import lock

HOLDER = """
import sys
from pathlib import Path
from base.home import Home
from control.lock import acquire
acquire(Home(Path(sys.argv[1])))
print("held", flush=True)
sys.stdin.read()
"""


def _held_elsewhere(home: Home) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(home.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_holder_is_known_until_it_is_killed(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert lock.holder(home) is None
    process = _held_elsewhere(home)
    try:
        assert lock.holder(home) == process.pid
    finally:
        process.kill()
        process.communicate()
    assert lock.holder(home) is None


def test_a_second_pod_of_one_home_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_PAUSE_S", 0.0)
    home = Home(tmp_path)
    process = _held_elsewhere(home)
    try:
        with pytest.raises(MachineError, match="running already"):
            lock.acquire(home)
    finally:
        process.kill()
        process.communicate()
    descriptor = lock.acquire(home)
    try:
        assert lock.holder(home) == os.getpid()
    finally:
        os.close(descriptor)


def test_a_home_that_is_not_there_has_no_holder(tmp_path: Path) -> None:
    assert lock.holder(Home(tmp_path / "nowhere")) is None
