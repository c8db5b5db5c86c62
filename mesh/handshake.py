"""How two pods become sure of each other after TLS: HELLO, roster exchange, check, READY.

The dialer speaks first. Both name their protocol versions, cluster, pod and a random number of the running process.
When their rosters differ they exchange what the other lacks, *then* each judges the other by its roster: certificate,
admission, eviction. Then they introduce themselves: which incarnation each is, and whether another process goes by its
name. Only when both said READY does anything else pass.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import anyio

from base.errors import DamagedError, NamesakeError, RefusedError, UnreachableError, WormholeError, from_wire, to_wire
from base.ids import ClusterId, PodId
from mesh.api import Lane
from mesh.channel import Channel
from mesh.identity import CertificateInfo, read_certificate
from mesh.introduction import Chronicle, RestoredError, introduce
from mesh.namesakes import UNKNOWN_AGE, namesake
from mesh.roster import ID_BYTES, Roster
from mesh.wire import OLDEST_VERSION, PROTOCOL_VERSION, Frame, Kind, ProtocolError, Tag, encode

HANDSHAKE_S: Final = 10.0
"""Deadline of TLS, and again of what this module does."""
PAGE_BYTES: Final = 1 << 20
MAX_PAGES: Final = 4096
PROCESS_BYTES: Final = 8
MAX_AGE_MS: Final = 1 << 53


def new_process_id() -> bytes:
    """Return a number for this run of the pod: a link of an earlier run is recognised by it."""
    return os.urandom(PROCESS_BYTES)


@dataclass(frozen=True, slots=True)
class Hello:
    """What a pod says first."""

    oldest: int
    newest: int
    cluster: ClusterId
    pod: PodId
    process: bytes
    lane: Lane
    digest: bytes
    port: int
    """Where it listens."""
    dial: int
    """The dialer's number of this attempt, growing; of two links dialled by one process the later is kept."""
    age_ms: int = UNKNOWN_AGE
    """How long the process has run."""
    introduces: bool = False
    """Whether it tells of its starts (`mesh.introduction`); pods of the first versions don't."""

    def body(self) -> dict[str, Any]:
        """Return the message's body."""
        return {
            "versions": [self.oldest, self.newest],
            "cluster": self.cluster,
            "pod": self.pod,
            "process": self.process,
            "lane": self.lane.value,
            "digest": self.digest,
            "port": self.port,
            "dial": self.dial,
            "age_ms": self.age_ms,
            "introduces": self.introduces,
        }


def read_hello(frame: Frame) -> Hello:
    """Return the HELLO in a frame; keys that a newer version adds are ignored. Raises `ProtocolError`."""
    if frame.tag == Tag.GOODBYE:
        raise from_wire(frame.body)
    if frame.tag == Tag.HELLO:
        match frame.body:
            case {
                "versions": [int(oldest), int(newest)],
                "cluster": str(cluster),
                "pod": str(pod),
                "process": bytes(process),
                "lane": ("control" | "bulk") as lane,
                "digest": bytes(digest),
                "port": int(port),
                "dial": int(dial),
            } if len(process) == PROCESS_BYTES and 0 <= port <= 65535:
                age_ms, introduces = frame.body.get("age_ms"), frame.body.get("introduces") is True
                age_ms = age_ms if type(age_ms) is int and 0 <= age_ms < MAX_AGE_MS else UNKNOWN_AGE
                who = (ClusterId(cluster), PodId(pod), process)
                return Hello(oldest, newest, *who, Lane(lane), digest, port, dial, age_ms, introduces)
    raise ProtocolError("The other side didn't introduce itself as a pod.")


def common_version(mine: Hello, theirs: Hello) -> int:
    """Return the newest version that both speak. Raises `RefusedError` naming what is too old."""
    version = min(mine.newest, theirs.newest)
    if version >= max(mine.oldest, theirs.oldest):
        return version
    behind = "This pod" if mine.newest < theirs.oldest else f"The pod {theirs.pod}"
    raise RefusedError(
        f"{behind} speaks protocol versions that the other side no longer knows "
        f"({mine.oldest}-{mine.newest} here, {theirs.oldest}-{theirs.newest} there).",
        "Install the newer Wormhole on it.",
    )


