"""Makes pyfuse3 look for the next request before it asks the event loop to wait for one.

pyfuse3 goes through epoll, a lock and a future for every request; looking at the descriptor first doubles to triples
the rate. Both replaced functions are private names of pyfuse3, so its version is pinned and `install` checks them.

Must never: hold up the other tasks (it yields every few milliseconds), or let a read of the descriptor block. Between
the look and the read the kernel can take a request back (its process was killed); a blocking read would then stop the
whole process with the interpreter lock held. So the descriptor is made non-blocking, and the session loop, which takes
EAGAIN for the end of the world, is entered again.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyfuse3
import trio

from base.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SLICE_NS: Final = 2_000_000
"""After this long of requests answered without a pause the other tasks get their turn (ns)."""

SPIN_NS: Final = 60_000
"""After a request it is looked for the next one for this long without sleeping (ns): where the program runs on another
processor, waking this one takes longer than answering (a stat: 80 µs with that, 40 without)."""

WAIT_NS: Final = 100_000
"""After that this long is waited for the next one before the event loop is asked (ns): a process that works through
many files sends it sooner, and going through the event loop takes half as long again."""


class Traffic:
    """Counts requests."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


_WAIT: Final = "_wait_fuse_readable"
_LOOP: Final = "_session_loop"

_originals: dict[str, Any] = {}


def fuse_descriptors() -> set[int]:
    """Return the descriptors of this process that are open FUSE sessions."""
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - iterdir would build a path for each
        try:
            if Path(f"/proc/self/fd/{name}").readlink() == Path("/dev/fuse"):
                found.add(int(name))
        except OSError:
            continue
    return found


class _PollFd(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class _TimeSpec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


def look_at(descriptor: int, wait_ns: int = 0) -> Callable[[], int]:
    """Return a function that tells whether a descriptor is readable, waiting so long and with the interpreter locked.

    ``select.poll`` gives the lock away for every look, and other threads may then keep it for milliseconds.
    """
    entry, pause = _PollFd(descriptor, select.POLLIN, 0), _TimeSpec(0, wait_ns)
    poll = ctypes.PyDLL(None).ppoll
    poll.argtypes = (ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p)
    arguments = (ctypes.addressof(entry), 1, ctypes.addressof(pause), None)

    def look(_alive: tuple[_PollFd, _TimeSpec] = (entry, pause)) -> int:
        return int(poll(*arguments))

    return look


def poll_first(
    descriptor: int, original: Callable[[], Awaitable[bool]], traffic: Traffic
) -> Callable[[], Awaitable[bool]]:
    """Return the replacement of pyfuse3's wait for the session's descriptor.

    One worker always waits in the original: pyfuse3 starts another one for every request that finds none there, and
    would start hundreds, which keep their buffers for good.
    """
    look, look_longer = look_at(descriptor), look_at(descriptor, WAIT_NS)
    clock = time.monotonic_ns
    # With a single processor the program can't go on while this looks.
    spin_ns = SPIN_NS if len(os.sched_getaffinity(0)) > 1 else 0
    checkpoint, statistics = trio.lowlevel.checkpoint, trio.lowlevel.current_statistics
    yielded, parked = clock(), 0

    async def wait_readable() -> bool:
        nonlocal yielded, parked
        traffic.count += 1
        served = True
        while True:
            if parked:
                if clock() - yielded > SLICE_NS:
                    await checkpoint()
                    yielded = clock()
                if look() > 0:
                    return True
                if served:
                    if statistics().tasks_runnable:  # what the last request has set off comes first; who stands behind
                        await checkpoint()  # this task in a turn isn't counted as runnable, so it is given two turns
                        await checkpoint()
                        yielded = clock()
                    until = clock() + spin_ns
                    while clock() < until:
                        if look() > 0:
                            return True
                    if look_longer() > 0:
                        return True
            served = False
            parked += 1
            try:
                if not await original():
                    return False
            finally:
                parked -= 1
            yielded = clock()
            if look() > 0:  # else another worker took the request while this one was being woken
                return True

    return wait_readable


def again_on_eagain(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Return a session loop that goes on when a request vanished between the look and the read."""

    async def session_loop(nursery: object, min_tasks: int, max_tasks: int) -> None:
        while True:
            try:
                return await original(nursery, min_tasks, max_tasks)
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise
                await trio.lowlevel.checkpoint()

    return session_loop


def install(descriptor: int) -> Traffic:
    """Replace pyfuse3's waiting for the session that was just opened on ``descriptor``; count its requests.

    Raises `MachineError` when this pyfuse3 doesn't have what is replaced.
    """
    module: Any = pyfuse3
    for name in (_WAIT, _LOOP):
        if not callable(getattr(module, name, None)):
            raise MachineError(
                f"pyfuse3 {pyfuse3.__version__} has no {name}.", "Install the version that pyproject.toml names."
            )
        _originals.setdefault(name, getattr(module, name))
    os.set_blocking(descriptor, False)
    traffic = Traffic()
    setattr(module, _WAIT, poll_first(descriptor, _originals[_WAIT], traffic))
    setattr(module, _LOOP, again_on_eagain(_originals[_LOOP]))
    return traffic


def restore() -> None:
    """Put pyfuse3's own functions back."""
    for name, original in _originals.items():
        setattr(pyfuse3, name, original)
    _originals.clear()
