"""Running `wormhole` as a person does: a process of its own, a home of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WORMHOLE = Path(sys.executable).parent / "wormhole"
DEADLINE_S = 120
LOCAL = ("--listen", "127.0.0.1:0")


@dataclass(frozen=True)
class Done:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        document = json.loads(self.out)
        assert document["version"] == 1
        return document


@dataclass(frozen=True)
class Person:
    """Somebody with a home directory and no pod yet."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("WORMHOLE", "XDG"))}
        return {**kept, "HOME": str(self.folder), "COLUMNS": "100"}

    @property
    def state(self) -> Path:
        return self.folder / ".local" / "state" / "wormhole"

    def run(self, *arguments: str | Path, **variables: str) -> Done:
        done = subprocess.run(
            [WORMHOLE, *map(str, arguments)],
            cwd=self.folder,
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DEADLINE_S,
            check=False,
        )
        out, err = (stream.decode("utf-8", "surrogateescape") for stream in (done.stdout, done.stderr))
        assert "Traceback" not in out + err
        return Done(done.returncode, out, err)

    def fails(self, code: int, *arguments: str | Path, **variables: str) -> str:
        """Run what must fail with ``code``: at most two sentences on stderr, nothing on stdout. Return stderr."""
        done = self.run(*arguments, **variables)
        assert done.code == code, (arguments, done)
        assert done.out == ""
        assert done.err.startswith("wormhole: ")
        assert len(done.err.splitlines()) <= 2
        assert done.err.splitlines()[0].endswith((".", "?")), done.err
        return done.err


def processes(folder: Path) -> list[int]:
    """Return the processes whose environment or command line names something below ``folder``, without this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if b"WORMHOLE_HOME=" + os.fsencode(folder) in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def mounts(folder: Path) -> list[str]:
    """Return the mount points below ``folder``."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{folder}/")]


def end_pods(folder: Path) -> None:
    """End and unmount what still runs below ``folder``, whatever a test did."""
    for pid in processes(folder):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for mount in mounts(folder):
        subprocess.run(["umount", "-l", mount], check=False)
