"""The lock that says which process is the pod of a home: at most one, and none after it died, however it died."""

from __future__ import annotations

import fcntl
import os
import time

from base.errors import MachineError
from base.home import Home

_ATTEMPTS = 20
_PAUSE_S = 0.05


def acquire(home: Home) -> int:
    """Become the pod of ``home``; return the descriptor that must stay open as long as the process is.

    Raises `MachineError` when another process is the pod already. Waits up to a second, because `holder` takes the
    lock for a moment to look.
    """
    descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for attempt in range(_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt + 1 < _ATTEMPTS:
                time.sleep(_PAUSE_S)
            continue
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        return descriptor
    os.close(descriptor)
    raise MachineError(f"The pod of {home.path} is running already.", "Use it, or stop it first with `wormhole down`.")


def holder(home: Home) -> int | None:
    """Return the process id of the running pod of ``home``; None when there is none."""
    try:
        descriptor = os.open(home.lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 32, 0).strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(descriptor)
    return None
