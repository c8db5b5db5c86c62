"""Transactions: what a writer did since its last one, numbered, signed, applied whole by everybody.

The signature covers a header that names each part (the update of one segment) by its hash, so that parts which a later
transaction made obsolete can be dropped while the rest still verifies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from base.errors import DamagedError
from base.ids import WriterId, hash_bytes

VERSION: Final = 1
BLOB_LIMIT_BYTES: Final = 3 << 20
PARTS_LIMIT: Final = 4096
_CONTEXT: Final = b"wormhole transaction\0"


@dataclass(frozen=True, slots=True)
class Part:
    """The change of one segment."""

    segment: int
    epoch: int
    """Raised when a segment is written anew as a whole."""
    update: bytes


@dataclass(frozen=True, slots=True)
class Transaction:
    """One entry of a writer's log."""

    writer: WriterId
    sequence: int
    clock: int
    """The writer's clock when it was sealed."""
    parts: tuple[Part, ...]
    header: bytes
    signature: bytes

    def blob(self) -> bytes:
        """Return what is sent."""
        return join(self.header, self.signature, [part.update for part in self.parts])


def join(header: bytes, signature: bytes, updates: list[bytes]) -> bytes:
    """Return what is sent of a transaction, from what is stored."""
    blob: bytes = msgpack.packb([header, signature, updates])
    return blob


def make(
    writer: WriterId, sequence: int, clock: int, parts: tuple[Part, ...], sign: Callable[[bytes], bytes]
) -> Transaction:
    """Make and sign a transaction."""
    named = [[part.segment, part.epoch, hash_bytes(part.update)] for part in parts]
    header: bytes = msgpack.packb([VERSION, writer, sequence, clock, named])
    return Transaction(writer, sequence, clock, parts, header, sign(_CONTEXT + header))


def segments_of(header: bytes) -> list[int]:
    """Return the segments that a stored header names."""
    return [segment for segment, _, _ in msgpack.unpackb(header)[4]]


def clock_of(header: bytes) -> int:
    """Return the clock of a stored transaction."""
    return int(msgpack.unpackb(header)[3])


def read(blob: bytes, verify: Callable[[WriterId, bytes, bytes], bool]) -> Transaction:
    """Return a received transaction.

    ``verify(writer, signature, data)`` tells whether the writer's pod signed. Raises `DamagedError` when it is
    malformed, of a newer version, forged, or too large.
    """
    if len(blob) > BLOB_LIMIT_BYTES:
        raise DamagedError("A transaction is too large.")
    try:
        header, signature, updates = _unpack(blob, 3)
        version, writer, sequence, clock, named = _unpack(header, 5)
        if version != VERSION:
            raise DamagedError("A transaction is of a version that this pod can't read.", "Install a newer Wormhole.")
        parts = tuple(_part(name, update) for name, update in zip(named, updates, strict=True))
        ok = type(writer) is bytes and len(writer) == 8 and type(sequence) is int and sequence > 0
        ok = ok and type(clock) is int and 0 <= clock < 1 << 63 and type(signature) is bytes and len(parts) > 0
        ok = ok and len({part.segment for part in parts}) == len(parts) <= PARTS_LIMIT
    except (ValueError, TypeError, KeyError, RecursionError, msgpack.UnpackException) as error:
        raise DamagedError("A transaction is malformed.") from error
    if not ok:
        raise DamagedError("A transaction is malformed.")
    if not verify(WriterId(writer), signature, _CONTEXT + header):
        raise DamagedError("A transaction is not signed by its writer.")
    return Transaction(WriterId(writer), sequence, clock, parts, header, signature)


def _unpack(data: Any, length: int) -> list[Any]:
    value = msgpack.unpackb(data)
    if type(value) is not list or len(value) != length:
        raise ValueError
    return value


def _part(name: Any, update: Any) -> Part:
    segment, epoch, digest = name
    ok = type(segment) is int and 0 <= segment < 1 << 31 and type(epoch) is int and 0 <= epoch < 1 << 31
    if not ok or type(update) is not bytes or hash_bytes(update) != digest:
        raise ValueError
    return Part(segment, epoch, update)