@dataclass(frozen=True, slots=True)
class Local:
    """This side of a handshake."""

    pod: PodId
    process: bytes
    port: int
    roster: Roster
    learn: Callable[[list[bytes], PodId], Awaitable[None]]
    """Adds records, durably, before it returns."""
    age_ms: int = 0
    """How long this process has run."""
    chronicle: Chronicle | None = None
    turned_away: Callable[[Hello], Awaitable[NamesakeError | None]] | None = None
    """Returns what the other side is told if another process with its key is linked and must be preferred."""

    def hello(self, lane: Lane, dial: int) -> Hello:
        """Return what this pod says first."""
        return Hello(
            OLDEST_VERSION,
            PROTOCOL_VERSION,
            self.roster.cluster_id,
            self.pod,
            self.process,
            lane,
            self.roster.digest(),
            self.port,
            dial,
            self.age_ms,
            self.chronicle is not None,
        )


@dataclass(frozen=True, slots=True)
class Peer:
    """A verified other side."""

    pod: PodId
    process: bytes
    lane: Lane
    version: int
    host: str
    port: int
    """Where it listens; ``host`` is the address that it was seen under."""
    local_host: str
    dial: int
    """The dialer's number of the attempt (see `Hello`)."""
    age_ms: int = UNKNOWN_AGE
    """How long it had run when it said hello."""


@dataclass(frozen=True, slots=True)
class Dial:
    """What the dialing side wants."""

    lane: Lane
    number: int
    expected: PodId | None = None
    """The only pod that will do."""


async def greet(channel: Channel, local: Local, dial: Dial | None) -> Peer:
    """Do the handshake and return the verified peer. ``dial`` is None on the side that was dialled.

    The caller closes the channel on any error. Raises `RefusedError` when either side refuses, `ProtocolError`,
    `ConnectionLostError`, and `UnreachableError` after a deadline.
    """
    try:
        with anyio.fail_after(HANDSHAKE_S):
            return await _greet(channel, local, dial)
    except TimeoutError:
        raise UnreachableError("The other side didn't finish the handshake in time.") from None


async def _greet(channel: Channel, local: Local, dial: Dial | None) -> Peer:
    der = channel.peer_certificate
    if der is None:
        raise ProtocolError("The other side showed no certificate.")
    channel.set_kind(Kind.CONTROL)
    try:
        certificate = read_certificate(der)
        if dial is not None:
            mine = local.hello(dial.lane, dial.number)
            await channel.send(encode(Tag.HELLO, mine.body()))
            theirs = read_hello(await channel.receive())
        else:
            theirs = read_hello(await channel.receive())
            mine = local.hello(theirs.lane, theirs.dial)
            await channel.send(encode(Tag.HELLO, mine.body()))
        version = _check_hello(mine, theirs, certificate, dial.expected if dial else None)
        if local.roster.entry(theirs.pod) is None and not local.roster.introduces(certificate.issuer):
            raise RefusedError(
                f"The pod {theirs.pod} was certified by a pod that is no member that administers.", "Join the cluster."
            )
        if theirs.digest != mine.digest and mine.lane is Lane.CONTROL:
            await _exchange(channel, local, theirs.pod)
        judge(local.roster, certificate)
        if local.turned_away is not None and (double := await local.turned_away(theirs)) is not None:
            await refuse(channel, double)
            raise UnreachableError(f"The pod {theirs.pod} is linked already, as an earlier process.")
        if local.chronicle is not None and theirs.introduces and mine.lane is Lane.CONTROL:
            await introduce(channel, local.chronicle, theirs.pod)
        await channel.send(encode(Tag.READY, None))
        await _expect_ready(channel)
    except (RefusedError, DamagedError) as error:
        mine_only = isinstance(error, NamesakeError | RestoredError)
        await refuse(channel, RefusedError(error.message) if mine_only else error)
        raise
    if mine.lane is Lane.BULK:
        channel.set_kind(Kind.BULK)
    host, _ = channel.remote
    who = (theirs.pod, theirs.process, mine.lane, version)
    return Peer(*who, host, theirs.port, channel.local_host, mine.dial, theirs.age_ms)


def judge(roster: Roster, certificate: CertificateInfo) -> None:
    """Raise `RefusedError` unless the roster knows the certificate's pod as a member with that key and role."""
    entry = roster.entry(certificate.pod)
    if entry is None:
        raise RefusedError(f"The pod {certificate.pod} was never admitted to this cluster.", "Join the cluster.")
    if entry.revoked:
        raise RefusedError(f"The pod {entry.name} was evicted from this cluster.", "Join it anew from another home.")
    if entry.left:
        raise RefusedError(f"The pod {entry.name} left this cluster.", "Join it anew from another home.")
    if entry.role is not certificate.role or entry.public_key != certificate.public_key:
        raise RefusedError(f"The certificate of the pod {entry.name} contradicts its admission.", "Join anew.")


