"""Records: what one writer says of one inode or link.

A record is stored under ``kind + id`` in its writer's segment. A writer has one record of a kind for each node, which
it overwrites; contents and overwritten contents have one for each write, so their key carries the clock as well. Contents
are removed by their writer when it saves again after they were replaced (`derive.succession`), overwritten ones after they
were purged (`versions.purge`). How they are stored is in `codec`.

===== ======= ==================================================================================================
kind  of      says
===== ======= ==================================================================================================
``i`` inode   birth: kind, attributes, for a file its first content; its link has the same 16 bytes as id
``c`` inode   a content, which dots it replaces, through which link it came, the strategy in force for its writer
``s`` inode   dots that are settled: shown elsewhere or given up, without a successor here; and dots purged from the trash
``v`` inode   an overwritten content that is kept in the trash; written with the content that replaces it
``a`` inode   attributes, each with its own clock
``x`` inode   extended attributes, each with its own clock
``l`` link    birth: inode, parent, name
``p`` link    place: parent, and the parent it came from
``n`` link    name
``d`` link    deletion: the content dots that it saw, and what it was done for
``k`` writer  acknowledgement: what this writer had of everybody, and what its open files build on
===== ======= ==================================================================================================
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from enum import IntEnum
from typing import Final, NamedTuple

from base.ids import EMPTY_CONTENT, ContentId, Dot, InodeId, LinkId, WriterId
from crdt_meta.hlc import MAX_CLOCK
from crdt_meta.node import Kind

NAME_LIMIT_BYTES: Final = 255
TARGET_LIMIT_BYTES: Final = 4095
BUILDS_ON_LIMIT: Final = 8192
XATTR_LIMIT_BYTES: Final = 65536


class Strategy(IntEnum):
    """How two concurrent contents of one name are shown; the numbers are stored."""

    KEEP_BOTH = 0
    LAST_WRITER_WINS = 1


class Why(IntEnum):
    """What put something into the trash; the numbers are stored."""

    DELETED = 0
    OVERWRITTEN = 1
    """By a new content, or by another file that was renamed over it."""
    CONFLICT = 2
    """It lost against another version."""


class Birth(NamedTuple):
    """``i``."""

    clock: int
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    target: bytes = b""
    rdev: int = 0
    content: ContentId = EMPTY_CONTENT
    size: int = 0
    strategy: Strategy = Strategy.KEEP_BOTH
    origin: Dot | None = None
    """Of a sibling that became an inode of its own: the dot that it was."""


class Content(NamedTuple):
    """``c``."""

    clock: int
    content: ContentId
    size: int
    mtime_ns: int
    via: LinkId
    replaces: tuple[Dot, ...]
    strategy: Strategy
    floor: int = 0
    """Of the writer's own contents of this inode those with an earlier clock are replaced, too, named or not."""
    age_ns: int = 0
    """How long before this record the file was written to: publishing it later must not move its ctime."""


class Settled(NamedTuple):
    """``s``."""

    clock: int
    dots: tuple[Dot, ...]
    purged: tuple[Dot, ...] = ()
    """These are in the trash no more. A link that the deletion didn't see shows them all the same."""


class Overwritten(NamedTuple):
    """``v``."""

    clock: int
    dot: Dot
    """The write of the content."""
    content: ContentId
    size: int
    mtime_ns: int
    why: Why


class Attributes(NamedTuple):
    """``a``: key → (clock, value); keys are mode, uid, gid, mtime_ns."""

    clock: int
    values: dict[str, tuple[int, int]]


class Xattrs(NamedTuple):
    """``x``: name → (clock, value); None: removed."""

    clock: int
    values: dict[bytes, tuple[int, bytes | None]]


class LinkBirth(NamedTuple):
    """``l``."""

    clock: int
    inode: InodeId
    parent: InodeId
    name: bytes


class Place(NamedTuple):
    """``p``."""

    clock: int
    parent: InodeId
    came_from: InodeId


class Name(NamedTuple):
    """``n``."""

    clock: int
    name: bytes


class Deletion(NamedTuple):
    """``d``."""

    clock: int
    dots: tuple[Dot, ...]
    why: Why = Why.DELETED


class Acknowledgement(NamedTuple):
    """``k``; its node is `node_of` the writer, its transaction the last one that ``vector`` names of it."""

    clock: int
    vector: dict[WriterId, int]
    """Writer → transaction up to which everything is in this writer's view, durably."""
    builds_on: tuple[InodeId, ...] | None
    """Inodes that it may still publish contents of, though they may be deleted; None: any."""
    seen: dict[WriterId, int]
    """Writers out of reach → when they were last heard of (milliseconds since the epoch)."""
    asks: bool
    """Whether everybody else shall acknowledge this transaction."""


Body = (
    Birth
    | Content
    | Settled
    | Overwritten
    | Attributes
    | Xattrs
    | LinkBirth
    | Place
    | Name
    | Deletion
    | Acknowledgement
)

KINDS: Final[dict[type[Body], str]] = {
    Birth: "i",
    Content: "c",
    Settled: "s",
    Overwritten: "v",
    Attributes: "a",
    Xattrs: "x",
    LinkBirth: "l",
    Place: "p",
    Name: "n",
    Deletion: "d",
    Acknowledgement: "k",
}
CLOCKED: Final = "cv"
"""Kinds of which a writer has several records of one node, each with its clock in the key."""

_ARMOUR: Final = bytes.maketrans(b"+/", b"-_")
ADOPTED: Final = "@"


def _armoured(raw: bytes) -> str:
    """Return bytes in the alphabet of base64 for addresses, unpadded."""
    return b2a_base64(raw, newline=False).translate(_ARMOUR, b"=").decode()


class Key(NamedTuple):
    """Which record: kind, node, for contents of both kinds the clock (0 otherwise), and of adopted records the author."""

    kind: str
    node: bytes
    clock: int
    author: WriterId | None = None
    """None: whoever holds the record in a segment of its own wrote it."""

    def text(self) -> str:
        """Return the key in the segment's map."""
        tail = self.clock.to_bytes(8, "big") if self.kind in CLOCKED else b""
        if self.author is None:
            return self.kind + _armoured(self.node + tail)
        return ADOPTED + self.kind + _armoured(self.node + tail + self.author)

    @staticmethod
    def of(body: Body, node: bytes) -> Key:
        """Return the key of a record."""
        kind = KINDS[type(body)]
        return Key(kind, node, body.clock if kind in CLOCKED else 0)

    @staticmethod
    def parse(text: str) -> Key | None:
        """Return the key of a map entry, or None when it is none."""
        if not 23 <= len(text) <= 64 or not text.isascii():
            return None
        adopted = text[0] == ADOPTED
        kind, armoured = text[adopted], text[1 + adopted :].replace("-", "+").replace("_", "/")
        try:
            raw = a2b_base64(armoured + "=" * (-len(armoured) % 4))
        except ValueError:
            return None
        length = 24 if kind in CLOCKED else 16
        if len(raw) != length + 8 * adopted:
            return None
        author, clock = WriterId(raw[length:]) if adopted else None, int.from_bytes(raw[16:length], "big")
        return Key(kind, raw[:16], clock, author) if clock <= MAX_CLOCK else None


def node_of(writer: WriterId) -> bytes:
    """Return the node under which a writer's acknowledgement is stored."""
    return writer + bytes(8)
