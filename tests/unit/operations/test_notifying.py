"""The owner's command: what it is told, and that it can neither hold up nor harm the pod."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from operations import notifying
from operations.notifying import WAITING, Notice, Notifying

pytestmark = pytest.mark.anyio
NASTY = "a $(touch oops) `touch oops`; touch oops\n| touch oops \u00e4"


async def told(command: str, notices: list[Notice], done: Callable[[], bool], within_s: float = 60.0) -> None:
    runner = Notifying(lambda: command, lambda: {"POD": "nas; touch oops"})
    async with anyio.create_task_group() as group:
        group.start_soon(runner.run)
        for notice in notices:
            runner.tell(notice)
        with anyio.fail_after(within_s):
            while not done():
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()


async def test_the_reason_comes_on_stdin_and_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "a script"
    script.write_text(
        '#!/bin/sh\ncat > got.tmp\nenv | grep -a ^WORMHOLE_ >> got.tmp\necho "$1" >> got.tmp; mv got.tmp got\n'
    )
    script.chmod(0o755)
    got = tmp_path / "got"
    await told(f"'{script}' ';touch oops' 2>/dev/null", [Notice("cut-off", "degraded", NASTY, "freeze")], got.exists)
    text = got.read_text()
    assert text.startswith(NASTY + "\n")
    assert "WORMHOLE_EVENT=cut-off\n" in text
    assert "WORMHOLE_SITUATION=degraded\n" in text
    assert "WORMHOLE_REACTION=freeze\n" in text
    assert "WORMHOLE_POD=nas; touch oops\n" in text
    assert text.endswith(";touch oops\n")
    assert not (tmp_path / "oops").exists()


async def test_what_takes_too_long_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifying, "LIMIT_S", 0.3)
    script, pids = tmp_path / "slow", tmp_path / "pids"
    script.write_text(f"#!/bin/sh\nsleep 100 &\necho $! >> {pids}\nwait\n")
    script.chmod(0o755)
    notices = [Notice("situation", "critical", f"{number}", "") for number in range(2)]

    def two_ended() -> bool:
        started = pids.read_text().split() if pids.exists() else []
        return len(started) == 2 and not any(is_running(int(pid)) for pid in started)

    await told(str(script), notices, two_ended)


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
    except OSError:
        return False


async def test_only_the_last_events_wait(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\ncat >> {out}\n")
    script.chmod(0o755)
    notices = [Notice("situation", "critical", f"{number}", "") for number in range(100)]
    await told(str(script), notices, lambda: out.exists() and len(out.read_text().split()) == WAITING)
    assert out.read_text().split() == [f"{number}" for number in range(100 - WAITING, 100)]


@pytest.mark.parametrize("command", ["/no/such/program", "'unclosed", "''", "/", "false", "true"])
async def test_a_command_that_fails_harms_nothing(command: str, tmp_path: Path) -> None:
    commands = iter([command])
    ended = anyio.Event()

    def next_command() -> str:
        found = next(commands, "")
        if not found:
            ended.set()
        return found

    runner = Notifying(next_command, dict)
    async with anyio.create_task_group() as group:
        group.start_soon(runner.run)
        for _ in range(2):
            runner.tell(Notice("rejoined", "favourable", "x" * 200_000, ""))
        with anyio.fail_after(60):
            await ended.wait()
        group.cancel_scope.cancel()
    assert os.getpid()
