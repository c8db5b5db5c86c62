"""Records as bytes, as they are sent and stored: with a format version; hostile bytes never raise.

A stored value is a msgpack list ``[version, clock, ...]``. A kind or version that this release doesn't know is carried
along and not interpreted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgpack

from base.ids import EMPTY_CONTENT, ContentId, Dot, InodeId, LinkId, WriterId
from crdt_meta.hlc import MAX_CLOCK
from crdt_meta.node import Kind
from crdt_meta.records import (
    BUILDS_ON_LIMIT,
    NAME_LIMIT_BYTES,
    TARGET_LIMIT_BYTES,
    XATTR_LIMIT_BYTES,
    Acknowledgement,
    Attributes,
    Birth,
    Body,
    Content,
    Deletion,
    LinkBirth,
    Name,
    Overwritten,
    Place,
    Settled,
    Strategy,
    Why,
    Xattrs,
)

VERSION: Final = 1
VALUE_LIMIT_BYTES: Final = 1 << 20
DOTS_LIMIT: Final = 32768
WRITERS_LIMIT: Final = 16384
_TIME: Final = (1 << 63) - 1
_OWNER: Final = (1 << 32) - 1
_ATTRIBUTE_KEYS: Final = {"mode": "m", "uid": "u", "gid": "g", "mtime_ns": "t"}
_ATTRIBUTES: Final = {
    "m": ("mode", 0, 0o7777),
    "u": ("uid", 0, _OWNER),
    "g": ("gid", 0, _OWNER),
    "t": ("mtime_ns", -_TIME, _TIME),
}
"""Stored key → (name, least, greatest value)."""
_KINDS: Final = {kind.value: kind for kind in Kind}
_STRATEGIES: Final = {strategy.value: strategy for strategy in Strategy}
"""Looking there takes a tenth of the time that calling an enumeration does."""
_pack: Final = msgpack.Packer().pack


# -- writing ----------------------------------------------------------------------------------------------------------


def encode(body: Body, node: bytes) -> bytes:
    """Return the stored value of a record."""
    packed: bytes = _pack([VERSION, body.clock, *_WRITERS[type(body)](body, node)])
    return packed


def _of_birth(body: Birth, _: bytes) -> list[Any]:
    content = None if body.content == EMPTY_CONTENT else body.content
    head = [int(body.kind), body.mode, body.uid, body.gid, body.mtime_ns]
    tail = [body.target or None, body.rdev, content, body.size, int(body.strategy), body.origin]
    while tail and not tail[-1]:
        tail.pop()
    return head + tail


def _of_content(body: Content, node: bytes) -> list[Any]:
    via = None if body.via == node else body.via
    fields = [body.content, body.size, body.mtime_ns, via, body.replaces, int(body.strategy)]
    fields += [None if body.floor == body.clock else body.floor, body.age_ns or None]
    while fields[-1] is None:
        fields.pop()
    return fields


def _of_settled(body: Settled, _: bytes) -> list[Any]:
    return [body.dots, body.purged] if body.purged else [body.dots]


def _of_deletion(body: Deletion, _: bytes) -> list[Any]:
    return [body.dots, int(body.why)] if body.why else [body.dots]


def _of_overwritten(body: Overwritten, _: bytes) -> list[Any]:
    return [body.dot, body.content, body.size, body.mtime_ns, int(body.why)]


def _of_attributes(body: Attributes, _: bytes) -> list[Any]:
    return [{_ATTRIBUTE_KEYS[key]: value for key, value in body.values.items()}]


def _of_xattrs(body: Xattrs, _: bytes) -> list[Any]:
    return [body.values]


def _of_link_birth(body: LinkBirth, node: bytes) -> list[Any]:
    return [None if body.inode == node else body.inode, body.parent, body.name]


def _of_place(body: Place, _: bytes) -> list[Any]:
    return [body.parent, None if body.came_from == body.parent else body.came_from]


def _of_name(body: Name, _: bytes) -> list[Any]:
    return [body.name]


def _of_acknowledgement(body: Acknowledgement, _: bytes) -> list[Any]:
    return [list(body.vector.items()), body.builds_on, list(body.seen.items()), body.asks]


_WRITERS: Final[dict[type[Body], Callable[[Any, bytes], list[Any]]]] = {
    Birth: _of_birth,
    Content: _of_content,
    Settled: _of_settled,
    Overwritten: _of_overwritten,
    Attributes: _of_attributes,
    Xattrs: _of_xattrs,
    LinkBirth: _of_link_birth,
    Place: _of_place,
    Name: _of_name,
    Deletion: _of_deletion,
    Acknowledgement: _of_acknowledgement,
}


# -- reading ----------------------------------------------------------------------------------------------------------


class _BadError(Exception):
    """A value that isn't what its place wants."""


