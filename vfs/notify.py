"""Tells the kernel to forget what a change from elsewhere made stale. One dedicated thread, and nothing else calls it.

A notification can block until the kernel is done with a request on the same directory or page, and that request may
be waiting for us. So it must never be sent from a handler, from the event loop, or with a lock held: whoever changes
something puts it here and goes on, and the thread sends it without holding the interpreter lock.

The queue collapses duplicates and is bounded. When it overflows it is emptied, and `take_overflow` says so: the
caller then goes through all that the kernel can know (see `vfs.changes`).
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from typing import TYPE_CHECKING, Final

import pyfuse3

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

QUEUE_LIMIT: Final = 100_000
"""Notifications waiting; about 20 MB at most."""

STUCK_S: Final = 5.0
"""A notification under way for longer than this is logged."""

AGAIN_S: Final = (0.002, 0.02, 0.2, 1.0, 5.0)
"""Pauses before an inode that the kernel said not to know is named again: it may have been about to make it, out of
an answer to a lookup that was older than the change, and would keep those attributes until they expire."""

AGAIN_LIMIT: Final = 10_000
"""Inodes to be named again; beyond, it counts as an overflow."""

Item = tuple[int, bytes | None]
"""(directory number, name), or (inode number, None)."""


def _send(item: Item, attributes_only: bool) -> None:
    number, name = item
    if name is None:
        pyfuse3.invalidate_inode(number, attributes_only)
    else:
        pyfuse3.invalidate_entry(number, name)


class Notifier:
    """The queue and its thread. `send` may be replaced for tests of the queue itself."""

    def __init__(self, send: Callable[[Item, bool], None] = _send) -> None:
        self._send = send
        self._items: dict[Item, bool] = {}
        self._again: list[tuple[float, int, Item, bool]] = []
        self._changed = threading.Condition()
        self._overflow = False
        self._stopping = False
        self._sending = False
        self._under_way: tuple[Item, float] | None = None
        self._told: float | None = None
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._items)

    def inode(self, number: int, attributes_only: bool = False) -> None:
        """Have the kernel forget an inode's attributes and, unless ``attributes_only``, its cached pages."""
        self._put((number, None), attributes_only)

    def entry(self, directory: int, name: bytes) -> None:
        """Have the kernel forget what a name in a directory leads to, or that it leads nowhere."""
        self._put((directory, name), False)

    def _put(self, item: Item, attributes_only: bool) -> None:
        with self._changed:
            if self._stopping:
                return
            if len(self._items) >= QUEUE_LIMIT and item not in self._items:
                self._items.clear()
                self._overflow = True
            self._items[item] = attributes_only and self._items.get(item, True)
            if len(self._items) == 1:
                self._changed.notify_all()

    @property
    def has_room(self) -> bool:
        """Whether the queue is at most half full."""
        return len(self._items) <= QUEUE_LIMIT // 2

    def take_overflow(self) -> bool:
        """Return whether notifications were dropped since the last call."""
        with self._changed:
            overflow, self._overflow = self._overflow, False
            return overflow

    # -- the thread ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="wormhole-notify", daemon=True)
        self._thread.start()

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until everything put before was sent; return whether it was. Not on the event loop."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._items and not self._sending, timeout_s)

    def stop(self) -> None:
        """Have the thread end after what it is sending; what waits is dropped. Doesn't wait for it."""
        with self._changed:
            self._stopping = True
            self._items.clear()
            self._changed.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end; return whether it did. Not on the event loop."""
        if self._thread is not None:
            self._thread.join(timeout_s)
            return not self._thread.is_alive()
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._items and not self._stopping and not self._is_due():
                    self._sending = False
                    self._changed.notify_all()
                    self._changed.wait(self._pause_s())
                if self._stopping:
                    return
                batch = [(item, attributes_only, 0) for item, attributes_only in self._items.items()]
                self._items = {}
                while self._is_due():
                    _, tries, item, attributes_only = heapq.heappop(self._again)
                    batch.append((item, attributes_only, tries))
                self._sending = True
            for item, attributes_only, tries in batch:
                if self._stopping:
                    return
                self._tell(item, attributes_only, tries)

    def _is_due(self) -> bool:
        return bool(self._again) and self._again[0][0] <= time.monotonic()

    def _pause_s(self) -> float | None:
        return max(0.0, self._again[0][0] - time.monotonic()) if self._again else None

    def _tell(self, item: Item, attributes_only: bool, tries: int) -> None:
        """Send one notification; ``tries`` were made before."""
        self._under_way = (item, time.monotonic())
        try:
            self._send(item, attributes_only)
        except FileNotFoundError:
            if item[1] is None and tries < len(AGAIN_S):
                self._tell_again(item, attributes_only, tries)
        except OSError as error:
            log.warning("The kernel refused to forget %s: %s", item, error)
        except Exception:
            log.exception("Telling the kernel to forget %s failed", item)
        finally:
            self._under_way = None

    def _tell_again(self, item: Item, attributes_only: bool, tries: int) -> None:
        """Plan to name an inode again that the kernel didn't know; a name needs that not: its directory is locked."""
        with self._changed:
            if len(self._again) >= AGAIN_LIMIT:
                self._again.clear()
                self._overflow = True
            heapq.heappush(self._again, (time.monotonic() + AGAIN_S[tries], tries + 1, item, attributes_only))

    def check(self) -> bool:
        """Log a notification that hangs, once; return whether one does."""
        under_way = self._under_way
        if under_way is None or time.monotonic() - under_way[1] < STUCK_S:
            return False
        item, since = under_way
        if self._told != since:
            self._told = since
            log.error("Telling the kernel to forget %s has been stuck for %.0f s", item, time.monotonic() - since)
        return True
