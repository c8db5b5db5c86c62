"""Transactions: what a writer did since its last one, numbered, signed, applied whole by everybody.

The signature covers a header that names each part (the update of one segment) by its hash, so that parts which a later
transaction made obsolete can be dropped while the rest still verifies. A *whole* part is its segment written anew: it
starts an epoch, and the parts of earlier epochs are of no use any more. Whoever sends a transaction without such parts,
or leaves out transactions that lost all of theirs, adds as *witnesses* the headers of those that say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgpack

from base.errors import DamagedError
from base.ids import WriterId, hash_bytes

VERSION: Final = 1
BLOB_LIMIT_BYTES: Final = 3 << 20
PARTS_LIMIT: Final = 4096
WITNESSES_LIMIT: Final = 256
GONE_LIMIT: Final = 1024
"""Ranges of dropped transactions that a header names at most."""
_CONTEXT: Final = b"wormhole transaction\0"
Verify = Callable[[WriterId, bytes, bytes], bool]


class Named(NamedTuple):
    """A part as a header names it."""

    segment: int
    epoch: int
    """How often the segment had been written anew, this part included."""
    digest: bytes
    whole: bool


class Gone(NamedTuple):
    """Transactions of which nothing is left, from the first to the last."""

    first: int
    last: int


class Header(NamedTuple):
    """What the writer signed."""

    writer: WriterId
    sequence: int
    clock: int
    """The writer's clock when it was sealed."""
    parts: tuple[Named, ...]
    gone: tuple[Gone, ...]
    """All transactions of this writer that need not be kept or sent once this one is there, in order."""


class Part(NamedTuple):
    """The change of one segment."""

    segment: int
    epoch: int
    update: bytes
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Transaction:
    """One entry of a writer's log."""

    header: Header
    raw: bytes
    """The header as it was signed."""
    signature: bytes
    updates: tuple[bytes | None, ...]
    """Of the header's parts; None: dropped, since a later transaction has the segment whole."""
    witnesses: tuple[Header, ...] = ()

    def blob(self) -> bytes:
        """Return what is sent of a transaction that is complete."""
        return join(self.raw, self.signature, self.updates)

    def parts(self) -> list[Part]:
        """Return the parts that are there."""
        pairs = zip(self.header.parts, self.updates, strict=True)
        return [Part(one.segment, one.epoch, data, one.whole) for one, data in pairs if data is not None]


