"""Starting and stopping the pod's own process.

The pod goes on whatever becomes of the terminal: a session of its own, no input, its output in its log. It tells on a
pipe whether it serves, in one line: ``{"ready": {...}}`` or ``{"error": [kind, message, advice, errno]}``.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from base.errors import MachineError, UnreachableError, WormholeError, from_wire
from base.home import HOME_VARIABLE, Home
from control.client import call
from control.lock import holder

START_S = 60.0
"""A pod that is not ready by then is ended."""

STOP_S = 60.0
"""How long a pod may take to unmount and end; and how long one that is ended otherwise may take."""

_READY_LIMIT_BYTES = 256 * 1024
_POLL_S = 0.02
_TAIL_BYTES = 4096


def command_line(home: Home) -> list[str]:
    """Return the pod's command line."""
    return [sys.executable, "-m", "pod", "--home", str(home.path)]


def environment(home: Home) -> dict[str, str]:
    """Return the pod's environment: it names the home, so that every process of a pod can be found."""
    return {**os.environ, HOME_VARIABLE: str(home.path)}


def replace_by_pod(home: Home) -> NoReturn:
    """Turn this process into the pod (`up --foreground`)."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir("/")
    os.execve(sys.executable, command_line(home), environment(home))  # noqa: S606 (no shell is wanted)


def start(home: Home, *, foreground: bool = False) -> tuple[dict[str, object], subprocess.Popen[bytes]]:
    """Start the pod and wait until it serves and its mount answers; return what it says of itself, and the process.

    With ``foreground`` it keeps this process's output and its terminal. Raises the error that kept it from starting,
    `MachineError` when it ended without a word, `UnreachableError` when it took longer than `START_S`.
    """
    reader, writer = os.pipe()
    try:
        process = _spawn(home, writer, foreground)
    except OSError as error:
        os.close(reader)
        raise MachineError(f"The pod can't be started: {error.strerror}.", f"Look at {home.path}.") from error
    finally:
        os.close(writer)
    try:
        line = _line(reader, time.monotonic() + START_S)
        if line is None:
            raise UnreachableError(f"The pod was not ready within {START_S:g} s.", f"Its log is {home.log}.")
        ready = _ready(line, process, home)
    except BaseException:
        end(process)
        raise
    finally:
        os.close(reader)
    return ready, process


def _spawn(home: Home, ready_fd: int, foreground: bool) -> subprocess.Popen[bytes]:
    log = os.open(home.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            [*command_line(home), "--ready-fd", str(ready_fd)],
            cwd="/",
            env=environment(home),
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno() if foreground else log,
            stderr=sys.stderr.fileno() if foreground else log,
            pass_fds=(ready_fd,),
            start_new_session=True,
        )
    finally:
        os.close(log)


def _line(descriptor: int, deadline_s: float) -> bytes | None:
    """Read up to the first newline or the end; None at the deadline."""
    data = b""
    while not data.endswith(b"\n") and len(data) < _READY_LIMIT_BYTES:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not select.select([descriptor], [], [], left_s)[0]:
            return None
        piece = os.read(descriptor, 65536)
        if not piece:
            break
        data += piece
    return data


def _ready(line: bytes, process: subprocess.Popen[bytes], home: Home) -> dict[str, object]:
    with suppress(ValueError):
        match json.loads(line):
            case {"ready": dict(ready)}:
                return ready
            case {"error": list(error)}:
                raise from_wire(error)
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)
    last = _last_words(home)
    raise MachineError(
        f"The pod ended while it was starting{f' ({last})' if last else ''}.",
        "With `--foreground` it shows its log here.",
    )


def _last_words(home: Home) -> str:
    """Return the last line of the pod's log, shortened; empty when there is none."""
    try:
        with home.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip()[:200] if lines else ""


def end(process: subprocess.Popen[Any]) -> None:
    """End a process that this one started: in order if it can, by force if it must."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S / 2)


def follow(process: subprocess.Popen[bytes], tell: Callable[[], None]) -> int:
    """Tell that it runs and stay until the pod ends (`--foreground`); an interrupt ends it in order.

    Return its exit code.
    """
    try:
        tell()
        code = process.wait()
    except BaseException:
        end(process)
        raise
    return code if code >= 0 else 128 - code


def stop(home: Home) -> bool:
    """Stop the pod as an announced absence and wait until its process is gone; False when it was not running.

    Raises `UnreachableError` when it does not end in time, or the error with which it refuses.
    """
    pid = holder(home)
    if pid is None:
        return False
    refusal: WormholeError | None = None
    try:
        call(home, "down", timeout_s=STOP_S)
    except WormholeError as error:
        refusal = error  # it may have ended before it could answer
    seems_gone = isinstance(refusal, UnreachableError)
    wait_until_gone(home, pid, STOP_S if refusal is None else STOP_S / 4 if seems_gone else 2.0, refusal)
    return True


def wait_until_gone(home: Home, pid: int, timeout_s: float = STOP_S, refusal: WormholeError | None = None) -> None:
    """Wait until process ``pid`` is no more. Raises ``refusal``, else `UnreachableError`, at the deadline."""
    deadline_s = time.monotonic() + timeout_s
    while _alive(pid):
        if time.monotonic() > deadline_s:
            raise refusal or UnreachableError(
                f"The pod of {home.path} (process {pid}) does not end.",
                f"Its log is {home.log}; at worst `kill {pid}`.",
            )
        time.sleep(_POLL_S)


def _alive(pid: int) -> bool:
    """Return whether a process runs; one of ours that has ended is reaped."""
    with suppress(ChildProcessError):
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
        return status.rpartition(b")")[2].split()[0] not in {b"Z", b"X"}
    except (OSError, IndexError):
        return False


def kill(home: Home, pid: int) -> None:
    """End a pod that does not answer: by SIGTERM, which unmounts, at last by SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        with suppress(UnreachableError):
            wait_until_gone(home, pid, STOP_S / 4)
            return
    raise UnreachableError(f"Process {pid} of {home.path} can't be ended.", "Restart the machine.")
