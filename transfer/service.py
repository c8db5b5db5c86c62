"""`Transfer`: the byte store of one pod, as the rest of the program sees it.

It reads, writes and keeps contents; who may see them and under which names is none of its business. Its parts are wired
here and run in one task group: if one fails, all stop, and the supervisor decides.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Collection, Iterator
from typing import Final

import anyio
import anyio.lowlevel
from anyio.abc import TaskStatus

from base import beat
from base.errors import DamagedError, MachineError, UnreachableError
from base.home import Home
from base.ids import EMPTY_CONTENT, ChunkId, ContentId, PodId, hash_bytes
from mesh.api import Mesh, Role, State
from mesh.wire import Tag
from transfer.access import Access
from transfer.api import Catalogue, Memory
from transfer.batching import SMALL_BYTES, Batches
from transfer.caching import Caching
from transfer.copies import Copies
from transfer.draft import Draft
from transfer.draft_bytes import DraftMemory
from transfer.dropping import Dropping
from transfer.fetch import Candidates
from transfer.fetcher import Fetcher, Urgency, Wanted
from transfer.figures import Figures
from transfer.gather import gather, is_whole, is_whole_kept
from transfer.holdings import Holding
from transfer.holdings_db import HoldingsDb
from transfer.holdings_sync import HoldingsSync
from transfer.lodging import Lodging
from transfer.making_room import MakingRoom
from transfer.manifest import MAX_MANIFEST_BYTES, implied
from transfer.offload import Offload
from transfer.pace import Limits
from transfer.pieces import Area
from transfer.reader import Reader
from transfer.recovery import check_recent, sweep_orphans
from transfer.releasing import Releasing
from transfer.replication import Replication
from transfer.scrubbing import Scrubbing
from transfer.serve import ChunkServer
from transfer.settings import TransferSettings
from transfer.store import MOST_WAITING_BYTES
from transfer.store_open import open_store
from transfer.striking import Striking
from transfer.surveying import Surveying

log = logging.getLogger(__name__)

MAX_OTHERS_ASKED: Final = 16
SYNC_EVERY_S: Final = 4.0
WATCH_EVERY_S: Final = 2.0


class Transfer(Copies, Figures, MakingRoom):
    """The bytes of one pod."""

    def __init__(
        self,
        home: Home,
        mesh: Mesh,
        catalogue: Catalogue,
        settings: TransferSettings,
        *,
        offload: Offload | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Open the store and the holdings; before the mesh runs. Raises `MachineError` when the store has vanished."""
        self._mesh = mesh
        self._catalogue = catalogue
        self._settings = settings
        self._offload = offload or Offload()
        self._database = HoldingsDb(home.holdings_db, self._offload)
        expected = self._database.meta("store")
        self._store = open_store(
            home.store,
            expected_id=expected if isinstance(expected, str) else None,
            offload=self._offload,
            room=settings.room,
            used=self._database.bytes_used,
            packed_bytes=settings.packed_bytes,
        )
        self._memory = catalogue if isinstance(catalogue, Memory) else None
        left_some = not self._database.was_clean or self._database.meta("orphans") == 1
        self._may_have_orphans = expected is not None and left_some  # by new books anything would be an orphan
        if expected is None:
            self._database.set_meta_now("store", self._store.store_id)
        self._fetcher = Fetcher(mesh, self._offload, settings.deadline_s, self._candidates)
        self._access = Access(self._store, self._fetcher, self._offload, settings)
        self._striking = Striking(self._catalogue, self._database, self._access, self._record)
        self._access.on_damage = self._striking.damaged
        self._server = ChunkServer(self._store, self._striking.damaged, self._fetcher.paces.up)
        self._holdings = HoldingsSync(
            mesh, self._database, self._news, self._exchanged_one, self._keeps, catalogue.is_behind
        )
        self._batches = Batches(mesh, self._fetcher, settings.deadline_s, self._candidates)
        self._caching = Caching(self._access, self._database, catalogue, self._record, self._batches)
        self._surveying = Surveying(mesh.pod_id, self._access, self._database, catalogue, mesh.alive)
        self._replication = Replication(
            mesh.pod_id,
            self._surveying,
            self._access,
            self._database,
            catalogue,
            self._caching,
            self._record,
            rng or random.Random(),
            lambda: self._holdings.knows_all(self._mesh.alive() & self._full_pods()),
            self._batches,
            mesh.alive,
        )
        self.scrubbing = Scrubbing(
            self._access, self._database, catalogue, self._caching, self._surveying, self._record, self._has_copies
        )
        self.releasing: Releasing | None = None
        """Frees what nothing refers to any more; None when nobody can tell what that is."""
        self.dropping: Dropping | None = None
        """Drops copies that are too many; None where nothing is freed."""
        self.lodging: Lodging | None = None
        """Holds for others what they have no room for; None where nothing is freed."""
        self._connect(rng or random.Random())
        self.on_used: Callable[[ContentId], None] = lambda _: None
        """Called with each content that a program of this machine opens for reading."""
        self.quota = self._access.quota
        """What all files may take together."""
        self._is_there = True
        self.on_vanished: Callable[[MachineError], None] = lambda _: None
        """Called once when the store is gone: the pod has to end."""
        self._draft_memory = DraftMemory(settings.all_drafts_bytes)
        self._brought: frozenset[ContentId] = frozenset()
        self._changed = anyio.Event()
        self._clients: dict[PodId, bool] = {}
        """The client pods, and whether they can be asked for what they wrote."""
        self._members: frozenset[tuple[PodId, Role, State, bool]] = frozenset()
        mesh.handle(Tag.CHUNK_GET, self._server.handle)
        mesh.on_change(self._members_changed)

    def _connect(self, rng: random.Random) -> None:
        """Make what gives room, and tell the parts of each other."""
        mesh, catalogue, replication = self._mesh, self._catalogue, self._replication
        self._striking.repair = self._surveying.promise
        self._surveying.on_work, self._surveying.on_pass = replication.add, replication.hurry
        replication.on_refused = self._refused
        replication.on_arrival = self._server.arrived
        self._server.coming = replication.coming
        self._fetcher.on_coming = lambda content: replication.fanning.progressed(content, anyio.current_time())
        if self._memory is None:
            return
        parts = (self._access, self._database, self._memory, self._record)
        self.releasing = Releasing(*parts, self._caching.drop, self._has_copies)
        self.releasing.busy = replication.is_busy
        self.releasing.is_promised = self._surveying.is_promised
        lodging = (mesh, self._access, self._database, self._memory)
        self.lodging = Lodging(*lodging, self.releasing.free_pieces, self._surveying.promise)
        self._access.handing.connect(mesh, self._access.claims, self._memory, self._database)
        self.dropping = Dropping(
            mesh,
            self._access,
            self._database,
            catalogue,
            self.releasing,
            self._surveying.is_surplus,
            self._copies_of,
            lambda: self._holdings.knows_all(mesh.alive() & self._full_pods()) and not catalogue.is_behind(),
            rng,
        )
        self._surveying.on_surplus = self.dropping.consider

    # -- running

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Exchange holdings, replicate, keep within limits; until cancelled. Started once reads can be answered."""
        if not self._database.was_clean:
            await check_recent(self._access, self._database, self._catalogue, self._record)
            await self._caching.sweep()
        if self._memory is not None and self._may_have_orphans:
            await sweep_orphans(self._store, self._database, self._memory, self._offload)
        if self.dropping is not None:
            await self.dropping.resume()
        try:
            async with anyio.create_task_group() as group:
                self._fetcher.start(group)
                self._access.start(group)
                group.start_soon(self._holdings.run, group)
                group.start_soon(self._surveying.run)
                self._replication.start(group)
                group.start_soon(self._caching.run)
                group.start_soon(self._sync_often)
                group.start_soon(self._watch_store)
                group.start_soon(self._access.claims.run, self._memory, self._database.holds)
                group.start_soon(self._striking.run)
                if self.releasing is not None:
                    group.start_soon(self.releasing.run)
                if self.dropping is not None:
                    group.start_soon(self.dropping.run, group)
                if self.lodging is not None:
                    group.start_soon(self.lodging.run)
                if not self._database.was_clean:
                    group.start_soon(self._offload.run, self._store.recount)
                task_status.started()
        finally:
            self._fetcher.stop()
            self._access.stop()
            with anyio.CancelScope(shield=True):
                if self._is_there:
                    await self._store.sync()

    def close(self) -> None:
        """Close files, after `run` has ended; blocking. The next start trusts the books then."""
        self._offload.close()
        leaves_some = self._store.listed > 0 or (self.releasing is not None and self.releasing.leaves_some())
        self._database.set_meta_now("orphans", int(leaves_some))
        self._database.close(self._store.bytes_used)
        self._store.close()

    async def _sync_often(self) -> None:
        while True:
            await beat.rest(SYNC_EVERY_S)
            if self._store.unsynced:
                await self._store.sync()
            if self._store.packs.untidy:
                await self._offload.run(self._store.tidy)

    async def _watch_store(self) -> None:
        """End the pod when its store is gone: nothing of it may be told to be missing, and nothing written in its place."""
        while True:
            await beat.rest(WATCH_EVERY_S)
            try:
                self._store.marker.check()  # one look at a name, as `df` of the store is asked for often
            except MachineError as error:
                self._is_there = False
                self.on_vanished(error)
                return

    # -- what the mount uses

    def open(self, content: ContentId, size: int, author: PodId | None) -> Reader:
        """Open a content for reading; nothing is read or fetched yet."""
        return Reader(self._access, content, size, author)

    @staticmethod
    def is_small(size: int) -> bool:
        """Tell whether contents of a size are fetched many at a time."""
        return 0 < size <= SMALL_BYTES

    def foresee(self, contents: Collection[tuple[ContentId, int, PodId | None]]) -> None:
        """Fetch small contents in one go, unless they are here: they will probably be read next."""
        self._caching.foresee(contents)

    def draft(
        self,
        content: ContentId = EMPTY_CONTENT,
        size: int = 0,
        author: PodId | None = None,
        *,
        expect_bytes: int = 0,
    ) -> Draft:
        """Start to change a content, copy-on-write. ``expect_bytes``: the final size, if known (very large files)."""
        return Draft(self._access, self._draft_memory, content, size, author, expect_bytes)

    async def sync(self) -> None:
        """Return when everything sealed before the call is durable. Raises `NoSpaceError`, `MachineError`."""
        with self._access.claims.syncing():
            await self._store.sync()

    @property
    def may_wait(self) -> bool:
        """Whether little of what was sealed is in memory only, so that the next `sync` may come later."""
        return self._store.waiting_bytes < MOST_WAITING_BYTES // 2

    def configure(self, settings: TransferSettings) -> None:
        """Take over other settings; what is being fetched keeps its deadline. The sizes of memory and packs stay."""
        self._settings = self._access.settings = settings
        self._fetcher.deadline_s = self._batches.deadline_s = settings.deadline_s
        self._store.room.set_limits(settings.room.limit_bytes, settings.room.full_share)
        self.reconsider()

    def limit(self, limits: Limits) -> None:
        """Limit what goes to and comes from other pods from now on."""
        self._fetcher.paces.set(limits)

    def limits(self) -> Limits:
        """Return the limits in force."""
        return self._fetcher.paces.limits

    def repairs(self, is_repair: Callable[[ContentId], bool]) -> None:
        """Set what tells whether a content is fetched because another pod that has it stays away."""
        self._fetcher.is_repair = is_repair

    def abandon(self, content: ContentId) -> None:
        """Say that a discarded draft's sealed content will never be published; its pieces go unless needed else."""
        self._access.claims.abandon(content)

    def published(self, content: ContentId) -> None:
        """Say that the tree now refers to a content of this pod: it is kept here, announced and replicated.

        A client pod keeps nothing: there it goes into the cache.
        """
        single = self._access.claims.published(content)
        if self.releasing is not None:
            self.releasing.published(content)
        self.quota.published(content)
        if self.host_of(content) is not None:
            self._surveying.consider([content])
        elif self._settings.keeps:
            self._replication.published(content, single=single)
        elif content != EMPTY_CONTENT:
            self._access.spawn(lambda: self._caching.adopt(content))

    async def read_piece(self, content: ContentId) -> bytes | None:
        """Return a content of one piece that is on this pod; None when it isn't."""
        return await self._access.local(content, ChunkId(content), 0, MAX_MANIFEST_BYTES)

    async def take(self, content: ContentId, size: int, owner: PodId, data: bytes | None = None) -> None:
        """Return once a client pod's content is here and on the disk, to be published: fetched from it or anybody else.

        ``data``: all of it, if the client sent it along. The caller publishes it before it awaits anything: until then
        nothing else says that its pieces are needed. Raises `UnreachableError`, `DamagedError`, `NoSpaceError`.
        """
        if content == EMPTY_CONTENT or self._database.own(content) is Holding.KEPT:
            return
        self._access.pinned[content] += 1
        try:
            await self._bring(content, size, owner, data)
        finally:
            self._access.unpin(content)

    async def _bring(self, content: ContentId, size: int, owner: PodId, data: bytes | None) -> None:
        manifest = implied(content, size)
        if data is not None and manifest is not None:
            if len(data) != size or hash_bytes(data) != content:
                raise DamagedError("The bytes of a file are not those that were announced.")
            await self._access.put(ChunkId(content), data, Area.KEPT)
        if manifest is None:
            manifest = await self._access.manifest(content, size, owner, Urgency.READ)
        await gather(self._access, content, manifest, owner, Area.KEPT)
        whole = is_whole_kept(self._store, content, manifest)
        await self._store.sync()
        if not whole:
            raise UnreachableError("A file didn't arrive as a whole.", "Try again.")

    @contextlib.contextmanager
    def bringing(self, contents: Collection[ContentId]) -> Iterator[None]:
        """Say that what the tree is told meanwhile are new files with these contents, `published` right afterwards.

        So nobody has to find out where they came from, and whether anything refers to them.
        """
        self._brought = frozenset(contents)
        try:
            yield
        finally:
            self._brought = frozenset()

    def noticed(self, contents: Collection[ContentId], *, lost: bool = True) -> None:
        """Say that the tree now refers to these contents, whoever wrote them, or (``lost``) perhaps no longer does."""
        if self._brought:
            contents = set(contents) - self._brought
            if not contents:
                return
        if self.releasing is not None:
            self.releasing.noticed(contents, lost=lost)
        if self.lodging is not None:
            self.lodging.noticed(contents)
        self._replication.pacing.noticed(contents, anyio.current_time())
        self._surveying.consider(contents)

    def waits(self, content: ContentId) -> bool:
        """Tell whether a content that nothing refers to is still to be freed."""
        return self.releasing is not None and self.releasing.waits(content)

    def set_fan_out(self, fan_out: int) -> None:
        """Let what is written be sent to so many pods by each that gets it."""
        self._replication.fanning.fan_out = fan_out

    def look_at(self, contents: Collection[ContentId]) -> None:
        """Say that these contents may belong elsewhere now."""
        self._surveying.consider(contents)

    def pass_every(self, pause_s: Callable[[], float]) -> None:
        """Have all contents looked at again after so long; the settings' time is the longest."""
        self._surveying.pass_every_s = pause_s

    def reconsider(self) -> None:
        """Say that placement may have changed for all contents (a new configuration); what waits to be copied is due."""
        self._replication.pacing.clear()
        self.look_at_all()

    def look_at_all(self) -> None:
        """Have all contents looked at again before long."""
        self._surveying.look_at_all()

    def loads_changed(self) -> None:
        """Say that pods are more, or less, laden than before."""
        self._surveying.loads_changed()

    async def begin_holdings_anew(self) -> None:
        """Make others forget what they know of this pod's holdings: its home was restored from an older one."""
        await self._database.begin_anew()

    async def news(self) -> None:
        """Return when who has what has changed."""
        await self._changed.wait()

    def _keeps(self, pod: PodId) -> bool:
        return self._settings.keeps if pod == self._mesh.pod_id else pod not in self._clients

    # -- inside

    def _candidates(self, wanted: Wanted, urgency: Urgency) -> Candidates:
        """Say whom to ask. Replication spares the author when others hold the content, too."""
        alive = self._mesh.alive()
        others = self._database.others(wanted.content)
        holders = {pod for pod in others if pod in alive}
        author = wanted.author
        if urgency is Urgency.BACKGROUND:
            one = self._replication.fanning.source(wanted.content, wanted.piece, anyio.current_time())
            if one is not None and one in alive:
                is_coming = one != author and one not in others
                return Candidates(frozenset({one}), frozenset(), coming=one if is_coming else None)
        spare = urgency is Urgency.BACKGROUND and bool(holders - {author})
        if author is not None and (author in alive or self._clients.get(author)):
            holders.add(author)
        rest = sorted(alive - holders)
        if not holders:  # a client that wrote it, or read it, may have it still
            rest = [*(pod for pod, is_linked in self._clients.items() if is_linked), *rest]
        rest = rest[:MAX_OTHERS_ASKED]
        return Candidates(frozenset(holders), frozenset(rest), author if spare else None)

    def _copies_of(self, content: ContentId) -> int:
        info = self._catalogue.info(content)
        return 1 if info is None else self.copies_wanted(info)

    async def _record(self, changes: dict[ContentId, Holding]) -> None:
        await self._database.record(changes)
        self._holdings.tell()
        self._signal()

    def _news(self, contents: Collection[ContentId]) -> None:
        self._surveying.consider(contents)
        self._fetcher.stir()
        self._signal()

    def _exchanged_one(self) -> None:
        self._replication.hurry()

    def _members_changed(self) -> None:
        alive = self._mesh.alive()
        found = self._mesh.members()
        self._clients = {each.pod: each.state is State.ALIVE for each in found if each.role is Role.CLIENT}
        full = (each for each in found if each.role is Role.FULL)
        members = frozenset((each.pod, each.role, each.state, each.pod in alive) for each in full)
        if members == self._members:
            return
        self._members = members
        self._holdings.look()
        self._fetcher.stir()
        self.reconsider()
        self._signal()

    def _signal(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def is_whole(self, content: ContentId, size: int) -> bool:
        """Tell whether every piece of a content is on this pod's disk, told to others or not."""
        try:
            manifest = self._access.manifest_now(content, size)
        except DamagedError:
            return False
        return manifest is not None and is_whole(self._store, content, manifest)
