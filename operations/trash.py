"""`wormhole trash`: what was deleted, overwritten or lost a conflict; bringing it back, and emptying."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final

from anyio import lowlevel

from base.errors import FileSystemError, NotFoundError, UsageError
from base.ids import PodId
from control.server import Emit
from crdt_meta.trash import TrashEntry
from operations.finding import text_argument, text_of
from operations.making import purge, restore
from operations.parts import Parts

PAGE: Final = 500
"""Entries told at a time."""
SLICE: Final = 100
"""Entries listed or purged before the mount has its turn."""
LEAST_PREFIX: Final = 4
"""So many digits of a content's id are needed to name it."""


async def trash_list(parts: Parts, args: dict[str, object], emit: Emit) -> dict[str, object]:
    """Tell everything in the trash, or what was at and below ``path``, in events; return how much it is."""
    below = _path(args)
    names = pod_names(parts)
    page: list[dict[str, object]] = []
    count = size = 0
    for index, entry in enumerate(parts.metadata.tree.trash()):
        if index % SLICE == 0:
            await lowlevel.checkpoint()
        if is_below(entry.path, below):
            count, size = count + 1, size + entry.size
            page.append(facts(entry, names))
        if len(page) >= PAGE:
            await emit({"trash": page})
            page = []
    if page:
        await emit({"trash": page})
    return {"entries": count, "bytes": size}


async def trash_restore(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Restore what was at ``path``: the latest, or the ``version`` of an id, a content or a time."""
    path, version = _path(args), text_argument(args, "version")
    if path is None:
        raise UsageError("Which file?", "Name the path that it had; `wormhole trash` lists them.")
    await parts.mounts.settle()
    tree = parts.metadata.tree
    entries = tree.trash_of(path)
    text = text_of(path)
    if not entries:
        raise NotFoundError(f"The trash has nothing of '{text}'.", "Look with `wormhole trash`.")
    if version is not None:
        entries = one_of(entries, version, text)
    try:
        node = await restore(parts, entries[0])
    except FileSystemError as error:
        raise NotFoundError(f"'{text}' can't be restored: {error}.", "Look again with `wormhole trash`.") from error
    await parts.metadata.committer.durable()
    shown = None if node is None else tree.path(node.inode)
    return facts(entries[0], pod_names(parts)) | {
        "path": text,
        "restored_as": text if shown is None else text_of(shown),
    }


async def trash_empty(parts: Parts, args: dict[str, object], emit: Emit) -> dict[str, object]:
    """Purge everything, or what was at and below ``path``."""
    below = _path(args)
    count = size = 0
    for batch in batches(entry for entry in parts.metadata.tree.trash() if is_below(entry.path, below)):
        count += await purge(parts, batch)
        size += sum(entry.size for entry in batch)
        await lowlevel.checkpoint()
    await parts.metadata.committer.durable()
    return {"entries": count, "bytes": size}


def batches(entries: Iterable[TrashEntry]) -> Iterator[list[TrashEntry]]:
    """Yield entries some at a time."""
    batch: list[TrashEntry] = []
    for entry in entries:
        batch.append(entry)
        if len(batch) >= SLICE:
            yield batch
            batch = []
    if batch:
        yield batch


def is_below(path: bytes, folder: bytes | None) -> bool:
    """Tell whether a path is a folder or below it (None: all are)."""
    return folder is None or path == folder or path.startswith(folder + b"/")


def one_of(entries: list[TrashEntry], version: str, path: str) -> list[TrashEntry]:
    """Return the entries that a person means by an id, a time or the beginning of a content's id: exactly one.

    Raises `NotFoundError` and `UsageError` when it is none or several.
    """
    found = [entry for entry in entries if entry.id == version.lower()]
    found = found or [entry for entry in entries if is_moment(entry.removed_ns, version)]
    found = found or [entry for entry in entries if is_content(entry.content, version)]
    if not found:
        raise NotFoundError(f"The trash has no version '{version}' of '{path}'.", "Look with `wormhole trash`.")
    if len(found) > 1:
        ids = ", ".join(entry.id for entry in found[:8])
        raise UsageError(f"'{version}' may be {len(found)} versions of '{path}'.", f"Name one by its id: {ids}.")
    return found


def is_moment(time_ns: int, text: str) -> bool:
    """Tell whether a person's text is a time as it is shown, local or in seconds, or the beginning of it."""
    time_s = time_ns / 1e9
    shown = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_s))
    return len(text) >= len("2027-01-15") and (
        shown.startswith(text.replace("T", " ")) or f"{time_s!r}".startswith(text) or f"{time_s:.3f}".startswith(text)
    )


def is_content(content: bytes, text: str) -> bool:
    """Tell whether a text is the beginning of a content's id."""
    return len(text) >= LEAST_PREFIX and content.hex().startswith(text.lower())


def facts(entry: TrashEntry, names: dict[PodId, str]) -> dict[str, object]:
    """Return what scripts read of an entry."""
    return {
        "path": text_of(entry.path),
        "reason": entry.reason,
        "time": entry.removed_ns / 1e9,
        "size": entry.size,
        "content": entry.content.hex(),
        "pod": None if entry.pod is None else names.get(entry.pod, entry.pod),
        "id": entry.id,
    }


def pod_names(parts: Parts) -> dict[PodId, str]:
    """Return the names of all members, those that left included."""
    return {member.pod: member.name for member in parts.mesh.members()}


def _path(args: dict[str, object]) -> bytes | None:
    path = text_argument(args, "path")
    names = [name for name in (path or "").split("/") if name not in ("", ".")]
    return b"".join(b"/" + name.encode("utf-8", "surrogateescape") for name in names) or None
