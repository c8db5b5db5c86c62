"""`wormhole scrub`: every piece on this pod's disk is verified, what is damaged is fetched again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

import anyio

from base.errors import WormholeError
from base.ids import ContentId
from control.server import Emit
from operations.finding import text_of
from operations.parts import Parts
from operations.where import names
from transfer.scrubbing import Scrubbed

TELL_EVERY_S: Final = 0.2
SCRUB_EVERY_S: Final = 14 * 86400.0
"""Everything that a pod has on its disk is verified so often without being asked."""
LOOK_FIRST_S: Final = 600.0
LOOK_EVERY_S: Final = 3600.0
META_SCRUBBED: Final = "scrubbed"
"""Where it is written down when the last one ended (seconds since the epoch)."""
MAX_NAMED: Final = 10_000
MAX_LOGGED: Final = 20


logger = logging.getLogger(__name__)


class Scrubs:
    """Verifies everything now and then, gently, and tells the log what was found."""

    def __init__(self, parts: Parts, now_s: Callable[[], float] = time.time) -> None:
        self._parts = parts
        self._now_s = now_s

    async def run(self) -> None:
        """Look whether it is time, until cancelled."""
        await anyio.sleep(LOOK_FIRST_S)
        while True:
            if self.is_due():
                try:
                    await self.scrub()
                except WormholeError as error:  # one by command is under way, or the disk has trouble
                    logger.warning("what is stored here isn't verified now: %s", error)
            await anyio.sleep(LOOK_EVERY_S)

    def is_due(self) -> bool:
        """Tell whether the last one is long ago. A new pod's first comes after the same time."""
        stored = self._parts.metadata.store.get_meta(META_SCRUBBED)
        last_s = float(int.from_bytes(stored, "big")) if stored else float(self._parts.transfer.joined_s)
        return not 0 <= self._now_s() - last_s < SCRUB_EVERY_S

    async def scrub(self) -> None:
        """Verify everything now. Raises as `Scrubbing.run`."""

        async def progress(_found: Scrubbed) -> None:
            """Tell nobody."""

        await self._parts.transfer.sync()
        found = await self._parts.transfer.scrubbing.run(progress, gently=True)
        level = logging.WARNING if found.damaged or found.lost else logging.INFO
        repaired = len(found.damaged) - len(found.unrepaired & found.damaged)
        logger.log(
            level,
            "verified %d pieces: %d damaged, %d came back from others",
            found.checked,
            len(found.damaged),
            repaired,
        )
        for content in found.lost[:MAX_LOGGED]:
            paths, versions = names_of(self._parts, content)
            logger.warning("no pod that answers has all of %s", ", ".join([*paths, *versions]) or content.hex())
        self._parts.metadata.store.set_meta(META_SCRUBBED, max(0, int(self._now_s())).to_bytes(8, "big"))
        self._parts.metadata.committer.request()


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
