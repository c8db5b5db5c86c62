"""`wormhole where`: which pods hold a file."""

from __future__ import annotations

from base.errors import UsageError
from base.ids import PodId
from crdt_meta.node import Kind
from operations.finding import find, text_argument, text_of
from operations.parts import Parts


async def where(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Tell for one file who keeps it, who caches it, and how many copies are wanted."""
    path, node = find(parts.metadata.tree, text_argument(args, "path") or "/")
    if node.kind is not Kind.FILE:
        raise UsageError(f"'{text_of(path)}' is no file.", "Name a file; a folder's files are held one by one.")
    holders = parts.transfer.holders(node.content)
    chunks = await parts.transfer.chunks(node.content, node.size)
    copies = parts.catalogue.wanted(node.inode, text_of(path)).copies
    return {
        "path": text_of(path),
        "size": node.size,
        "content": node.content.hex(),
        "copies_wanted": parts.catalogue.wanted_now(copies),
        "kept": names(parts, holders.kept),
        "cached": names(parts, holders.cached),
        "holders": names(parts, holders.kept | holders.cached),
        "absent_holders": names(parts, holders.absent),
        "chunks": [chunk.hex() for chunk in chunks or []],
        "local": parts.transfer.local(node.content),
    }


def names(parts: Parts, pods: frozenset[PodId]) -> list[str]:
    """Return the names of pods, sorted."""
    return sorted(member.name for member in parts.mesh.members() if member.pod in pods)
