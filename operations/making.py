"""Changes of the tree that commands make: here at once on a full pod, by way of one on a client pod.

What a rule makes read only is refused here, too (`vfs.gate`): EROFS.
"""

from __future__ import annotations

from collections.abc import Sequence

from base.errors import FileSystemError, RefusedError
from base.ids import ContentId, InodeId
from crdt_meta.node import Kind, Node
from crdt_meta.trash import TrashEntry
from operations.parts import Parts


async def create(
    parts: Parts,
    parent: InodeId,
    name: bytes,
    kind: Kind,
    *,
    mode: int,
    uid: int,
    gid: int,
    mtime_ns: int,
    target: bytes = b"",
) -> Node:
    """Make a file, directory, link or special file. Raises `FileSystemError`."""
    parts.gate.name(parent, name, folder=kind is Kind.DIRECTORY)
    if parts.editor is None:
        return parts.metadata.tree.create(
            parent, name, kind, mode=mode, uid=uid, gid=gid, mtime_ns=mtime_ns, target=target
        )
    return await parts.editor.create(parent, name, kind, mode=mode, uid=uid, gid=gid, mtime_ns=mtime_ns, target=target)


async def publish(parts: Parts, node: Node, content: ContentId, size: int, mtime_ns: int) -> None:
    """Give a file a content that is in the store, in place of what it shows. Raises `FileSystemError`."""
    if parts.editor is None:
        parts.metadata.tree.publish(node.inode, node.link, content, size, mtime_ns, node.shown)
    else:
        await parts.editor.publish(node.inode, node.link, content, size, mtime_ns, node.shown, node.ctime_ns)


async def set_xattr(parts: Parts, inode: InodeId, name: bytes, value: bytes) -> None:
    """Store an extended attribute. Raises `FileSystemError`."""
    if parts.editor is None:
        parts.metadata.tree.set_xattr(inode, name, value)
    else:
        await parts.editor.set_xattr(inode, name, value)


async def set_mtime(parts: Parts, inode: InodeId, mtime_ns: int) -> None:
    """Give a node a time. Raises `FileSystemError`."""
    if parts.editor is None:
        parts.metadata.tree.set_attributes(inode, mtime_ns=mtime_ns)
    else:
        await parts.editor.set_attributes(inode, mtime_ns=mtime_ns)


async def restore(parts: Parts, entry: TrashEntry) -> Node | None:
    """Bring something back from the trash. Raises `FileSystemError`, `RefusedError`."""
    _ask(parts, entry.path)
    if parts.editor is None:
        return parts.metadata.tree.restore(entry)
    return await parts.editor.restore(entry)


async def purge(parts: Parts, entries: Sequence[TrashEntry]) -> int:
    """Remove entries of the trash for good; return how many. Raises `FileSystemError`."""
    if parts.editor is None:
        return parts.metadata.tree.purge(entries)
    return await parts.editor.purge(entries)


async def keep(parts: Parts, path: bytes, version: InodeId) -> None:
    """Let a version have the name of a conflict. Raises `FileSystemError`, `RefusedError`."""
    _ask(parts, path)
    if parts.editor is None:
        parts.metadata.tree.keep(path, version)
    else:
        await parts.editor.keep(path, version)


def _ask(parts: Parts, path: bytes) -> None:
    try:
        parts.gate.path(path)
    except FileSystemError as error:
        raise RefusedError(error.message, "See the rules with `wormhole config show`.", errno=error.errno) from None