async def refuse(channel: Channel, error: WormholeError) -> None:
    """Tell the other side why the connection ends, as far as it still listens."""
    with anyio.move_on_after(1.0):
        try:
            await channel.send(encode(Tag.GOODBYE, to_wire(error)))
        except (UnreachableError, DamagedError):
            return


def _check_hello(mine: Hello, theirs: Hello, certificate: CertificateInfo, expected: PodId | None) -> int:
    if certificate.cluster != mine.cluster or theirs.cluster != mine.cluster:
        raise RefusedError("The other side belongs to another cluster.", "Check the addresses in `peers`.")
    if theirs.pod != certificate.pod:
        raise ProtocolError("The other side's certificate is that of another pod.")
    if theirs.pod == mine.pod:
        if theirs.process == mine.process:
            raise SelfDialledError("This address is this pod's own.")
        if (mine.age_ms, mine.process) < (theirs.age_ms, theirs.process):
            raise namesake()
        raise RefusedError("A copy of this pod's home runs elsewhere.", "It stops; use one home on one machine only.")
    if expected is not None and theirs.pod != expected:
        raise RefusedError("Another pod answers at this address.")
    if theirs.lane is not mine.lane:
        raise ProtocolError("The other side opened another lane.")
    return common_version(mine, theirs)


class SelfDialledError(RefusedError):
    """A candidate address turned out to be this pod's own."""


async def _expect_ready(channel: Channel) -> None:
    frame = await channel.receive()
    if frame.tag == Tag.GOODBYE:
        raise from_wire(frame.body)
    if frame.tag != Tag.READY:
        raise ProtocolError("The other side sent something before it was ready.")


async def _exchange(channel: Channel, local: Local, sender: PodId) -> None:
    """Send each other the records that the other lacks.

    An evicted pod is told only that it is one, and nothing of it is believed but what the recovery key signed: that may
    say that it was evicted wrongly.
    """
    theirs: list[bytes] = []
    known = anyio.Event()
    deaf = local.roster.is_revoked(sender)
    failure: WormholeError | None = None

    async def tell() -> None:
        nonlocal failure
        try:
            ids = b"" if local.roster.is_revoked(sender) else local.roster.ids()
            await channel.send(encode(Tag.ROSTER, {"ids": ids}))
            await known.wait()
            await local.learn([], sender)  # waits until what is known here is on the disk, too
            roster = local.roster
            missing = roster.evictions() if roster.is_revoked(sender) else roster.missing_in(theirs[0])
            for records, more in pages(missing):
                await channel.send(encode(Tag.ROSTER, {"records": records, "more": more}))
        except WormholeError as error:
            failure = error
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(tell)
        try:
            theirs.append(read_ids(await channel.receive()))
            known.set()
            for _ in range(MAX_PAGES):
                records, more = read_page(await channel.receive())
                if deaf:
                    records = local.roster.of_recovery(records)
                if records:
                    await local.learn(records, sender)
                if not more:
                    break
        except WormholeError as error:
            failure = error
            group.cancel_scope.cancel()
    if failure is not None:
        raise failure


def pages(records: Iterable[bytes]) -> Iterator[tuple[list[bytes], bool]]:
    """Cut records into pages of about 1 MiB; the flag tells whether another follows. At least one page."""
    page: list[bytes] = []
    size = 0
    for record in records:
        if page and size + len(record) > PAGE_BYTES:
            yield page, True
            page, size = [], 0
        page.append(record)
        size += len(record)
    yield page, False


def read_ids(frame: Frame) -> bytes:
    """Return the record ids in a ROSTER frame. Raises `ProtocolError`, or the error that the peer closed with."""
    if frame.tag == Tag.GOODBYE:
        raise from_wire(frame.body)
    if frame.tag == Tag.ROSTER:
        match frame.body:
            case {"ids": bytes(ids)} if len(ids) % ID_BYTES == 0:
                return ids
    raise ProtocolError("A roster message is malformed.")


def read_page(frame: Frame) -> tuple[list[bytes], bool]:
    """Return the records in a ROSTER frame and whether more follow. Raises as `read_ids`."""
    if frame.tag == Tag.GOODBYE:
        raise from_wire(frame.body)
    if frame.tag == Tag.ROSTER:
        match frame.body:
            case {"records": list(records), "more": bool(more)} if all(isinstance(each, bytes) for each in records):
                return records, more
    raise ProtocolError("A roster message is malformed.")
