"""What a client pod may have done to the tree, as messages: parsed, checked, and carried out on its behalf. Pure.

A client has no log. Its operations are carried out by a full pod, in whose log the records stand, with the client as
their author and clocks from the operation's *stamp* on (`Settling.on_behalf`). Ids of what is made come with the
operation. So a full pod that is asked again, since nobody answered the first time, writes the same records as the one
that may have died with them; and what is here already is not done again.

Must never: raise anything but `DamagedError` for a message that isn't one, or `FileSystemError` for what can't be done.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from base.errors import DamagedError, FileSystemError
from base.ids import ContentId, Dot, InodeId, LinkId, WriterId
from crdt_meta.hlc import MAX_CLOCK
from crdt_meta.marks import OWN_XATTRS
from crdt_meta.node import Kind
from crdt_meta.records import NAME_LIMIT_BYTES, TARGET_LIMIT_BYTES, XATTR_LIMIT_BYTES
from crdt_meta.trash import TrashEntry
from crdt_meta.tree import Tree

STRIDE: Final = 4096
"""An operation takes at most so many clocks; the stamp of a client's next one is further on."""
REPLACES_LIMIT: Final = 4096
PURGE_LIMIT: Final = 128
PATH_LIMIT_BYTES: Final = 64 << 10
SIZE_LIMIT: Final = 1 << 44
STORED_XATTRS: Final = (b"user.", b"trusted.", b"security.")
_TIME: Final = (1 << 63) - 1
_OWNER: Final = (1 << 32) - 1
_ATTRIBUTES: Final = {"mode": (0, 0o7777), "uid": (0, _OWNER), "gid": (0, _OWNER), "mtime_ns": (-_TIME, _TIME)}

Id = TypeVar("Id", InodeId, LinkId)


@dataclass(frozen=True, slots=True)
class Create:
    """Make ``inode`` under a name."""

    inode: InodeId
    parent: InodeId
    name: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    target: bytes
    rdev: int


