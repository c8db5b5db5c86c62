"""The messages of membership: what they look like on the wire, and the only place that reads them. Pure.

Every message is a list ``[kind, ..., updates]``. An update is a pod's record about itself (packed bytes, so that it is
passed on as it is and read once, however often it comes) or an accusation (a list). Whatever arrives is checked here
for type, length and range, and refused whole with `MalformedError`; behind this module all is well-formed.

Kinds are append-only. What a newer version adds is skipped: messages and updates of unknown kinds, fields behind the
known ones. Those of a record are kept and passed on.

    PING    [1, nonce, updates, sum, heard] ACK     [2, nonce, updates, sum]
    REQUEST [3, nonce, target, updates]     NACK    [4, nonce, updates]
    GOSSIP  [5, updates]                    DIGEST  [6, [[pod, incarnation, version, accused, accuser, age_ms], ...]]
    WANT    [7, [pod, ...]]                 SUMMARY [8, sums of the buckets]

A ping says which answer it has ``heard`` last, by the number of the ping that was answered; missing before the first.

    record      msgpack [pod, incarnation, version, flags, address, meta, links, ...]
    accusation  [1, pod, incarnation, accuser, age_ms, ...]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum, IntFlag
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgpack

from base.ids import PodId

MAX_META_BYTES: Final = 1024
MAX_ADDRESS_CHARACTERS: Final = 300
MAX_LINKS: Final = 256
"""Links that a record lists; a pod with more says that it is linked to everybody."""
MAX_UPDATES: Final = 512
"""Updates in one message, and entries of one digest or want."""
MAX_INCARNATION: Final = 2**60
MAX_VERSION: Final = 2**40
MAX_AGE_S: Final = 30 * 86_400.0
MAX_RECORD_BYTES: Final = 8 * 1024
SUM_BYTES: Final = 8
BUCKETS: Final = 64
"""Sums in a `Kind.SUMMARY`; see `mesh.summary`."""
MAX_FLAGS: Final = 1 << 16
_POD_BYTES: Final = 16
_CACHED: Final = 4096
_CACHED_PODS: Final = 1 << 15


class Kind(IntEnum):
    """What a message says. Append only."""

    PING = 1
    ACK = 2
    REQUEST = 3
    NACK = 4
    GOSSIP = 5
    DIGEST = 6
    WANT = 7
    SUMMARY = 8


class Flag(IntFlag):
    """What a pod says about itself."""

    NONE = 0
    MAINTENANCE = 1
    DOWN = 2
    LEFT = 4
    LINKED_TO_ALL = 8


_LIST: Final = (list, tuple)
_NOBODY: Final = PodId("")
_PROBES: Final = {1: Kind.PING, 2: Kind.ACK}


class MalformedError(ValueError):
    """Their fault: a message that no honest pod sends. The text says why."""


class Record(NamedTuple):
    """What a pod says about itself. Of two the higher ``(incarnation, version)`` counts."""

    pod: PodId
    incarnation: int
    version: int
    flags: Flag
    address: str
    """``HOST:PORT``, or empty."""
    meta: bytes
    """A msgpack map with string keys."""
    links: tuple[PodId, ...]
    rest: tuple[Any, ...] = ()
    """What a newer version says besides."""

    @property
    def stamp(self) -> tuple[int, int]:
        """The order of a pod's records."""
        return self.incarnation, self.version


class Accusation(NamedTuple):
    """That ``accuser`` has had no answer from ``pod`` of that incarnation for ``age_s`` seconds."""

    pod: PodId
    incarnation: int
    accuser: PodId
    age_s: float


Update = Record | Accusation


class Known(NamedTuple):
    """An entry of a digest: what the sender knows of ``pod``; incarnation -1 for nothing."""

    pod: PodId
    incarnation: int
    version: int
    accusation: Accusation | None


class Message(NamedTuple):
    """A well-formed message; fields that its kind doesn't have are empty."""

    kind: Kind | None
    """None: a kind that only newer versions know."""
    nonce: int = 0
    target: PodId = PodId("")
    updates: Sequence[Update] = ()
    digest: Sequence[Known] = ()
    wanted: Sequence[PodId] = ()
    sums: bytes = b""
    """Of a ping or ack the sum of all that the sender knows, of a summary those of the buckets."""
    heard: int | None = None
    """Of a ping: the number of the ping whose answer the sender got last."""


