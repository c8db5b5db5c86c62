"""A network inside one process: carries packed messages between pods, with delay, loss, bandwidth and cuts."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import anyio
import msgpack

from base.errors import UnreachableError, WormholeError, from_wire, to_wire
from base.ids import ClusterId, ContentId, PodId
from mesh.api import Entry, Handler, Lane, Member, Role, State
from mesh.wire import Tag
from transfer.api import ContentInfo
from transfer.chunking import is_single


@dataclass
class Network:
    """All pods, and what happens to messages between them."""

    delay_s: float = 0.0
    loss: float = 0.0
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    upload_bytes_per_s: dict[PodId, float] = field(default_factory=dict)
    pods: dict[PodId, LocalMesh] = field(default_factory=dict)
    silent: set[PodId] = field(default_factory=set)
    """Pods that don't answer and aren't known to be away."""
    requests: list[tuple[PodId, PodId, Tag, object]] = field(default_factory=list)

    def add(self, number: int) -> LocalMesh:
        pod = PodId(f"{number:032x}")
        mesh = LocalMesh(self, pod)
        self.pods[pod] = mesh
        self.changed()
        return mesh

    def changed(self) -> None:
        for mesh in self.pods.values():
            for listener in mesh.listeners:
                listener()

    def set_up(self, pod: PodId, up: bool) -> None:
        self.pods[pod].up = up
        self.changed()


class LocalMesh:
    """One pod's view of the network; has the shape of `mesh.api.Mesh`."""

    def __init__(self, network: Network, pod: PodId) -> None:
        self.network = network
        self._pod = pod
        self.up = True
        self.listeners: list[Callable[[], None]] = []
        self.handlers: dict[Tag, Handler] = {}
        self.on_content: Callable[[Collection[ContentId]], None] | None = None
        self.sent_bytes = 0
        self._line_free_at = 0.0

    @property
    def pod_id(self) -> PodId:
        return self._pod

    @property
    def cluster_id(self) -> ClusterId:
        return ClusterId("c" * 32)

    def members(self) -> list[Member]:
        return [
            Member(pod, pod[-2:], Role.FULL, State.ALIVE if mesh.up else State.SUSPECT, "", None, None, {})
            for pod, mesh in sorted(self.network.pods.items())
        ]

    def is_behind(self) -> bool:
        return False

    def alive(self) -> frozenset[PodId]:
        if not self.up:
            return frozenset()
        return frozenset(pod for pod, mesh in self.network.pods.items() if mesh.up and pod != self._pod)

    def on_change(self, listener: Callable[[], None]) -> None:
        self.listeners.append(listener)

    def publish_meta(self, values: Mapping[str, object]) -> None:
        raise NotImplementedError

    def publish_log(self, entries: Sequence[Entry]) -> None:
        raise NotImplementedError

    def handle(self, tag: Tag, handler: Handler) -> None:
        self.handlers[tag] = handler

    async def call(
        self, pod: PodId, tag: Tag, body: object, *, timeout_s: float = 10.0, lane: Lane = Lane.CONTROL
    ) -> object:
        network = self.network
        network.requests.append((self._pod, pod, tag, body))
        server = network.pods[pod]
        started_at = anyio.current_time()
        with anyio.move_on_after(timeout_s):
            await self._carry(server)
            try:
                answer = await server.handlers[tag](self._pod, _packed(body))
            except WormholeError as error:
                raise from_wire(_packed(to_wire(error))) from None
            size = len(msgpack.packb(answer, use_bin_type=True))
            await server._send(size)
            await server._carry(self)
            return _packed(answer)
        assert anyio.current_time() - started_at >= timeout_s * 0.99
        raise UnreachableError("no answer")

    async def _carry(self, to: LocalMesh) -> None:
        network = self.network
        await anyio.sleep(network.delay_s)
        if not (self.up and to.up):
            raise UnreachableError("not connected")
        if {self._pod, to._pod} & network.silent or network.rng.random() < network.loss:
            await anyio.sleep_forever()

    async def _send(self, size: int) -> None:
        self.sent_bytes += size
        rate = self.network.upload_bytes_per_s.get(self._pod)
        if rate is not None:
            now = anyio.current_time()
            self._line_free_at = max(now, self._line_free_at) + size / rate
            await anyio.sleep_until(self._line_free_at)


def _packed(body: object) -> object:
    packed = msgpack.packb(body, use_bin_type=True)
    assert len(packed) < 2 << 20
    return msgpack.unpackb(packed, raw=False)


class Shelf:
    """The catalogue that all pods share: what exists and who should keep it (by rank)."""

    def __init__(self, pods: Sequence[PodId]) -> None:
        self.infos: dict[ContentId, ContentInfo] = {}
        self.pods = list(pods)
        self.journal: dict[ContentId, int] = {}
        self.durable = anyio.Event()
        self.durable.set()
        self.placement: dict[ContentId, list[PodId]] = {}

    def add(self, info: ContentInfo, placed: Sequence[PodId] | None = None) -> None:
        self.infos[info.content] = info
        if placed is not None:
            self.placement[info.content] = list(placed)

    def contents(self, after: ContentId | None, limit: int) -> Sequence[tuple[ContentId, int]]:
        return [(info.content, info.size) for info in self.page(after, limit)]

    def large_contents(self, after: ContentId | None, limit: int) -> Sequence[tuple[ContentId, int]]:
        found = sorted(one for one in self.infos if not is_single(self.infos[one].size))
        return [(one, self.infos[one].size) for one in found if after is None or one > after][:limit]

    def refers(self, content: ContentId) -> bool:
        return content in self.infos

    def journalled(self) -> Sequence[tuple[ContentId, int]]:
        return list(self.journal.items())

    async def settled_journal(self) -> Collection[ContentId]:
        journalled = set(self.journal)
        await self.durable.wait()
        return journalled

    def info(self, content: ContentId) -> ContentInfo | None:
        return self.infos.get(content)

    def page(self, after: ContentId | None, limit: int) -> Sequence[ContentInfo]:
        order = sorted(content for content in self.infos if after is None or content > after)
        return [self.infos[content] for content in order[:limit]]

    def is_behind(self) -> bool:
        return False

    def place(self, info: ContentInfo) -> Sequence[PodId]:
        if info.content in self.placement:
            return self.placement[info.content][: info.copies]
        others = [pod for pod in self.pods if pod != info.author]
        return [info.author, *others][: info.copies]


async def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait for a condition; fails after ``timeout_s`` of the running clock."""
    with anyio.fail_after(timeout_s):
        while not condition():
            await anyio.sleep(0.01)
