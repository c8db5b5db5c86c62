"""`wormhole pin` and `unpin`: files that this pod keeps whatever the cluster's placement says.

A client pod, which keeps no copies, holds them in its cache, where they count for nobody else.
A pin is a rule of pod.toml (`policies.pinning`); the byte store fetches and keeps what the rules say. Nothing is dropped
when a pin is taken away.
"""

from __future__ import annotations

from typing import Final

import anyio
from anyio import lowlevel

from base.errors import NotFoundError, RefusedError, UsageError
from base.ids import EMPTY_CONTENT, ContentId
from control.server import Emit
from crdt_meta.node import Delta, Kind, Node
from operations.configuration import file_of, take, text_of
from operations.finding import files_below, find, number_argument, text_argument
from operations.finding import text_of as path_text
from operations.parts import Parts
from policies.pinning import keeping_rule, pattern_of, with_pin, without_pin

LOOK_EVERY_S: Final = 0.25
SLICE: Final = 500


async def pin(parts: Parts, args: dict[str, object], emit: Emit) -> dict[str, object]:
    """Keep a file or folder here from now on; return when all of it is here, or after ``timeout_s``."""
    timeout_s = number_argument(args, "timeout_s", 3600.0)
    raw, node = find(parts.metadata.tree, text_argument(args, "path") or "/")
    path = path_text(raw)
    await add(parts, raw, node)
    with anyio.move_on_after(timeout_s):
        await _arrived(parts, path, emit)
    return _answer(parts, path)


async def add(parts: Parts, raw: bytes, node: Node) -> None:
    """Pin a file or folder; return at once. Raises `UsageError`, `ConfigError`."""
    path = path_text(raw)
    if node.kind not in (Kind.FILE, Kind.DIRECTORY):
        raise UsageError(f"'{path}' has no content to keep.", "Name a file or a folder.")
    await parts.mounts.settle()
    pattern = pattern_of(path, folder=node.kind is Kind.DIRECTORY)
    async with parts.live.changing:
        before = text_of(parts, "pod")
        await take(parts, "pod", before, with_pin(before, pattern, file_of(parts, "pod")))


async def unpin(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Take a pin away. Raises `RefusedError` when another rule of pod.toml keeps the path all the same."""
    given = text_argument(args, "path") or "/"
    path = "/" + "/".join(part for part in given.split("/") if part not in ("", "."))
    patterns = [pattern_of(path, folder=folder) for folder in (False, True)]
    if not any(rule.keep and rule.match in patterns for rule in parts.pod.rules):
        find(parts.metadata.tree, path)  # what was deleted or renamed may be pinned still
    async with parts.live.changing:
        before = after = text_of(parts, "pod")
        for pattern in patterns:
            after = without_pin(after, pattern, file_of(parts, "pod"))
        await take(parts, "pod", before, after)
    left = _rule(parts, path)
    if left is not None and after == before:
        raise RefusedError(
            f"'{path}' has no pin of its own: rule {left + 1} of pod.toml, '{parts.pod.rules[left].match}', keeps it.",
            "Unpin what that rule names, or change it with `wormhole config edit --pod-level`.",
        )
    return _answer(parts, path) | {"changed": after != before}


def is_pinned(parts: Parts, path: str) -> bool:
    """Tell whether a rule keeps a file, or a folder as a whole, here."""
    return _rule(parts, path) is not None


def _rule(parts: Parts, path: str) -> int | None:
    """Return the number of the rule that keeps a file, or a folder as a whole, here."""
    try:
        is_file = find(parts.metadata.tree, path)[1].kind is Kind.FILE
    except NotFoundError:
        is_file = False
    return keeping_rule(parts.pod, path if is_file else f"{path.rstrip('/')}/")


def _wanted(parts: Parts, path: str) -> dict[ContentId, tuple[int, int]]:
    """Return the contents at and below a path that are to be kept here → (files, bytes of each)."""
    found: dict[ContentId, tuple[int, int]] = {}
    for raw, node in files_below(parts.metadata.tree, path):
        if parts.catalogue.wanted(node.inode, path_text(raw)).keep:
            found[node.content] = found.get(node.content, (0, 0))[0] + 1, node.size
    return found


def is_here(parts: Parts, content: ContentId) -> bool:
    """Tell whether all of a content is here and stays: kept, or on a client pod in the cache."""
    local = parts.transfer.local(content)
    return local == "kept" or (local == "cached" and parts.editor is not None)


async def _arrived(parts: Parts, path: str, emit: Emit) -> None:
    """Return when everything that is to be kept at and below a path is here."""
    wanted = _wanted(parts, path)
    total_files, total = _sums(wanted)
    missing = wanted
    while True:
        still: dict[ContentId, tuple[int, int]] = {}
        for number, (content, counts) in enumerate(missing.items()):
            if not is_here(parts, content) and parts.catalogue.info(content) is not None:
                still[content] = counts
            if number % SLICE == SLICE - 1:
                await lowlevel.checkpoint()
        if missing is wanted:
            parts.transfer.noticed(list(still))
        missing = still
        files, size = _sums(missing)
        await emit(
            {"files": total_files - files, "total_files": total_files, "bytes": total - size, "total_bytes": total}
        )
        if not missing:
            return
        await anyio.sleep(LOOK_EVERY_S)


def _sums(contents: dict[ContentId, tuple[int, int]]) -> tuple[int, int]:
    """Return how many files show these contents, and the bytes of them."""
    return sum(files for files, _ in contents.values()), sum(files * size for files, size in contents.values())


def _answer(parts: Parts, path: str) -> dict[str, object]:
    """Return what a pin amounts to now."""
    files = size = missing = 0
    try:
        for _, node in files_below(parts.metadata.tree, path):
            files, size = files + 1, size + node.size
            missing += not is_here(parts, node.content)
    except NotFoundError:
        pass
    return {"path": path, "pinned": is_pinned(parts, path), "files": files, "bytes": size, "missing": missing}


def moved(parts: Parts, delta: Delta) -> None:
    """Have what was moved below a pin fetched: its contents are as they were, so that nothing else tells."""
    if not any(rule.keep for rule in parts.pod.rules):
        return
    tree = parts.metadata.tree
    files: list[ContentId] = []
    for parent, name in delta.entries:
        node = tree.lookup(parent, name)
        if node is None:
            continue
        if node.kind is Kind.FILE:
            if node.content not in delta.contents and node.content != EMPTY_CONTENT:
                files.append(node.content)
        elif node.kind is Kind.DIRECTORY and tree.children(node.inode):
            parts.transfer.reconsider()
    if files:
        parts.transfer.noticed(files)
