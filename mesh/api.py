"""What the mesh offers to the packages above it, and what it asks of them. Types only.

The packages above know pods by id, send them requests and never see a socket. The replicated log that the mesh
spreads (metadata transactions) is known to it only as numbered opaque entries of writers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from base.ids import ClusterId, PodId, WriterId
from mesh.wire import Tag

Handler = Callable[[PodId, object], Awaitable[object]]
"""Answers one request: takes the verified sender and the body, returns the answer's body. A `WormholeError` that it
raises is raised again at the caller; any other exception is logged and reaches the caller as a `WormholeError`."""


class Lane(Enum):
    """Which connection carries a request: small and urgent, or bulk bytes, which must never delay the former."""

    CONTROL = "control"
    BULK = "bulk"


class Role(Enum):
    """What a pod is in the cluster."""

    FULL = "full"
    CLIENT = "client"


class State(Enum):
    """A member as this pod sees it; the values are those of ``wormhole pods --json``."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    ABSENT = "absent"
    MAINTENANCE = "maintenance"
    LEFT = "left"
    EVICTED = "evicted"


@dataclass(frozen=True, slots=True)
class Member:
    """One pod of the cluster, this one included."""

    pod: PodId
    name: str
    role: Role
    state: State
    address: str
    """``HOST:PORT`` where it was last reached or announced; empty when never known."""
    latency_ms: float | None
    last_seen: float | None
    """Wall-clock seconds since the epoch when it was last heard of by this pod."""
    meta: Mapping[str, object]
    """Small values that the pod publishes about itself (bytes_used, bytes_limit, affinities ...)."""
    announced: bool = False
    """An absence that the pod announced itself (``down``), or a permanent one."""


class Entry(NamedTuple):
    """One entry of a replicated log: the ``sequence``-th transaction (from 1) of ``writer``, opaque and signed."""

    writer: WriterId
    sequence: int
    blob: bytes


class ReplicatedLog(Protocol):
    """What broadcast and anti-entropy carry; implemented by ``crdt_meta``."""

    def vector(self) -> Mapping[WriterId, int]:
        """Return for each writer the last sequence that this pod has durably; nothing before it is missing that counts."""
        ...

    def read(self, writer: WriterId, after: int, limit_bytes: int) -> list[Entry]:
        """Return entries behind ``after`` in order, at least one if there is one, about ``limit_bytes``.

        Some between them may be left out: what came later made them obsolete, and the entries prove it to a log.
        """
        ...

    async def receive(self, entries: Sequence[Entry], sender: PodId) -> list[Entry]:
        """Take what follows what is here, in order; ignore the older; return those newly taken (to be forwarded).

        Entries after a gap that they don't explain are dropped: the caller sees in `vector` that something is missing
        and asks for it.
        """
        ...


class Mesh(Protocol):
    """The running mesh of one pod."""

    @property
    def pod_id(self) -> PodId:
        """This pod."""
        ...

    @property
    def cluster_id(self) -> ClusterId:
        """The cluster that it belongs to."""
        ...

    def members(self) -> list[Member]:
        """Return all pods ever admitted, sorted by name; this pod is among them."""
        ...

    def alive(self) -> frozenset[PodId]:
        """Return the pods that a request can be sent to now, without this one."""
        ...

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` (quick, must not raise) after any change of `members` or `alive`."""
        ...

    def is_behind(self) -> bool:
        """Tell whether a linked pod is known to have log entries that are missing here."""
        ...

    def publish_meta(self, values: Mapping[str, object]) -> None:
        """Gossip small values about this pod (replaces earlier ones); at most 1 KiB packed."""
        ...

    def handle(self, tag: Tag, handler: Handler) -> None:
        """Register the one handler of a request tag; before `run`."""
        ...

    async def call(
        self, pod: PodId, tag: Tag, body: object, *, timeout_s: float = 10.0, lane: Lane = Lane.CONTROL
    ) -> object:
        """Send a request and return the answer's body.

        Bodies are what msgpack carries: None, bool, int, float, str, bytes, list, dict.
        Raises `UnreachableError` when the pod can't be reached or doesn't answer in time, or the error that the
        handler raised.
        """
        ...

    def publish_log(self, entries: Sequence[Entry]) -> None:
        """Broadcast new durable entries of this pod's own log to everybody."""
        ...
