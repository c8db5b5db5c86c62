"""The messages of broadcast and anti-entropy: how they look on the wire, and the only place that reads them. Pure.

Lists; whatever arrives is checked here for type, length and range, and refused whole. Kinds are append-only; those of
a newer version are skipped, and so are fields behind the known ones.

    LOG_PUSH    [1, [[writer, sequence, blob], ...], covered pods]   new entries, and who else was sent them
                [2, [[writer, last sequence], ...]]                  announcement: I have these
                [3]                                                  graft: push to me again
                [4]                                                  prune: announce only, I get it from others
                [5, [[writer, after], ...]]                          want: push to me what you have behind these
    LOG_VECTOR  [answer wanted, first writer, end writer, [[writer, last sequence], ...]]
                [sum of the vector]                                  a large one, first in short
    LOG_SINCE   [writer, after, limit in bytes] -> [[sequence, blob], ...]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple

from base.ids import PodId, WriterId, hash_bytes
from mesh.api import Entry

MAX_SEQUENCE: Final = 2**53
MAX_ENTRIES: Final = 4096
"""Entries in one push or page."""
MAX_MARKS: Final = 256
"""Writers in one announcement or vector page: about 4 KiB."""
MAX_COVERED: Final = 64
MAX_PAGE_BYTES: Final = 1024 * 1024
"""The greatest limit that may be asked for in a page."""
MAX_FIELDS: Final = 16
"""Of a message or an item, with those that newer versions add."""
SUM_BYTES: Final = 8
_LIST: Final = (list, tuple)
_WRITER_BYTES: Final = 8
_POD_BYTES: Final = 16


class MalformedError(ValueError):
    """Their fault: a message that no honest pod sends. The text says why."""


class PushKind(IntEnum):
    """What a `Tag.LOG_PUSH` message says. Append only."""

    ENTRIES = 1
    ANNOUNCE = 2
    GRAFT = 3
    PRUNE = 4
    WANT = 5


class Push(NamedTuple):
    """A well-formed `Tag.LOG_PUSH` message; fields that its kind doesn't have are empty."""

    kind: PushKind | None
    """None: a kind that only newer versions know."""
    entries: Sequence[Entry] = ()
    covered: frozenset[PodId] = frozenset()
    marks: Mapping[WriterId, int] = {}


class VectorPage(NamedTuple):
    """The marks of writers from ``first`` up to but not including ``end`` (empty: no bound).

    A writer in this range without a mark has sequence 0 at the sender.
    """

    answer_wanted: bool
    first: bytes
    end: bytes
    marks: Mapping[WriterId, int]

    def holds(self, writer: WriterId) -> bool:
        """Tell whether ``writer`` is in the range."""
        return writer >= self.first and (not self.end or writer < self.end)


class Since(NamedTuple):
    """A request: entries of ``writer`` from ``after + 1`` on, about ``limit_bytes``."""

    writer: WriterId
    after: int
    limit_bytes: int


def encode_push(entries: Sequence[Entry], covered: Sequence[PodId]) -> list[object]:
    """Return the message that carries ``entries``."""
    pods = b"".join(bytes.fromhex(pod) for pod in covered[:MAX_COVERED])
    return [PushKind.ENTRIES, [[*entry] for entry in entries], pods]


def encode_announcement(marks: Mapping[WriterId, int]) -> list[object]:
    """Return the message that announces at most `MAX_MARKS` ``marks``."""
    return [PushKind.ANNOUNCE, [[writer, last] for writer, last in marks.items()]]


def encode_want(marks: Mapping[WriterId, int]) -> list[object]:
    """Return the message that asks to be pushed what is behind ``marks``, at most `MAX_MARKS`."""
    return [PushKind.WANT, [[writer, after] for writer, after in marks.items()]]


def encode_sum(vector: Mapping[WriterId, int]) -> list[object]:
    """Return the message that stands for a whole vector in short: the exclusive or of its marks' hashes."""
    total = 0
    for writer, last in vector.items():
        total ^= _mark_number(writer, last)
    return [total.to_bytes(SUM_BYTES, "big")]


@lru_cache(1 << 15)
def _mark_number(writer: WriterId, last: int) -> int:
    return int.from_bytes(hash_bytes(writer + last.to_bytes(8, "big"))[:SUM_BYTES], "big")


def encode_vector(page: VectorPage) -> list[object]:
    """Return the message that stands for ``page``."""
    return [page.answer_wanted, page.first, page.end, [[writer, last] for writer, last in page.marks.items()]]