@dataclass(frozen=True, slots=True)
class Link:
    """Give ``inode`` another name, by a link of this id."""

    link: LinkId
    inode: InodeId
    parent: InodeId
    name: bytes


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove a name, which led to ``link``: of an empty directory, or of anything else."""

    link: LinkId
    parent: InodeId
    name: bytes
    directory: bool


@dataclass(frozen=True, slots=True)
class Rename:
    """Give what ``link`` leads to another name or place."""

    link: LinkId
    parent: InodeId
    name: bytes
    new_parent: InodeId
    new_name: bytes
    exchange: bool
    no_replace: bool


@dataclass(frozen=True, slots=True)
class SetAttributes:
    """Change attributes: some of mode, uid, gid and mtime_ns."""

    inode: InodeId
    values: dict[str, int]


@dataclass(frozen=True, slots=True)
class SetXattr:
    """Store an extended attribute, or remove it (None)."""

    inode: InodeId
    name: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Publish:
    """Give a file a content in place of the dots that its handle showed."""

    inode: InodeId
    link: LinkId
    content: ContentId
    size: int
    mtime_ns: int
    replaces: tuple[Dot, ...]
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class Trashed:
    """Names an entry of the trash."""

    inode: InodeId
    dot: Dot
    path: bytes


@dataclass(frozen=True, slots=True)
class Restore:
    """Bring something back from the trash."""

    entry: Trashed


@dataclass(frozen=True, slots=True)
class Purge:
    """Remove something from the trash for good."""

    entries: tuple[Trashed, ...]


@dataclass(frozen=True, slots=True)
class Keep:
    """Let a version have the name of a conflict."""

    path: bytes
    version: InodeId


Operation = Create | Link | Remove | Rename | SetAttributes | SetXattr | Publish | Restore | Purge | Keep

_NUMBERS: Final[dict[int, type[Operation]]] = {
    1: Create,
    2: Link,
    3: Remove,
    4: Rename,
    5: SetAttributes,
    6: SetXattr,
    7: Publish,
    8: Restore,
    9: Purge,
    10: Keep,
}
_NUMBER_OF: Final = {kind: number for number, kind in _NUMBERS.items()}


def pack(operation: Operation) -> list[object]:
    """Return an operation as msgpack carries it."""
    number = _NUMBER_OF[type(operation)]
    match operation:
        case Restore(entry):
            return [number, _packed(entry)]
        case Purge(entries):
            return [number, [_packed(entry) for entry in entries]]
    values = [getattr(operation, name) for name in type(operation).__slots__]
    if isinstance(operation, Publish):
        values[5] = [[dot.writer, dot.clock] for dot in operation.replaces]
    return [number, *values]


def _packed(entry: Trashed) -> list[object]:
    return [entry.inode, entry.dot.writer, entry.dot.clock, entry.path]


def parse(body: object) -> Operation:
    """Return the operation that a message is. Raises `DamagedError`."""
    try:
        if type(body) is not list or not body:
            raise ValueError
        return _parse(_int(body[0], 0, 255), body[1:])
    except (ValueError, TypeError, KeyError):
        raise DamagedError("A client pod sent an operation that can't be read.") from None


def _parse(number: int, values: list[Any]) -> Operation:
    match number, values:
        case 1, [inode, parent, name, kind, mode, uid, gid, mtime_ns, target, rdev]:
            owner = _int(uid, 0, _OWNER), _int(gid, 0, _OWNER)
            place, more = (_id(parent), _name(name)), (_bytes(target, TARGET_LIMIT_BYTES), _int(rdev, 0, MAX_CLOCK))
            times = _int(mtime_ns, -_TIME, _TIME)
            return Create(_fresh(inode), *place, Kind(_int(kind, 1, 7)), _int(mode, 0, 0o7777), *owner, times, *more)
        case 2, [link, inode, parent, name]:
            return Link(LinkId(_fresh(link)), _id(inode), _id(parent), _name(name))
        case 3, [link, parent, name, bool(directory)]:
            return Remove(LinkId(_id(link)), _id(parent), _name(name), directory)
        case 4, [link, parent, name, new_parent, new_name, bool(exchange), bool(no_replace)]:
            old, new = (_id(parent), _name(name)), (_id(new_parent), _name(new_name))
            return Rename(LinkId(_id(link)), *old, *new, exchange, no_replace)
        case 5, [inode, dict(given)] if given:
            return SetAttributes(_id(inode), {key: _int(one, *_ATTRIBUTES[key]) for key, one in given.items()})
        case 6, [inode, name, value]:
            wanted = None if value is None else _bytes(value, XATTR_LIMIT_BYTES)
            return SetXattr(_id(inode), _bytes(name, NAME_LIMIT_BYTES), wanted)
        case 7, [inode, link, content, size, mtime_ns, list(replaces), ctime_ns] if len(replaces) <= REPLACES_LIMIT:
            what = ContentId(_exactly(content, 32)), _int(size, 0, SIZE_LIMIT), _int(mtime_ns, -_TIME, _TIME)
            dots = tuple(Dot(WriterId(_exactly(writer, 8)), _int(clock, 0, MAX_CLOCK)) for writer, clock in replaces)
            return Publish(_id(inode), LinkId(_id(link)), *what, dots, _int(ctime_ns, -_TIME, _TIME))
        case 8, [entry]:
            return Restore(_trashed(entry))
        case 9, [list(entries)] if 0 < len(entries) <= PURGE_LIMIT:
            return Purge(tuple(_trashed(entry) for entry in entries))
        case 10, [path, version]:
            return Keep(_bytes(path, PATH_LIMIT_BYTES), _id(version))
    raise ValueError


def _trashed(value: Any) -> Trashed:
    inode, writer, clock, path = value
    dot = Dot(WriterId(_exactly(writer, 8)), _int(clock, 0, MAX_CLOCK))
    return Trashed(_id(inode), dot, _bytes(path, PATH_LIMIT_BYTES))


def _int(value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError
    return value


def _bytes(value: Any, most: int) -> bytes:
    if type(value) is not bytes or len(value) > most:
        raise ValueError
    return value


def _exactly(value: Any, length: int) -> bytes:
    if type(value) is not bytes or len(value) != length:
        raise ValueError
    return value


def _id(value: Any) -> InodeId:
    return InodeId(_exactly(value, 16))


def _fresh(value: Any) -> InodeId:
    if not any(found := _id(value)):
        raise ValueError  # the root is there already
    return found


def _name(value: Any) -> bytes:
    return _bytes(value, NAME_LIMIT_BYTES)


# -- carrying out -----------------------------------------------------------------------------------------------------


def is_done(tree: Tree, author: WriterId, stamp: int, operation: Operation, within: int = STRIDE) -> bool:
    """Tell whether this pod has what an operation left behind: a record by its author with a clock of its own.

    Where somebody's fast clock was ahead of the stamp that clock is a later one: ``within`` tells how much later.
    """
    node, kinds = _trace(operation)
    records = tree.view.records.of(node, kinds)
    return any(by == author and stamp <= body.clock < stamp + within for by, body in records)


def _trace(operation: Operation) -> tuple[bytes, str]:
    """Return the node, and the kinds of records, that an operation writes."""
    match operation:
        case Create():
            return operation.inode, "i"
        case Link():
            return operation.link, "l"
        case Remove():
            return operation.link, "d"
        case Rename():
            return operation.link, "pn"
        case SetAttributes():
            return operation.inode, "a"
        case SetXattr():
            return operation.inode, "x"
        case Publish():
            return operation.inode, "c"
        case Restore(entry):
            return entry.inode, "c"
        case Purge(entries):
            return entries[0].inode, "s"
        case Keep():
            return operation.version, "c"


def check(tree: Tree, operation: Operation) -> None:
    """Refuse what no client may do. Raises `FileSystemError` (EPERM, EEXIST, EOPNOTSUPP, ENOENT)."""
    match operation:
        case Create(inode=new) | Link(link=new) if tree.view.records.has(new):
            raise FileSystemError(errno.EEXIST, "A client pod made something under an id that is taken.")
        case SetXattr(name=name) if not name.startswith(STORED_XATTRS):
            raise FileSystemError(errno.EOPNOTSUPP)
        case SetXattr(name=name) if name.startswith(OWN_XATTRS):
            raise FileSystemError(errno.EPERM)
        case Publish(inode=inode) if not _is_file(tree, inode):
            raise FileSystemError(errno.ENOENT)


def _is_file(tree: Tree, inode: InodeId) -> bool:
    """Tell whether contents may be published for an inode: a file, removed perhaps, or a version shown beside one."""
    row = tree.view.rows.inode(tree.view.sibling_owner.get(inode, inode))
    return row is not None and row.kind is Kind.FILE


def perform(tree: Tree, author: WriterId, stamp: int, operation: Operation) -> None:
    """Carry out an operation that was checked. Raises `FileSystemError` with POSIX's errno."""
    with tree.on_behalf(author, stamp):
        match operation:
            case Create(inode, parent, name, kind, mode, uid, gid, mtime_ns, target, rdev):
                owner = {"mode": mode, "uid": uid, "gid": gid}
                tree.create(parent, name, kind, **owner, mtime_ns=mtime_ns, target=target, rdev=rdev, inode=inode)
            case Link(link, inode, parent, name):
                tree.link(inode, parent, name, link=link)
            case Remove(_, parent, name, directory=True):
                tree.rmdir(parent, name)
            case Remove(_, parent, name):
                tree.unlink(parent, name)
            case Rename(_, parent, name, new_parent, new_name, exchange, no_replace):
                tree.rename(parent, name, new_parent, new_name, exchange=exchange, no_replace=no_replace)
            case SetAttributes(inode, values):
                tree.set_attributes(inode, **values)
            case SetXattr(inode, name, value):
                tree.set_xattr(inode, name, value)
            case Publish(inode, link, content, size, mtime_ns, replaces, ctime_ns):
                tree.publish(inode, link, content, size, mtime_ns, replaces, ctime_ns)
            case Restore(entry):
                if not (found := _entries(tree, [entry])):
                    raise FileSystemError(errno.ENOENT)
                tree.restore(found[0])
            case Purge(entries):
                tree.purge(_entries(tree, entries))
            case Keep(path, version):
                tree.keep(path, version)


def _entries(tree: Tree, named: Sequence[Trashed]) -> list[TrashEntry]:
    """Return what of this is in the trash here."""
    found: list[TrashEntry] = []
    for one in named:
        here = (*tree.trash_of_inode(one.inode), *tree.trash_of(one.path))
        found += [entry for entry in here if (entry.inode, entry.dot) == (one.inode, one.dot)][:1]
    return found
