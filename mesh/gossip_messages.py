"""The messages of membership: what they look like on the wire, and the only place that reads them. Pure.

Every message is a list ``[kind, ..., updates]``. An update is a pod's record about itself or an accusation. Whatever
arrives is checked here for type, length and range, and refused whole with `MalformedError`; behind this module all is
well-formed. Kinds are append-only.

    PING    [1, nonce, updates]             ACK     [2, nonce, updates]
    REQUEST [3, nonce, target, updates]     NACK    [4, nonce, updates]
    GOSSIP  [5, updates]                    DIGEST  [6, [[pod, incarnation, version, accused, accuser, age_ms], ...]]
    WANT    [7, [pod, ...]]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

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
_POD_BYTES: Final = 16


class Kind(IntEnum):
    """What a message says. Append only."""

    PING = 1
    ACK = 2
    REQUEST = 3
    NACK = 4
    GOSSIP = 5
    DIGEST = 6
    WANT = 7


class Flag(IntFlag):
    """What a pod says about itself."""

    NONE = 0
    MAINTENANCE = 1
    DOWN = 2
    LEFT = 4
    LINKED_TO_ALL = 8


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

    kind: Kind
    nonce: int = 0
    target: PodId = PodId("")
    updates: Sequence[Update] = ()
    digest: Sequence[Known] = ()
    wanted: Sequence[PodId] = ()


def pod_bytes(pod: PodId) -> bytes:
    """Return the 16 bytes of a pod id."""
    return bytes.fromhex(pod)


def encode_update(update: Update) -> list[object]:
    """Return the list that stands for ``update`` on the wire."""
    pod = pod_bytes(update.pod)
    if isinstance(update, Accusation):
        return [1, pod, update.incarnation, pod_bytes(update.accuser), int(update.age_s * 1000)]
    links = b"".join(map(pod_bytes, update.links))
    return [0, pod, update.incarnation, update.version, int(update.flags), update.address, update.meta, links]


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
    return len(msgpack.packb(encoded))


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
    if not isinstance(message, list | tuple) or not message:
        raise MalformedError("a message that is no list")
    match list(message):
        case [Kind.PING | Kind.ACK | Kind.NACK as kind, nonce, updates]:
            return Message(Kind(kind), nonce=_int(nonce, 0, 2**32), updates=_updates(updates))
        case [Kind.REQUEST, nonce, target, updates]:
            return Message(Kind.REQUEST, _int(nonce, 0, 2**32), _pod(target), _updates(updates))
        case [Kind.GOSSIP, updates]:
            return Message(Kind.GOSSIP, updates=_updates(updates))
        case [Kind.DIGEST, entries]:
            return Message(Kind.DIGEST, digest=[_known(entry) for entry in _list(entries, MAX_UPDATES)])
        case [Kind.WANT, pods]:
            return Message(Kind.WANT, wanted=[_pod(pod) for pod in _list(pods, MAX_UPDATES)])
    raise MalformedError("a message of unknown kind or length")


def _updates(value: object) -> list[Update]:
    return [_update(entry) for entry in _list(value, MAX_UPDATES)]


def _update(value: object) -> Update:
    match _list(value, 8):
        case [0, pod, incarnation, version, flags, address, meta, links]:
            return Record(
                _pod(pod),
                _int(incarnation, 0, MAX_INCARNATION),
                _int(version, 0, MAX_VERSION),
                Flag(_int(flags, 0, 16)),
                _address(address),
                _meta(meta),
                _links(links),
            )
        case [1, pod, incarnation, accuser, age_ms]:
            return _accusation(pod, incarnation, accuser, age_ms)
    raise MalformedError("an update of unknown kind or length")


def _known(value: object) -> Known:
    match _list(value, 6):
        case [pod, incarnation, version, accused, accuser, age_ms]:
            accusation = None if accused == -1 else _accusation(pod, accused, accuser, age_ms)
            return Known(_pod(pod), _int(incarnation, -1, MAX_INCARNATION), _int(version, 0, MAX_VERSION), accusation)
    raise MalformedError("a digest entry of another length")


def _accusation(pod: object, incarnation: object, accuser: object, age_ms: object) -> Accusation:
    age_s = _int(age_ms, 0, 2**62) / 1000
    return Accusation(_pod(pod), _int(incarnation, 0, MAX_INCARNATION), _pod(accuser), min(age_s, MAX_AGE_S))


def _list(value: object, limit: int) -> list[object]:
    if not isinstance(value, list | tuple) or len(value) > limit:
        raise MalformedError("something that is no list, or too long")
    return list(value)


def _int(value: object, low: int, end: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value < end:
        raise MalformedError("something that is no number, or out of range")
    return value


def _pod(value: object) -> PodId:
    if not isinstance(value, bytes) or len(value) != _POD_BYTES:
        raise MalformedError("something that is no pod id")
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
    digits = value.hex()
    return tuple([PodId(digits[at : at + 32]) for at in range(0, len(digits), 32)])