def join(
    header: bytes,
    signature: bytes,
    updates: Sequence[bytes | None],
    witnesses: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """Return what is sent of a transaction, from what is stored; witnesses are (header, signature)."""
    fields: list[object] = [header, signature, updates]
    if witnesses:
        fields.append(witnesses)
    blob: bytes = msgpack.packb(fields)
    return blob


def make(
    writer: WriterId,
    sequence: int,
    clock: int,
    parts: Sequence[Part],
    sign: Callable[[bytes], bytes],
    gone: Sequence[Gone] = (),
) -> Transaction:
    """Make and sign a transaction."""
    named = tuple(Named(part.segment, part.epoch, hash_bytes(part.update), part.whole) for part in parts)
    fields: list[object] = [VERSION, writer, sequence, clock, [[*one[:3], *[True] * one.whole] for one in named]]
    if gone:
        fields.append(gone)
    raw: bytes = msgpack.packb(fields)
    header = Header(writer, sequence, clock, named, tuple(gone))
    return Transaction(header, raw, sign(_CONTEXT + raw), tuple(part.update for part in parts))


def header_of(raw: bytes) -> Header:
    """Return a header. Raises `DamagedError` when it is malformed or of a newer version."""
    try:
        return _header(raw)
    except (ValueError, TypeError, KeyError, RecursionError, msgpack.UnpackException) as error:
        raise DamagedError("A transaction is malformed.") from error


def digest(raw: bytes) -> bytes:
    """Return what tells a transaction from another one of its number, 16 bytes, given its stored header."""
    return hash_bytes(raw)[:16]


def digest_of_signed(data: bytes) -> bytes:
    """Return the `digest` of a transaction, given what its writer signed."""
    return digest(data.removeprefix(_CONTEXT))


def read(blob: bytes, verify: Verify) -> Transaction:
    """Return a received transaction.

    ``verify(writer, signature, data)`` tells whether the writer's pod signed. Raises `DamagedError` when it is
    malformed, of a newer version, forged, too large, or lacks a part without a witness.
    """
    if len(blob) > BLOB_LIMIT_BYTES:
        raise DamagedError("A transaction is too large.")
    try:
        raw, signature, updates, *more = _list(msgpack.unpackb(blob), 3, 4)
        header = _header(raw)
        updates = tuple(_update(one, data) for one, data in zip(header.parts, updates, strict=True))
        witnesses = [_list(one, 2) for one in _list(more[0], 1, WITNESSES_LIMIT)] if more else []
        heard = tuple(_header(one) for one, _ in witnesses)
        ok = type(signature) is bytes and all(type(signed) is bytes for _, signed in witnesses)
        ok = ok and all(one.writer == header.writer and one.sequence > header.sequence for one in heard)
    except (ValueError, TypeError, KeyError, RecursionError, msgpack.UnpackException) as error:
        raise DamagedError("A transaction is malformed.") from error
    if not ok:
        raise DamagedError("A transaction is malformed.")
    for data, signed in ((raw, signature), *witnesses):
        if not verify(header.writer, signed, _CONTEXT + data):
            raise DamagedError("A transaction is not signed by its writer.")
    tx = Transaction(header, raw, signature, updates, heard)
    owed(tx, header.sequence - 1)
    return tx


def owed(tx: Transaction, here: int) -> int | None:
    """Return up to which transaction everything must have come before this one may show anything; 0: it may at once.

    ``here`` is the last one of the writer that is here. None: others are missing between them, and nothing says that
    they are of no use any more. Raises `DamagedError` when that is so of a part.
    """
    needed = 0
    for one, data in zip(tx.header.parts, tx.updates, strict=True):
        if data is None:
            found = [
                witness.sequence
                for witness in tx.witnesses
                for part in witness.parts
                if part.segment == one.segment and part.epoch > one.epoch and part.whole
            ]
            if not found:
                raise DamagedError("A part of a transaction is missing.")
            needed = max(needed, min(found))
    missing = here + 1
    for witness in (tx.header, *tx.witnesses):
        for gone in witness.gone:
            if missing < tx.header.sequence and gone.first <= missing <= gone.last:
                missing = gone.last + 1
                needed = max(needed, witness.sequence if witness is not tx.header else 0)
    return needed if missing >= tx.header.sequence else None


def merged(before: Sequence[Gone], more: Iterable[int]) -> tuple[Gone, ...]:
    """Return ranges with further sequences in them, neighbours joined; without those where that makes too many."""
    found: list[Gone] = []
    for one in sorted((*before, *(Gone(sequence, sequence) for sequence in more))):
        if found and one.first <= found[-1].last + 1:
            found[-1] = Gone(found[-1].first, max(found[-1].last, one.last))
        else:
            found.append(one)
    return tuple(found) if len(found) <= GONE_LIMIT else tuple(before)


def _list(value: Any, *lengths: int) -> list[Any]:
    """Return a list of one of two lengths, or of a length between them."""
    if type(value) is not list or not lengths[0] <= len(value) <= lengths[-1]:
        raise ValueError
    return value


def _int(value: Any, low: int, end: int) -> int:
    if type(value) is not int or not low <= value < end:
        raise ValueError
    return value


def _header(raw: Any) -> Header:
    version, writer, sequence, clock, named, *more = _list(msgpack.unpackb(raw), 5, 6)
    if version != VERSION:
        raise DamagedError("A transaction is of a version that this pod can't read.", "Install a newer Wormhole.")
    if type(writer) is not bytes or len(writer) != 8:
        raise ValueError
    parts = tuple(_named(one) for one in _list(named, 1, PARTS_LIMIT))
    if len({part.segment for part in parts}) != len(parts):
        raise ValueError
    gone: list[Gone] = []
    for one in _list(more[0], 1, GONE_LIMIT) if more else ():
        first, last = _list(one, 2)
        after = gone[-1].last if gone else 0
        gone.append(Gone(_int(first, after + 1, 1 << 62), _int(last, _int(first, 1, 1 << 62), 1 << 62)))
    sequence = _int(sequence, 1, 1 << 62)
    if gone and gone[-1].last >= sequence:
        raise ValueError
    return Header(WriterId(writer), sequence, _int(clock, 0, 1 << 63), parts, tuple(gone))


def _named(value: Any) -> Named:
    segment, epoch, digest, *whole = _list(value, 3, 4)
    if type(digest) is not bytes or len(digest) != 32 or whole not in ([], [True]):
        raise ValueError
    return Named(_int(segment, 0, 1 << 31), _int(epoch, 0, 1 << 31), digest, bool(whole))


def _update(named: Named, update: Any) -> bytes | None:
    if update is None:
        return None
    if type(update) is not bytes or hash_bytes(update) != named.digest:
        raise ValueError
    return update
