"""Tells the kernel to forget what a change from elsewhere made stale. One dedicated thread, and nothing else calls it.

A notification can block until the kernel is done with a request on the same directory or page, and that request may
be waiting for us. So it must never be sent from a handler, from the event loop, or with a lock held: whoever changes
something puts it here and goes on, and the thread sends it without holding the interpreter lock.

The queue collapses duplicates and is bounded. When it overflows it is emptied, and `take_overflow` says so: the
caller then goes through all that the kernel can know (see `vfs.changes`).
"""

from __future__ import annotations

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
                while not self._items and not self._stopping:
                    self._sending = False
                    self._changed.notify_all()
                    self._changed.wait()
                if self._stopping:
                    return
                batch, self._items = self._items, {}
                self._sending = True
            for item, attributes_only in batch.items():
                if self._stopping:
                    return
                self._under_way = (item, time.monotonic())
                try:
                    self._send(item, attributes_only)
                except FileNotFoundError:
                    pass  # The kernel didn't know it.
                except OSError as error:
                    log.warning("The kernel refused to forget %s: %s", item, error)
                except Exception:
                    log.exception("Telling the kernel to forget %s failed", item)
                finally:
                    self._under_way = None

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