def decode(kind: str, node: bytes, at: int, raw: bytes) -> Body | None:
    """Return a record, or None when it is of an unknown kind or version or malformed: every pod ignores it alike.

    ``kind``, ``node`` and ``at`` are of its key; the last is its clock where the key carries that.
    """
    read = _READERS.get(kind)
    if read is None or len(raw) > VALUE_LIMIT_BYTES:
        return None
    try:
        value = msgpack.unpackb(raw, strict_map_key=False)
        if type(value) is not list or len(value) < 2 or value[0] != VERSION:
            return None
        return read(node, at, _int(value[1], 1), value[2:])
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


def _int(value: Any, low: int = 0, high: int = MAX_CLOCK) -> int:
    if type(value) is not int or not low <= value <= high:
        raise _BadError
    return value


def _bytes(value: Any, low: int, high: int) -> bytes:
    if type(value) is not bytes or not low <= len(value) <= high:
        raise _BadError
    return value


def _id(value: Any) -> bytes:
    if type(value) is not bytes or len(value) != 16:
        raise _BadError
    return value


def _content_id(value: Any) -> ContentId:
    if type(value) is not bytes or len(value) != 32:
        raise _BadError
    return ContentId(value)


def _name(value: Any) -> bytes:
    name = _bytes(value, 1, NAME_LIMIT_BYTES)
    if b"/" in name or b"\0" in name or name in (b".", b".."):
        raise _BadError
    return name


def _bounded(value: Any, limit: int) -> list[Any]:
    if type(value) is not list or len(value) > limit:
        raise _BadError
    return value


def _dot(value: Any) -> Dot:
    if type(value) is not list:
        raise _BadError
    writer, clock = value
    if type(writer) is not bytes or len(writer) != 8 or type(clock) is not int or not 0 <= clock <= MAX_CLOCK:
        raise _BadError
    return Dot(WriterId(writer), clock)


def _dot_tuple(value: Any) -> tuple[Dot, ...]:
    return tuple([_dot(one) for one in _bounded(value, DOTS_LIMIT)])


def _marks(value: Any) -> dict[WriterId, int]:
    found: dict[WriterId, int] = {}
    for one in _bounded(value, WRITERS_LIMIT):
        writer, number = _bounded(one, 2)
        found[WriterId(_bytes(writer, 8, 8))] = _int(number)
    return found


def _stamped(value: Any) -> tuple[int, Any]:
    if type(value) is not list:
        raise _BadError
    clock, stamped = value
    return _int(clock), stamped


def _birth(_: bytes, __: int, clock: int, f: list[Any]) -> Birth:
    kind, mode, uid, gid, mtime_ns, *more = f
    kind, owner = _KINDS[_int(kind)], (_int(uid, 0, _OWNER), _int(gid, 0, _OWNER))
    head = clock, kind, _int(mode, 0, 0o7777), *owner, _int(mtime_ns, -_TIME, _TIME)
    if not more:
        return Birth(*head)
    target, rdev, content, size, strategy, origin = (*more, None, None, None, None, None, None)[:6]
    return Birth(
        *head,
        b"" if target is None else _bytes(target, 1, TARGET_LIMIT_BYTES),
        0 if rdev is None else _int(rdev),
        EMPTY_CONTENT if content is None else _content_id(content),
        0 if size is None else _int(size),
        Strategy.KEEP_BOTH if strategy is None else _STRATEGIES[_int(strategy)],
        None if origin is None else _dot(origin),
    )


