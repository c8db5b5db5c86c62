"""Who holds which content: the rules by which pods follow each other's tables. Pure; `holdings_db` stores them.

Each pod numbers the changes of its own table, one sequence number each. Others hear news as they happen (a push that
names the number before it) and ask "since N" when they missed some. A table that was made anew (a lost or restored
database) has another random generation: what was known of the old one is forgotten at once, because claiming a copy
that is gone loses data, while missing one only costs a transfer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from base.errors import DamagedError
from base.ids import ContentId

PAGE_ROWS: Final = 2000
"""Most rows in one message (about 80 KiB)."""

GENERATION_BYTES: Final = 8


class Holding(IntEnum):
    """What a pod has of a content: nothing (any more), or every chunk of it."""

    NONE = 0
    CACHED = 1
    KEPT = 2


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a table has been followed."""

    generation: bytes
    sequence: int


@dataclass(frozen=True, slots=True)
class Page:
    """Changes of one table, in order: those after ``before`` up to ``upto``; ``more`` follow."""

    generation: bytes
    before: int
    upto: int
    more: bool
    rows: Sequence[tuple[ContentId, Holding]]


class Verdict(Enum):
    """What to do with a page that arrived."""

    APPLY = "apply"
    ANEW = "anew"
    """Forget what is known of the pod, then apply."""
    IGNORE = "ignore"
    ASK = "ask"
    """Something before it is missing: ask for it."""


def judge(known: Cursor | None, page: Page) -> Verdict:
    """Decide about a page, pushed or asked for, given how far its sender's table is known."""
    if known is None or known.generation != page.generation:
        return Verdict.ANEW if page.before == 0 else Verdict.ASK
    if page.upto <= known.sequence:
        return Verdict.IGNORE
    return Verdict.APPLY if page.before <= known.sequence else Verdict.ASK


def answer_from(own: Cursor, asked_generation: bytes, since: int) -> int:
    """Return the sequence after which a "since" answer starts: 0 when the asker follows another table than this."""
    return since if asked_generation == own.generation and 0 <= since <= own.sequence else 0


def pack(page: Page) -> list[object]:
    """Return a page as a message body."""
    rows = [[content, int(state)] for content, state in page.rows]
    return [page.generation, page.before, page.upto, page.more, rows]


def unpack(body: object) -> Page:
    """Read a page from a message body; raises `DamagedError`."""
    match body:
        case [bytes(generation), int(before), int(upto), bool(more), list(rows)] if (
            len(generation) == GENERATION_BYTES and 0 <= before <= upto < 1 << 62 and len(rows) <= PAGE_ROWS
        ):
            return Page(generation, before, upto, more, [_row(row) for row in rows])
    raise DamagedError("A pod sent a table of holdings that can't be read.")


def _row(row: object) -> tuple[ContentId, Holding]:
    match row:
        case [bytes(content), int(state)] if len(content) == 32 and 0 <= state <= 2:
            return ContentId(content), Holding(state)
    raise DamagedError("A pod sent a holding that can't be read.")
