"""Getting at the bytes of a content, wherever they are: memory, disk, other pods. What readers and drafts stand on."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final, Protocol

import anyio
from anyio.abc import TaskGroup

from base.errors import DamagedError, NoSpaceError
from base.ids import ChunkId, ContentId, PodId
from transfer.cache import MemoryCache
from transfer.claims import Claims
from transfer.fetcher import Fetcher, Urgency, Wanted
from transfer.handing import Handing
from transfer.manifest import MAX_MANIFEST_BYTES, Manifest, decode, implied
from transfer.offload import INLINE_BYTES, Offload
from transfer.pieces import Area
from transfer.quota import Quota
from transfer.settings import TransferSettings
from transfer.store import ChunkStore

log = logging.getLogger(__name__)

MAX_MANIFEST_CHUNKS: Final = 65_536
"""Most chunk ids of manifests kept in memory (about 6 MB)."""


FORESEEN_S: Final = 1.0
"""So long a reader waits for what was asked for with many others."""


class User(Protocol):
    """An open reader or draft."""

    def pieces(self) -> Iterable[ChunkId]:
        """Return the pieces that it may read."""
        ...


class Access:
    """The ways to bytes, shared by all readers and drafts of a pod."""

    def __init__(self, store: ChunkStore, fetcher: Fetcher, offload: Offload, settings: TransferSettings) -> None:
        self.store = store
        self.fetcher = fetcher
        self.offload = offload
        self.settings = settings
        self.memory = MemoryCache(settings.memory_bytes)
        self.claims = Claims(store, offload, self._in_use)
        self.quota = Quota()
        self.users: set[User] = set()
        """Open readers and drafts."""
        self.pinned: Counter[ContentId] = Counter()
        """Contents that open drafts build on, or that are brought here to be published: the cache doesn't drop them."""
        self.on_damage: Callable[[ContentId, ChunkId], None] = lambda _content, _piece: None
        self.on_remote_read: Callable[[ContentId, int, PodId | None], bool] = lambda _content, _size, _author: False
        """Called at the first read of a reader that needs other pods; tells whether to store what is fetched."""
        self.on_use: Callable[[ContentId], None] = lambda _content: None
        self.find_room: Callable[[], Awaitable[bool]] = _no_room
        """Called when a copy finds no room: frees what gives way; tells whether it is worth trying again."""
        self.make_room: Callable[[], Awaitable[bool]] = _no_room
        """The same for a draft, whose bytes may also be handed on."""
        self.handing = Handing()
        """What other pods hold for drafts."""
        self.foreseen: dict[ChunkId, anyio.Event] = {}
        """Small pieces that are on their way with many others → set when they are in memory, or don't come."""
        self.streams = 0
        """Readers that read ahead now; they share the memory."""
        self._manifests: OrderedDict[ContentId, Manifest] = OrderedDict()
        self._manifest_chunks = 0
        self._group: TaskGroup | None = None

    def start(self, group: TaskGroup) -> None:
        """Run background work within this task group from now on."""
        self._group = group

    def stop(self) -> None:
        """Start no more: its task group ends."""
        self._group = None

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start background work; before `start` and after `stop` there is none."""
        if self._group is not None:
            self._group.start_soon(work)

    def _in_use(self) -> set[ChunkId]:
        return {piece for user in self.users for piece in user.pieces()}

    def unpin(self, content: ContentId) -> None:
        """Take back one of the increments of `pinned`."""
        self.pinned[content] -= 1
        if self.pinned[content] <= 0:
            del self.pinned[content]

    # -- manifests

    def remember(self, content: ContentId, manifest: Manifest) -> None:
        """Keep a manifest in memory for a while."""
        if content in self._manifests:
            self._manifests.move_to_end(content)
            return
        self._manifests[content] = manifest
        self._manifest_chunks += len(manifest.chunks)
        while self._manifest_chunks > MAX_MANIFEST_CHUNKS and len(self._manifests) > 1:
            self._manifest_chunks -= len(self._manifests.popitem(last=False)[1].chunks)

    def manifest_now(self, content: ContentId, size: int) -> Manifest | None:
        """Return what a content consists of, without waiting; None when it must be read or fetched first."""
        found = implied(content, size) or self._manifests.get(content)
        if found is None:
            data = self.store.read_now(ChunkId(content), 0, MAX_MANIFEST_BYTES)
            if data is None:
                return None
            found = decode(data, size)
            self.remember(content, found)
        if found.size != size:
            raise DamagedError(
                "A file's size contradicts its list of chunks.", "Restore it from the trash or a backup."
            )
        return found

    async def manifest(self, content: ContentId, size: int, author: PodId | None, urgency: Urgency) -> Manifest:
        """Return what a content consists of, fetching the list if need be (it isn't stored).

        Raises `UnreachableError` and `DamagedError`.
        """
        found = self.manifest_now(content, size)
        if found is not None:
            return found
        piece = ChunkId(content)
        data = await self.local(content, piece, 0, MAX_MANIFEST_BYTES)
        if data is None:
            data = await self.fetcher.fetch(Wanted(content, piece, MAX_MANIFEST_BYTES, author), urgency)
            self.memory.add(piece, data)
        found = decode(data, size)
        self.remember(content, found)
        return found

    # -- chunks

    def range_now(self, piece: ChunkId, offset: int, length: int) -> bytes | None:
        """Return a range of a chunk that is in memory, ours or the kernel's; None when it isn't."""
        data = self.memory.get(piece)
        if data is not None:
            return data if not offset and length >= len(data) else data[offset : offset + length]
        return self.store.read_now(piece, offset, length)

    async def local(self, content: ContentId, piece: ChunkId, offset: int, length: int) -> bytes | None:
        """Return a range of a piece that is on this pod, or None; a damaged one is reported and counts as missing."""
        if not self.store.has(piece):
            return None  # without a thread for that: whoever waits for the first byte waits for each
        try:
            return await self.store.read(piece, offset, length)
        except DamagedError as error:
            log.warning("%s", error)
            self.on_damage(content, piece)
            return None

    async def chunk(self, wanted: Wanted, urgency: Urgency, store_in: Area | None) -> bytes:
        """Fetch a whole chunk that isn't on this pod, by way of the memory cache, and store it if asked to.

        Raises `UnreachableError`, `DamagedError`; when a copy for the cache finds no room it is only not stored.
        """
        data = self.memory.get(wanted.piece)
        if data is None and wanted.piece in self.foreseen:
            with anyio.move_on_after(FORESEEN_S):
                await self.foreseen[wanted.piece].wait()
            data = self.memory.get(wanted.piece)
        if data is None:
            data = await self.fetcher.fetch(wanted, urgency)
            if urgency is not Urgency.BACKGROUND:
                self.memory.add(wanted.piece, data)
        if store_in is not None:
            await self.put(wanted.piece, data, store_in)
        return data

    async def put(self, piece: ChunkId, data: bytes, area: Area) -> None:
        """Store a verified piece; one for the cache may be left out when there is no room (`NoSpaceError` else)."""
        try:
            if len(data) <= INLINE_BYTES:
                self.store.put_hashed(piece, data, area)
            else:
                await self.offload.run(self.store.put_hashed, piece, data, area)
        except NoSpaceError:
            if area is Area.KEPT:
                raise


async def _no_room() -> bool:
    return False