def _content(node: bytes, at: int, clock: int, f: list[Any]) -> Content | None:
    if clock != at:
        return None
    content, size, mtime_ns, via, dots, strategy, *more = f
    floor, age_ns = (*more, None, None)[:2]
    return Content(
        clock,
        _content_id(content),
        _int(size),
        _int(mtime_ns, -_TIME, _TIME),
        LinkId(node if via is None else _id(via)),
        _dot_tuple(dots),
        _STRATEGIES[_int(strategy)],
        clock if floor is None else _int(floor, 0, clock),
        _int(age_ns or 0),
    )


def _settled(_: bytes, __: int, clock: int, f: list[Any]) -> Settled:
    return Settled(clock, _dot_tuple(f[0]), _dot_tuple(f[1]) if len(f) > 1 else ())


def _deletion(_: bytes, __: int, clock: int, f: list[Any]) -> Deletion:
    return Deletion(clock, _dot_tuple(f[0]), Why(_int(f[1])) if len(f) > 1 else Why.DELETED)


def _overwritten(_: bytes, at: int, clock: int, f: list[Any]) -> Overwritten | None:
    if clock != at:
        return None
    content, mtime_ns = _content_id(f[1]), _int(f[3], -_TIME, _TIME)
    return Overwritten(clock, _dot(f[0]), content, _int(f[2]), mtime_ns, Why(_int(f[4])))


def _attributes(_: bytes, __: int, clock: int, f: list[Any]) -> Attributes:
    values: dict[str, tuple[int, int]] = {}
    for key, value in f[0].items():
        if known := _ATTRIBUTES.get(key):
            name, low, high = known
            since, given = _stamped(value)
            values[name] = since, _int(given, low, high)
    return Attributes(clock, values)


def _xattrs(_: bytes, __: int, clock: int, f: list[Any]) -> Xattrs:
    pairs = {_bytes(key, 1, 255): _stamped(value) for key, value in f[0].items()}
    checked = {k: (c, None if v is None else _bytes(v, 0, XATTR_LIMIT_BYTES)) for k, (c, v) in pairs.items()}
    return Xattrs(clock, checked)


def _link_birth(node: bytes, _: int, clock: int, f: list[Any]) -> LinkBirth:
    inode = InodeId(node if f[0] is None else _id(f[0]))
    return LinkBirth(clock, inode, InodeId(_id(f[1])), _name(f[2]))


def _place(_: bytes, __: int, clock: int, f: list[Any]) -> Place:
    parent = InodeId(_id(f[0]))
    return Place(clock, parent, parent if f[1] is None else InodeId(_id(f[1])))


def _named(_: bytes, __: int, clock: int, f: list[Any]) -> Name:
    return Name(clock, _name(f[0]))


def _acknowledgement(_: bytes, __: int, clock: int, f: list[Any]) -> Acknowledgement:
    builds_on = None if f[1] is None else tuple(InodeId(_id(one)) for one in _bounded(f[1], BUILDS_ON_LIMIT))
    return Acknowledgement(clock, _marks(f[0]), builds_on, _marks(f[2]), bool(_int(int(f[3]), 0, 1)))


_READERS: Final[dict[str, Callable[[bytes, int, int, list[Any]], Body | None]]] = {
    "i": _birth,
    "c": _content,
    "s": _settled,
    "v": _overwritten,
    "a": _attributes,
    "x": _xattrs,
    "l": _link_birth,
    "p": _place,
    "n": _named,
    "d": _deletion,
    "k": _acknowledgement,
}