def carries_entries(message: object) -> bool:
    """Tell whether a `Tag.LOG_PUSH` message is of the kind that carries entries, well-formed or not."""
    return isinstance(message, _LIST) and len(message) > 0 and message[0] == PushKind.ENTRIES


def decode_push(message: object) -> Push:
    """Return a `Tag.LOG_PUSH` message; raises `MalformedError`."""
    match _list(message, MAX_FIELDS):
        case [PushKind.ENTRIES, entries, covered, *_]:
            return Push(PushKind.ENTRIES, entries=_entries(entries), covered=_pods(covered))
        case [PushKind.ANNOUNCE, marks, *_]:
            return Push(PushKind.ANNOUNCE, marks=_marks(marks, 1))
        case [PushKind.GRAFT, *_]:
            return Push(PushKind.GRAFT)
        case [PushKind.PRUNE, *_]:
            return Push(PushKind.PRUNE)
        case [PushKind.WANT, marks, *_]:
            return Push(PushKind.WANT, marks=_marks(marks, 0))
        case [int(kind), *_] if kind > max(PushKind) and not isinstance(kind, bool):
            return Push(None)
    raise MalformedError("a push of unknown kind or length")


def decode_vector(message: object) -> VectorPage | bytes:
    """Return a `Tag.LOG_VECTOR` message, a page or the sum of a whole vector; raises `MalformedError`."""
    match _list(message, MAX_FIELDS):
        case [bytes(total)] if len(total) == SUM_BYTES:
            return total
        case [bool(answer_wanted), bytes(first), bytes(end), marks, *_] if max(len(first), len(end)) <= _WRITER_BYTES:
            return VectorPage(answer_wanted, first, end, _marks(marks, 1))
    raise MalformedError("a vector of unknown form")


def decode_since(body: object) -> Since:
    """Return the body of a `Tag.LOG_SINCE` request; raises `MalformedError`. Greater limits are cut."""
    match _list(body, MAX_FIELDS):
        case [writer, after, limit_bytes, *_]:
            limit = _int(limit_bytes, 1, 2**62)
            return Since(_writer(writer), _int(after, 0, MAX_SEQUENCE), min(limit, MAX_PAGE_BYTES))
    raise MalformedError("a request of unknown form")


def decode_page(answer: object, writer: WriterId, after: int) -> list[Entry]:
    """Return the entries of the answer to a `Tag.LOG_SINCE` request; raises `MalformedError` unless in order."""
    entries: list[Entry] = []
    for value in _list(answer, MAX_ENTRIES):
        match _list(value, MAX_FIELDS):
            case [int(sequence), bytes(blob), *_] if sequence > (entries[-1].sequence if entries else after):
                entries.append(Entry(writer, sequence, blob))
            case _:
                raise MalformedError("a page whose entries are not in order")
    return entries


def _entries(value: object) -> list[Entry]:
    entries = []
    for item in _list(value, MAX_ENTRIES):
        match _list(item, MAX_FIELDS):
            case [writer, sequence, bytes(blob), *_]:
                entries.append(Entry(_writer(writer), _int(sequence, 1, MAX_SEQUENCE), blob))
            case _:
                raise MalformedError("an entry of unknown form")
    return entries


def _marks(value: object, least: int) -> dict[WriterId, int]:
    marks = {}
    for item in _list(value, MAX_MARKS):
        match _list(item, MAX_FIELDS):
            case [writer, last, *_]:
                marks[_writer(writer)] = _int(last, least, MAX_SEQUENCE)
            case _:
                raise MalformedError("a mark of unknown form")
    return marks


def _list(value: object, limit: int) -> Sequence[object]:
    if not isinstance(value, _LIST) or len(value) > limit:
        raise MalformedError("something that is no list, or too long")
    return value


def _int(value: object, low: int, end: int) -> int:
    if isinstance(value, int) and low <= value < end and not isinstance(value, bool):
        return value
    raise MalformedError("something that is no number, or out of range")


def _writer(value: object) -> WriterId:
    if not isinstance(value, bytes) or len(value) != _WRITER_BYTES:
        raise MalformedError("something that is no writer id")
    return WriterId(value)


def _pods(value: object) -> frozenset[PodId]:
    if not isinstance(value, bytes) or len(value) % _POD_BYTES or len(value) > MAX_COVERED * _POD_BYTES:
        raise MalformedError("something that is no list of pods")
    return frozenset(PodId(value[at : at + _POD_BYTES].hex()) for at in range(0, len(value), _POD_BYTES))
