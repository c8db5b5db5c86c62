"""One pod in a process of its own, so that a mount that hangs can't take the tests along."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from base.ids import hash_bytes
from vfs import mountpoint

PROCESS = Path(__file__).with_name("pod_process.py")
ROOT = PROCESS.parents[2]
ANSWER_S = 30.0

pytestmark = pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="no /dev/fuse")


class Pod:
    """A running pod with a mount, driven over pipes."""

    def __init__(self, top: Path) -> None:
        self.home = top / "home"
        self.mount = top / "mount"
        self.log = top / "log"
        self._process: Any = None

    def start(self, ownership: str = "kept") -> None:
        words = [sys.executable, str(PROCESS), str(self.home), str(self.mount), ownership]
        with open(self.log, "a") as log:
            self._process = subprocess.Popen(
                words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        answer = self._line()
        assert answer == {"ready": True}, f"{answer} {self.log.read_text()[-3000:]}"

    def _line(self) -> dict[str, Any]:
        """Read one answer; a pod that says nothing for long is killed, which ends the reading."""
        process = self._process
        timer = threading.Timer(ANSWER_S, process.kill)
        timer.start()
        try:
            line = process.stdout.readline()
        finally:
            timer.cancel()
        return json.loads(line) if line else {"silent": self.log.read_text()[-3000:]}

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        answer = self._line()
        assert "silent" not in answer, answer["silent"]
        return answer

    def settled(self) -> None:
        """Wait until everything closed so far is published and on the disk."""
        assert self.ask("settle") == {}

    def forget(self) -> None:
        """Have the kernel forget all that it cached."""
        assert self.ask("forget") == {}

    def remote(self, what: str, path: Path, *more) -> None:
        """Let another pod do something; returns when this pod has applied it."""
        words = [self._tree_path(each) if isinstance(each, Path) else each for each in (path, *more)]
        answer = self.ask("remote", what=what, words=words)
        assert answer == {}, answer

    def remote_write(self, path: Path, data: bytes) -> None:
        self.remote("write", path, data.hex())

    def apart_write(self, path: Path, data: bytes) -> None:
        """Let another pod, which has heard nothing since the last time, write a file."""
        answer = self.ask("apart", what="write", words=[self._tree_path(path), data.hex()])
        assert answer == {}, answer

    def _tree_path(self, path: Path) -> str:
        return "/" + str(path.relative_to(self.mount))

    def content_of(self, data: bytes) -> str:
        return hash_bytes(data).hex()

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        code: int = self._process.wait(ANSWER_S)
        self._close_pipes()
        return code

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self.wait()

    def stop(self) -> None:
        assert self.ask("unmount", force=False) == {}
        assert self.wait() == 0

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()

    def clean(self) -> None:
        """Leave no process and no mount, whatever happened."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        for _ in range(mountpoint.STACK_LIMIT):
            if mountpoint.mounted_at(self.mount) is None:
                break
            subprocess.run(["umount", "-l", str(self.mount)], check=False)
        tracebacks = [line for line in self.log.read_text().splitlines() if line.startswith("Traceback")]
        assert not tracebacks, self.log.read_text()[-5000:]


@pytest.fixture(scope="module")
def pod(tmp_path_factory):
    """A pod for all tests of a file."""
    made = Pod(tmp_path_factory.mktemp("pod"))
    try:
        made.start()
        yield made
    finally:
        made.clean()


@pytest.fixture
def work(pod, request):
    """A directory on the mount for one test."""
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    top = pod.mount / name
    top.mkdir()
    return top


@pytest.fixture
def fresh(tmp_path):
    """A pod for one test, to be killed at will."""
    made = Pod(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.clean()