def pod_bytes(pod: PodId) -> bytes:
    """Return the 16 bytes of a pod id."""
    return bytes.fromhex(pod)


def encode_update(update: Update) -> object:
    """Return what stands for ``update`` on the wire."""
    if isinstance(update, Accusation):
        accuser, age_ms = pod_bytes(update.accuser), int(update.age_s * 1000)
        return [1, pod_bytes(update.pod), update.incarnation, accuser, age_ms]
    return encode_record(update)


@lru_cache(_CACHED)
def encode_record(record: Record) -> bytes:
    """Return the bytes that stand for a record on the wire."""
    links = b"".join(map(pod_bytes, record.links))
    fields = [pod_bytes(record.pod), record.incarnation, record.version, int(record.flags), record.address]
    packed: bytes = msgpack.packb([*fields, record.meta, links, *record.rest])
    return packed


def encode_known(known: Known) -> list[object]:
    """Return the list that stands for an entry of a digest."""
    accused = known.accusation
    if accused is None:
        return [pod_bytes(known.pod), known.incarnation, known.version, -1, b"", 0]
    age_ms = int(accused.age_s * 1000)
    return [
        pod_bytes(known.pod),
        known.incarnation,
        known.version,
        accused.incarnation,
        pod_bytes(accused.accuser),
        age_ms,
    ]


def size_bytes(encoded: object) -> int:
    """Return how many bytes ``encoded`` takes on the wire."""
    return len(encoded) + 5 if isinstance(encoded, bytes) else len(msgpack.packb(encoded))


def pack_meta(values: Mapping[str, object]) -> bytes:
    """Return the published values as msgpack; raises ValueError above `MAX_META_BYTES`, TypeError for odd types."""
    packed: bytes = msgpack.packb(dict(values))
    if len(packed) > MAX_META_BYTES:
        raise ValueError(f"{len(packed)} bytes")
    unpack_meta(packed)
    return packed


def unpack_meta(packed: bytes) -> dict[str, object]:
    """Return the published values; raises `MalformedError`."""
    try:
        values = msgpack.unpackb(packed)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise MalformedError("meta that can't be unpacked") from error
    if not isinstance(values, dict) or not set(map(type, values)) <= {str}:
        raise MalformedError("meta that is no map of names")
    return values


def decode(message: object) -> Message:
    """Return the message; raises `MalformedError`."""
    if not isinstance(message, _LIST) or not message:
        raise MalformedError("a message that is no list")
    head, length = message[0], len(message)
    probe = _PROBES.get(head) if isinstance(head, int) and head is not True else None
    if probe is not None and length > 2:  # nearly all messages are
        sums = _sums(message[3], 1) if length > 3 else b""
        heard = _int(message[4], 0, 2**32) if length > 4 and probe is Kind.PING else None
        return Message(probe, _int(message[1], 0, 2**32), _NOBODY, _updates(message[2]), (), (), sums, heard)
    match list(message):
        case [Kind.NACK, nonce, updates, *_]:
            return Message(Kind.NACK, nonce=_int(nonce, 0, 2**32), updates=_updates(updates))
        case [Kind.REQUEST, nonce, target, updates, *_]:
            return Message(Kind.REQUEST, _int(nonce, 0, 2**32), _pod(target), _updates(updates))
        case [Kind.GOSSIP, updates, *_]:
            return Message(Kind.GOSSIP, updates=_updates(updates))
        case [Kind.DIGEST, entries, *_]:
            return Message(Kind.DIGEST, digest=[_known(entry) for entry in _list(entries, MAX_UPDATES)])
        case [Kind.WANT, pods, *_]:
            return Message(Kind.WANT, wanted=[_pod(pod) for pod in _list(pods, MAX_UPDATES)])
        case [Kind.SUMMARY, sums, *_]:
            return Message(Kind.SUMMARY, sums=_sums(sums, BUCKETS))
        case [int(kind), *_] if kind > max(Kind) and not isinstance(kind, bool):
            return Message(None)
    raise MalformedError("a message of unknown kind or length")


