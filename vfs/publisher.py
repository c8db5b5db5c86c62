"""Brings sealed contents into the tree, in batches: bytes on the disk first, then the record that names them.

Closing a file only seals it and queues it here. A batch is: one ``transfer.sync()`` for everything sealed before it,
then one record a file, then a request to commit. So the tree never refers to bytes that a power cut can take away.

Must never: publish a file removed here; forget a failed publication (it is tried again with growing pauses, and told to
the next fsync or close of the file); publish bytes that were sealed after the batch's sync began.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Final

import anyio

from base.errors import FileSystemError, WormholeError
from base.ids import EMPTY_CONTENT
from vfs.livefile import SealedContent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from base.ids import InodeId
    from crdt_meta.committer import Committer
    from crdt_meta.tree import Tree
    from transfer.service import Transfer
    from vfs.changes import Changes
    from vfs.graveyard import Graveyard
    from vfs.livefile import LiveFile, LiveFiles
    from vfs.nursery import Newborn, Nursery

log = logging.getLogger(__name__)

QUEUE_LIMIT: Final = 4096
"""Files waiting for publication; further closes wait for room."""

SLICE: Final = 64
"""Records written between two turns of the other tasks."""

PAUSE_S: Final = 0.004
"""Between two batches, unless somebody waits for one: a large batch costs hardly more than a small one (s)."""

STEADY_S: Final = 0.4
"""The same in the long run while files keep being closed (s) ..."""

QUIET_S: Final = 0.003
"""... without a pause as long as this (s)."""

AT_ONCE: Final = 2
"""... but so many batches may follow each other at `PAUSE_S` after a rest."""

OPEN_S: Final = 0.01
"""A file that is open for longer than this enters the tree without what is being written to it (s)."""

FIRST_RETRY_S: Final = 0.5
LAST_RETRY_S: Final = 30.0


class Publisher:
    """The queue of sealed files and the task that publishes them."""

    def __init__(
        self,
        tree: Tree,
        committer: Committer,
        transfer: Transfer,
        files: LiveFiles,
        changes: Changes,
        nursery: Nursery,
        graves: Graveyard,
    ) -> None:
        self._tree = tree
        self._committer = committer
        self._transfer = transfer
        self._files = files
        self._changes = changes
        self._nursery = nursery
        self._graves = graves
        self._queue: dict[InodeId, LiveFile] = {}
        self._closed = 0
        self._under_way: dict[InodeId, LiveFile] = {}
        self._wake = anyio.Event()
        self._done = anyio.Event()
        self._urgent = anyio.Event()
        self._retry_s = FIRST_RETRY_S
        self._failure: WormholeError | None = None
        """Why the last batch failed."""

    def __len__(self) -> int:
        return len(self._queue) + len(self._under_way)

    # -- what handlers call -------------------------------------------------------------------------------------------

    def queue(self, live: LiveFile) -> None:
        """Have what is sealed of a file published soon."""
        if live.sealed is None or live.unlinked:
            return
        live.queued = True
        self._closed += 1
        self._queue[live.inode] = live
        self._wake.set()

    def expect(self) -> None:
        """Note that a file was made that isn't in the tree yet, or that a name was removed that still is."""
        self._closed += 1
        self._wake.set()

    def deliver(self, newborns: Iterable[Newborn]) -> None:
        """Have files in the tree now, without what was written to them: that follows as usual."""
        self._bear([(newborn, None) for newborn in newborns])

    def bury(self, most: int | None = None) -> None:
        """Have the names that were removed out of the tree now: all, or the oldest."""
        if not self._graves:
            return
        graves = self._graves.take(len(self._graves) if most is None else most)
        with self._changes.own(*((grave.directory, grave.name) for grave in graves)):
            self._tree.bury([grave.removal for grave in graves])
        for grave in graves:
            self._graves.leave(grave)
            if self._tree.get(grave.node.inode) is None:
                self._changes.names.gone(grave.directory, grave.name)
            else:  # another pod changed it meanwhile
                self._changes.forget_names([(grave.directory, grave.name)])
        self._committer.request()

    @property
    def has_room(self) -> bool:
        """Whether `room` wouldn't wait, and nothing has to hurry."""
        return len(self._queue) < QUEUE_LIMIT // 2 and self._transfer.may_wait

    async def room(self) -> None:
        """Wait until the queue has room for one more. Raises what keeps the queue from getting shorter."""
        if not self.has_room:
            self._urgent.set()
        while len(self._queue) >= QUEUE_LIMIT:
            if self._failure is not None:
                raise self._failure
            self._urgent.set()
            await self._done.wait()

    async def settle(self, live: LiveFile) -> None:
        """Wait until what was queued of a file is in the tree. Raises what kept it from getting there."""
        while live.queued and not live.unlinked:
            if live.error is not None:
                raise live.error
            self._urgent.set()
            await self._done.wait()

    async def settle_all(self) -> None:
        """Wait until everything queued before the call was published, or failed."""
        self.bury()
        self.deliver(one for one in self._nursery if not self._is_queued(one))
        for live in [*self._under_way.values(), *self._queue.values()]:
            while live.queued and live.error is None and not live.unlinked:
                self._urgent.set()
                await self._done.wait()

    async def journal(self, live: LiveFile) -> None:
        """Make the file's content durable for this pod alone; published at the latest at the next start.

        The caller waits for the commit if it wants to know it on the disk.
        """
        if self._journal_writes(live):
            return
        await live.seal()
        sealed = live.sealed
        await self._transfer.sync()
        if sealed is None or live.sealed is None or live.unlinked:
            return  # published meanwhile, or nothing to keep
        if live.journalled is None or live.journalled.number < sealed.number:
            live.journalled = sealed
            self.moved(live)
            self._tree.forget_journal_writes(live.inode)
            if live.sealed is sealed and not live.dirty:
                live.recent.start(sealed.content, sealed.size)

    def _journal_writes(self, live: LiveFile) -> bool:
        """Journal what was written last as it is, if little else happened; tell whether that is enough."""
        base = live.recent.base
        if base is None or not live.dirty or (live.sealed is not None and live.sealed is not live.journalled):
            return False
        if live.journalled is None:
            if base[0] != EMPTY_CONTENT and self._transfer.local(base[0]) != "kept":
                return False
        elif live.journalled[1:] != base:
            return False
        writes = live.recent.take()
        if writes is None:
            return False
        if live.journalled is None:
            live.journalled = SealedContent(0, *base)
        self._tree.journal_writes(live.inode, writes)
        self.moved(live)
        return True

    def moved(self, live: LiveFile) -> None:
        """Write down the journalled content of a file anew: its link, time, or the contents it replaces changed."""
        kept = live.journalled
        if kept is not None:
            self._tree.journal(live.inode, live.link, kept.content, kept.size, live.mtime_ns, live.shown)

    def removed(self, live: LiveFile) -> None:
        """Note that the last name of a file was removed here: it will never be published."""
        live.unlinked = True
        live.queued = False
        self._queue.pop(live.inode, None)
        if live.journalled is not None:
            self._tree.forget_journal(live.inode)
            live.journalled = None
        self._finished()

    # -- the task -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Publish until cancelled."""
        free_at = anyio.current_time()  # one batch a STEADY_S would end at this time
        while True:
            await self._work_there()
            self._urgent = anyio.Event()
            now = anyio.current_time()
            free_at = max(free_at, now - AT_ONCE * STEADY_S) + STEADY_S
            if await self._batch():
                await self._pause(free_at)
            else:
                await anyio.sleep(self._retry_s)
                self._retry_s = min(2 * self._retry_s, LAST_RETRY_S)

    async def _work_there(self) -> None:
        """Wait until a file was closed, a name removed, or a file that was made some time ago is still open."""
        while not self._queue and not self._graves:
            self._wake = anyio.Event()
            wait_s = math.inf
            if self._nursery:
                made_at_s = min(one.made_at_s for one in self._nursery)
                wait_s = made_at_s + OPEN_S - time.monotonic()
                if wait_s <= 0:
                    return
            with anyio.move_on_after(wait_s):
                await self._wake.wait()

    async def _pause(self, until: float) -> None:
        """Wait for company: until no file was closed for a moment or one is waited for, at most until a time."""
        now = anyio.current_time()
        least = now + PAUSE_S
        while not self._urgent.is_set() and now < until:
            before = self._closed
            with anyio.move_on_after(QUIET_S):
                await self._urgent.wait()
            now = anyio.current_time()
            if now >= least and self._closed == before:
                return

    async def finish(self) -> None:
        """Seal and publish everything that is left (once no handler runs any more); failures are logged."""
        for live in self._files:
            if live.unlinked:
                continue
            try:
                await live.seal()
            except (WormholeError, OSError) as error:
                log.error("What was last written to a file is lost: %s", error)
                continue
            self.queue(live)
        while self._queue or self._nursery or self._graves:
            if not await self._batch(everything=True):
                log.error("%d files could not be published", len(self._queue))
                break
        try:
            await self._committer.durable()
        except WormholeError as error:
            log.error("What was published last is not on the disk: %s", error)

    async def _batch(self, *, everything: bool = False) -> bool:
        """Publish what is queued now; return False when that failed and should be tried again later.

        With ``everything`` files that were only just made, too.
        """
        batch, self._queue = self._queue, {}
        self._under_way = batch
        sealed = [(live, live.sealed) for live in batch.values() if live.sealed is not None]
        failure: WormholeError | None = None
        try:
            await self._bury_waiting()
            await self._transfer.sync()
            before_s = math.inf if everything else time.monotonic() - OPEN_S
            await self._deliver_open(before_s)
            await self._write_records(sealed)
        except (WormholeError, OSError) as error:
            failure = error if isinstance(error, WormholeError) else WormholeError(str(error), errno=error.errno)
            log.error("Publishing %d files failed: %s", len(batch), failure)
        except Exception as error:
            failure = WormholeError(f"Publishing failed: {type(error).__name__}.")
            log.exception("Publishing %d files failed unexpectedly", len(batch))
        finally:
            self._failure = failure
            self._under_way = {}
            for live in batch.values():
                if live.queued and live.sealed is not None and not live.unlinked:
                    live.error = failure
                    self._queue.setdefault(live.inode, live)
                self._files.settle(live)
            self._finished()
        if failure is None:
            self._retry_s = FIRST_RETRY_S
        return failure is None

    async def _write_records(self, sealed: list[tuple[LiveFile, SealedContent]]) -> None:
        born = [(live, content) for live, content in sealed if live.newborn is not None]
        for start in range(0, len(born), SLICE):
            some = born[start : start + SLICE]
            self._bear([(live.newborn, (live, content)) for live, content in some if live.newborn is not None])
            if len(some) == SLICE:
                await anyio.lowlevel.checkpoint()
        done = {live.inode for live, _ in born}
        for index, (live, content) in enumerate(sealed, start=1):
            if not live.unlinked and (live.inode not in done or live.sealed is content):
                try:
                    self._publish(live, content)
                except FileSystemError as error:
                    log.error("A written file has no place in the tree: %s", error)
                    live.error = error
                    live.sealed, live.queued = None, False
            if index % SLICE == 0:
                await anyio.lowlevel.checkpoint()
        self._committer.request()

    def _publish(self, live: LiveFile, sealed: SealedContent) -> None:
        tree = self._tree
        with self._changes.publishing(live.inode):
            node = tree.publish(
                live.inode, live.link, sealed.content, sealed.size, live.mtime_ns, live.shown, live.ctime_ns
            )
        self._changes.names.renewed(node)
        live.published(node, sealed)
        live.error = None
        if live.journalled is not None and live.journalled.number <= sealed.number:
            tree.forget_journal(live.inode)
            live.journalled = None
        self.moved(live)
        self._transfer.published(sealed.content)

    async def _bury_waiting(self) -> None:
        for _ in range(0, len(self._graves), SLICE):
            self.bury(SLICE)
            await anyio.lowlevel.checkpoint()

    async def _deliver_open(self, before_s: float) -> None:
        """Deliver files that were made before a time and that nobody closed since."""
        born = [one for one in self._nursery if one.made_at_s <= before_s and not self._is_queued(one)]
        for start in range(0, len(born), SLICE):
            self.deliver(born[start : start + SLICE])
            await anyio.lowlevel.checkpoint()

    def _is_queued(self, newborn: Newborn) -> bool:
        live = self._files.get(newborn.node.inode)
        return live is not None and live.queued

    def _bear(self, newborns: Iterable[tuple[Newborn, tuple[LiveFile, SealedContent] | None]]) -> None:
        """Let files enter the tree, with what is sealed of them."""
        tree, nursery, graves = self._tree, self._nursery, self._graves
        born: list[tuple[Newborn, LiveFile | None, SealedContent | None]] = []
        for newborn, content in newborns:
            live = self._files.get(newborn.node.inode)
            if graves.has(newborn.directory, newborn.name):  # the name had another file before
                self.bury()
            if nursery.get(newborn.node.inode) is newborn:
                born.append((newborn, live, None if content is None else content[1]))
                if live is not None:
                    live.shown = (tree.dot_of(newborn.changed),)
        if not born:
            return
        files = [
            newborn.unborn(sealed, newborn.node.mtime_ns if live is None or sealed is None else live.mtime_ns)
            for newborn, live, sealed in born
        ]
        own = self._changes.own(*((one.directory, one.name) for one in files))
        with own, self._transfer.bringing([one.content for one in files]):
            tree.bear(files)
        for newborn, live, sealed in born:
            nursery.leave(newborn)
            node = tree.get(newborn.node.inode)
            if node is not None:
                self._changes.names.made(newborn.directory, newborn.name, node)
            if live is not None:
                live.born(node or newborn.node._replace(shown=live.shown), sealed)
            if sealed is not None:
                self._transfer.published(sealed.content)
            if tree.has_conflicts:
                self._changes.forget_names([(newborn.directory, newborn.name)])
        self._committer.request()

    def _finished(self) -> None:
        done, self._done = self._done, anyio.Event()
        done.set()
