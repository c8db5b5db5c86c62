"""Records: what one writer says of one inode or link. Codecs with a format version; hostile bytes never raise.

A record is stored under ``kind + id`` in its writer's segment. A writer has one record of a kind for each node, which
it overwrites; contents and overwritten contents have one for each write, so their key carries the clock as well. Contents
are removed by their writer when it saves again after they were replaced (`derive.succession`), overwritten ones after they
were purged (`versions.purge`). A stored value is a msgpack
list ``[version, clock, ...]``. A kind or version that this release doesn't know is carried along and not interpreted.

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

from base64 import urlsafe_b64encode
from binascii import a2b_base64
from enum import IntEnum
from typing import Any, Final, NamedTuple

import msgpack

from base.ids import EMPTY_CONTENT, ContentId, Dot, InodeId, LinkId, WriterId
from crdt_meta.hlc import MAX_CLOCK
from crdt_meta.node import Kind

VERSION: Final = 1
NAME_LIMIT_BYTES: Final = 255
TARGET_LIMIT_BYTES: Final = 4095
VALUE_LIMIT_BYTES: Final = 1 << 20
DOTS_LIMIT: Final = 32768
WRITERS_LIMIT: Final = 16384
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
_ATTRIBUTE_KEYS: Final = {"mode": "m", "uid": "u", "gid": "g", "mtime_ns": "t"}
_ATTRIBUTE_NAMES: Final = {short: name for name, short in _ATTRIBUTE_KEYS.items()}
_TIME: Final = (1 << 63) - 1
_OWNER: Final = (1 << 32) - 1
_ATTRIBUTE_RANGES: Final = {"m": (0, 0o7777), "u": (0, _OWNER), "g": (0, _OWNER), "t": (-_TIME, _TIME)}


_STANDARD: Final = str.maketrans("-_", "+/")
_ADOPTED: Final = "@"


def _armoured(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


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
        return _ADOPTED + self.kind + _armoured(self.node + tail + self.author)

    @staticmethod
    def of(body: Body, node: bytes) -> Key:
        """Return the key of a record."""
        return Key(KINDS[type(body)], node, body.clock if isinstance(body, Content | Overwritten) else 0)

    @staticmethod
    def parse(text: str) -> Key | None:
        """Return the key of a map entry, or None when it is none."""
        if not 23 <= len(text) <= 64 or not text.isascii():
            return None
        adopted, plain = text[0] == _ADOPTED, text.removeprefix(_ADOPTED)
        try:
            raw = a2b_base64(plain[1:].translate(_STANDARD) + "=" * (-(len(plain) - 1) % 4))
        except ValueError:
            return None
        length = 24 if plain[0] in CLOCKED else 16
        if len(raw) != length + 8 * adopted:
            return None
        author = WriterId(raw[length:]) if adopted else None
        return Key(plain[0], raw[:16], int.from_bytes(raw[16:length], "big"), author)


def _dots(dots: tuple[Dot, ...]) -> list[list[object]]:
    return [[dot.writer, dot.clock] for dot in dots]


def encode(body: Body, node: bytes) -> bytes:
    """Return the stored value of a record."""
    match body:
        case Birth():
            origin = None if body.origin is None else [body.origin.writer, body.origin.clock]
            content = None if body.content == EMPTY_CONTENT else body.content
            head = [int(body.kind), body.mode, body.uid, body.gid, body.mtime_ns]
            tail = [body.target or None, body.rdev, content, body.size, int(body.strategy), origin]
            while tail and not tail[-1]:
                tail.pop()
            fields: list[Any] = head + tail
        case Content():
            via = None if body.via == node else body.via
            fields = [body.content, body.size, body.mtime_ns, via, _dots(body.replaces), int(body.strategy)]
            fields += [None if body.floor == body.clock else body.floor, body.age_ns or None]
            while fields[-1] is None:
                fields.pop()
        case Settled():
            fields = [_dots(body.dots), _dots(body.purged)] if body.purged else [_dots(body.dots)]
        case Deletion():
            fields = [_dots(body.dots), int(body.why)] if body.why else [_dots(body.dots)]
        case Overwritten():
            fields = [*_dots((body.dot,)), body.content, body.size, body.mtime_ns, int(body.why)]
        case Attributes():
            fields = [{_ATTRIBUTE_KEYS[key]: list(value) for key, value in body.values.items()}]
        case Xattrs():
            fields = [{key: list(value) for key, value in body.values.items()}]
        case LinkBirth():
            fields = [None if body.inode == node else body.inode, body.parent, body.name]
        case Place():
            fields = [body.parent, None if body.came_from == body.parent else body.came_from]
        case Name():
            fields = [body.name]
        case Acknowledgement():
            builds_on = None if body.builds_on is None else list(body.builds_on)
            fields = [list(body.vector.items()), builds_on, list(body.seen.items()), body.asks]
    packed: bytes = msgpack.packb([VERSION, body.clock, *fields])
    return packed


class _BadError(Exception):
    """A value that isn't what its place wants."""


def _int(value: Any, low: int = 0, high: int = MAX_CLOCK) -> int:
    if type(value) is not int or not low <= value <= high:
        raise _BadError
    return value


def _bytes(value: Any, low: int, high: int) -> bytes:
    if type(value) is not bytes or not low <= len(value) <= high:
        raise _BadError
    return value


def _id(value: Any) -> bytes:
    return _bytes(value, 16, 16)