def question_of(message: Message, own: Record) -> Message | None:
    """Return what a message asks of the pod of ``own``, without all that it claims; None if it asks nothing."""
    if message.kind not in (Kind.PING, Kind.DIGEST, Kind.WANT, Kind.SUMMARY):
        return None
    asked = [
        known._replace(accusation=None)
        for known in message.digest
        if known.pod != own.pod or (known.incarnation, known.version) <= own.stamp
    ]
    return message._replace(updates=(), digest=asked)


def _updates(value: object) -> list[Update]:
    if value == []:
        return []
    updates = [_update(entry) for entry in _list(value, MAX_UPDATES)]
    return [update for update in updates if update is not None]


def _update(value: object) -> Update | None:
    """Return an update; None for one of a kind that only newer versions know."""
    if isinstance(value, bytes):
        return _record(value)
    match value:
        case [1, pod, incarnation, accuser, age_ms, *_]:
            return _accusation(pod, incarnation, accuser, age_ms)
        case [int(kind), *_] if kind > 1:
            return None
    raise MalformedError("an update of unknown kind or length")


@lru_cache(_CACHED)
def _record(packed: bytes) -> Record:
    """Return a packed record. The same one arrives from several pods: it is read once."""
    if len(packed) > MAX_RECORD_BYTES:
        raise MalformedError("a record that is too long")
    try:
        value = msgpack.unpackb(packed)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise MalformedError("a record that can't be unpacked") from error
    match value:
        case [pod, incarnation, version, flags, address, meta, links, *rest]:
            return Record(
                _pod(pod),
                _int(incarnation, 0, MAX_INCARNATION),
                _int(version, 0, MAX_VERSION),
                Flag(_int(flags, 0, MAX_FLAGS)),
                _address(address),
                _meta(meta),
                _links(links),
                tuple(map(_frozen, rest)),
            )
    raise MalformedError("a record of unknown form")


def _frozen(value: object) -> object:
    """Return a value of a newer version as something that can be hashed and packed again."""
    if isinstance(value, list):
        return tuple(map(_frozen, value))
    if isinstance(value, dict):
        raise MalformedError("a record with a map in it")
    return value


def _known(value: object) -> Known:
    match value:
        case [pod, incarnation, version, accused, accuser, age_ms, *_]:
            accusation = None if accused == -1 else _accusation(pod, accused, accuser, age_ms)
            return Known(_pod(pod), _int(incarnation, -1, MAX_INCARNATION), _int(version, 0, MAX_VERSION), accusation)
    raise MalformedError("a digest entry of another length")


def _accusation(pod: object, incarnation: object, accuser: object, age_ms: object) -> Accusation:
    age_s = _int(age_ms, 0, 2**62) / 1000
    return Accusation(_pod(pod), _int(incarnation, 0, MAX_INCARNATION), _pod(accuser), min(age_s, MAX_AGE_S))


def _sums(value: object, count: int) -> bytes:
    if not isinstance(value, bytes) or len(value) != count * SUM_BYTES:
        raise MalformedError("sums of another length")
    return value


def _list(value: object, limit: int) -> Sequence[object]:
    if not isinstance(value, _LIST) or len(value) > limit:
        raise MalformedError("something that is no list, or too long")
    return value


def _int(value: object, low: int, end: int) -> int:
    if isinstance(value, int) and low <= value < end and not isinstance(value, bool):
        return value
    raise MalformedError("something that is no number, or out of range")


def _pod(value: object) -> PodId:
    if not isinstance(value, bytes) or len(value) != _POD_BYTES:
        raise MalformedError("something that is no pod id")
    return _name(value)


@lru_cache(_CACHED_PODS)
def _name(value: bytes) -> PodId:
    """Return one and the same string for a pod, however often it is named: kept once, and found quickly in tables."""
    return PodId(value.hex())


def _address(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_ADDRESS_CHARACTERS or not value.isprintable():
        raise MalformedError("something that is no address")
    return value


def _meta(value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) > MAX_META_BYTES:
        raise MalformedError("meta that is no bytes, or too long")
    unpack_meta(value)
    return value


def _links(value: object) -> tuple[PodId, ...]:
    if not isinstance(value, bytes) or len(value) > MAX_LINKS * _POD_BYTES or len(value) % _POD_BYTES:
        raise MalformedError("links that are no pod ids, or too many")
    return tuple([_name(value[at : at + _POD_BYTES]) for at in range(0, len(value), _POD_BYTES)])
