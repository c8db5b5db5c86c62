"""`wormhole scrub`: every piece on this pod's disk is verified, what is damaged is fetched again."""

from __future__ import annotations

from typing import Final

import anyio

from base.ids import ContentId
from control.server import Emit
from operations.finding import text_of
from operations.parts import Parts
from operations.where import names
from transfer.scrubbing import Scrubbed

TELL_EVERY_S: Final = 0.2
MAX_NAMED: Final = 10_000


async def scrub(parts: Parts, args: dict[str, object], emit: Emit) -> dict[str, object]:
    """Verify everything; return what was damaged, what came back, and the files that couldn't be repaired."""
    told = 0.0

    async def progress(found: Scrubbed) -> None:
        nonlocal told
        if anyio.current_time() - told >= TELL_EVERY_S:
            told = anyio.current_time()
            total = max(found.bytes, found.total_bytes)
            await emit({"checked": found.checked, "bytes": found.bytes, "total": total, "damaged": len(found.damaged)})

    await parts.transfer.sync()
    found = await parts.transfer.scrubbing.run(progress)
    lost: dict[str, list[str]] = {}
    trash: list[str] = []
    for content in found.lost:
        away = names(parts, parts.transfer.holders(content).absent)
        paths, versions = names_of(parts, content)
        lost.update(dict.fromkeys(paths, away))
        trash += versions
        if not paths and not versions:
            trash.append(content.hex())
    return {
        "checked": found.checked,
        "bytes": found.bytes,
        "damaged": len(found.damaged),
        "repaired": len(found.damaged) - len(found.unrepaired & found.damaged),
        "lost": sorted(lost)[:MAX_NAMED],
        "lost_in_trash": sorted(trash)[:MAX_NAMED],
        "absent_holders": {path: pods for path, pods in sorted(lost.items())[:MAX_NAMED] if pods},
    }


def names_of(parts: Parts, content: ContentId) -> tuple[list[str], list[str]]:
    """Return the files that show a content, those being written included, and the paths that it has in the trash."""
    tree = parts.metadata.tree
    inodes = {*tree.showing(content), *(entry.inode for entry in tree.journalled() if entry.content == content)}
    paths = {text_of(path) for inode in inodes if (path := tree.path(inode)) is not None}
    return sorted(paths), sorted({text_of(entry.path) for entry in tree.trash_with(content)})