def _name(value: Any) -> bytes:
    name = _bytes(value, 1, NAME_LIMIT_BYTES)
    if b"/" in name or b"\0" in name or name in (b".", b".."):
        raise _BadError
    return name


def _dot(value: Any) -> Dot:
    if type(value) is not list or len(value) != 2:
        raise _BadError
    return Dot(WriterId(_bytes(value[0], 8, 8)), _int(value[1]))


def _dot_tuple(value: Any) -> tuple[Dot, ...]:
    if type(value) is not list or len(value) > DOTS_LIMIT:
        raise _BadError
    return tuple(_dot(one) for one in value)


def _bounded(value: Any, limit: int) -> list[Any]:
    if type(value) is not list or len(value) > limit:
        raise _BadError
    return value


def _marks(value: Any) -> dict[WriterId, int]:
    found: dict[WriterId, int] = {}
    for one in _bounded(value, WRITERS_LIMIT):
        writer, number = _bounded(one, 2)
        found[WriterId(_bytes(writer, 8, 8))] = _int(number)
    return found


def node_of(writer: WriterId) -> bytes:
    """Return the node under which a writer's acknowledgement is stored."""
    return writer + bytes(8)


def _stamped(value: Any) -> tuple[int, Any]:
    if type(value) is not list or len(value) != 2:
        raise _BadError
    return _int(value[0]), value[1]


def decode(key: Key, raw: bytes) -> Body | None:
    """Return a record, or None when it is of an unknown kind or version or malformed: every pod ignores it alike."""
    if len(raw) > VALUE_LIMIT_BYTES:
        return None
    try:
        value = msgpack.unpackb(raw, strict_map_key=False)
        if type(value) is not list or len(value) < 2 or value[0] != VERSION:
            return None
        return _decode(key, _int(value[1], 1), value[2:])
    except (
        _BadError,
        ValueError,
        IndexError,
        TypeError,
        AttributeError,
        KeyError,
        msgpack.UnpackException,
        RecursionError,
    ):
        return None


def _decode(key: Key, clock: int, f: list[Any]) -> Body | None:
    match key.kind:
        case "i":
            return _decode_birth(clock, [*f, *[None] * (11 - len(f))])
        case "c":
            if clock != key.clock:
                return None
            content = ContentId(_bytes(f[0], 32, 32))
            via = LinkId(key.node if f[3] is None else _id(f[3]))
            mtime_ns = _int(f[2], -_TIME, _TIME)
            strategy, floor, age_ns = Strategy(_int(f[5])), *[*f[6:8], None, None][:2]
            floor, age_ns = clock if floor is None else _int(floor, 0, clock), _int(age_ns or 0)
            return Content(clock, content, _int(f[1]), mtime_ns, via, _dot_tuple(f[4]), strategy, floor, age_ns)
        case "s":
            return Settled(clock, _dot_tuple(f[0]), _dot_tuple(f[1]) if len(f) > 1 else ())
        case "d":
            return Deletion(clock, _dot_tuple(f[0]), Why(_int(f[1])) if len(f) > 1 else Why.DELETED)
        case "v":
            if clock != key.clock:
                return None
            content, mtime_ns = ContentId(_bytes(f[1], 32, 32)), _int(f[3], -_TIME, _TIME)
            return Overwritten(clock, _dot(f[0]), content, _int(f[2]), mtime_ns, Why(_int(f[4])))
        case "a":
            stamped = {k: _stamped(v) for k, v in f[0].items() if k in _ATTRIBUTE_NAMES}
            values = {_ATTRIBUTE_NAMES[k]: (c, _int(v, *_ATTRIBUTE_RANGES[k])) for k, (c, v) in stamped.items()}
            return Attributes(clock, values)
        case "x":
            pairs = {_bytes(k, 1, 255): _stamped(v) for k, v in f[0].items()}
            checked = {k: (c, None if v is None else _bytes(v, 0, XATTR_LIMIT_BYTES)) for k, (c, v) in pairs.items()}
            return Xattrs(clock, checked)
        case "l":
            inode = InodeId(key.node if f[0] is None else _id(f[0]))
            return LinkBirth(clock, inode, InodeId(_id(f[1])), _name(f[2]))
        case "p":
            parent = InodeId(_id(f[0]))
            return Place(clock, parent, parent if f[1] is None else InodeId(_id(f[1])))
        case "n":
            return Name(clock, _name(f[0]))
        case "k":
            builds_on = None if f[1] is None else tuple(InodeId(_id(one)) for one in _bounded(f[1], BUILDS_ON_LIMIT))
            return Acknowledgement(clock, _marks(f[0]), builds_on, _marks(f[2]), bool(_int(int(f[3]), 0, 1)))
    return None


def _decode_birth(clock: int, f: list[Any]) -> Birth:
    return Birth(
        clock,
        Kind(_int(f[0])),
        _int(f[1], 0, 0o7777),
        _int(f[2], 0, _OWNER),
        _int(f[3], 0, _OWNER),
        _int(f[4], -_TIME, _TIME),
        b"" if f[5] is None else _bytes(f[5], 1, TARGET_LIMIT_BYTES),
        0 if f[6] is None else _int(f[6]),
        EMPTY_CONTENT if f[7] is None else ContentId(_bytes(f[7], 32, 32)),
        0 if f[8] is None else _int(f[8]),
        Strategy.KEEP_BOTH if f[9] is None else Strategy(_int(f[9])),
        None if f[10] is None else _dot(f[10]),
    )
