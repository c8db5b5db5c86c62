"""Dropping copies that are one too many. No timer makes it safe: what is asked is asked of who looks at its disk.

    held --mark (durable)--> dropping --enough others say yes--> told to be gone, then the pieces go
                                 |
                                 +--too few--> held again, tried later

From the mark on this pod answers "no" when others ask whether it keeps the content, so of two pods that want to drop
theirs at the same time each hears the other's "no". A "yes" is given after a look at the files. A pod that is suspended
between the last "yes" and the removal harms nobody: no one has counted its copy since the mark. After a restart a marked
content is held only once it was verified again.

Must never: drop what is pinned, open, unpublished, or kept by fewer others that answered than should keep it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Sequence
from typing import Final

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from base.errors import DamagedError, WormholeError
from base.ids import ContentId, PodId
from mesh.api import Mesh
from mesh.wire import Tag
from transfer.access import Access
from transfer.api import Catalogue
from transfer.gather import is_whole
from transfer.holdings import Holding
from transfer.holdings_db import HoldingsDb
from transfer.releasing import Releasing

log = logging.getLogger(__name__)

BATCH: Final = 256
"""Contents asked about in one message."""
MAX_DUE: Final = 50_000
GATHER_S: Final = 3.0
"""What is too much is gathered for so long: by then the others have told how laden they are now."""
ASK_S: Final = 20.0
RETRY_S: Final = (4.0, 20.0)
"""What others don't keep is looked at again after so long, the second time and later after the longer, and up to half as
long again by chance. Two that asked each other at the same time agree as soon as both know how laden they are."""
LOOKED_AT_ONCE: Final = 16
"""Contents whose files are looked at between two turns of the loop."""


def may_drop(yes: Collection[PodId], me: PodId, wanted: int) -> bool:
    """Decide from those who said "yes": as many others as should keep it, and at least one."""
    return len(set(yes) - {me}) >= max(1, wanted)


class Dropping:
    """Drops what it is told is too much, once it has been verified. For the loop thread."""

    def __init__(
        self,
        mesh: Mesh,
        access: Access,
        database: HoldingsDb,
        catalogue: Catalogue,
        releasing: Releasing,
        is_surplus: Callable[[ContentId], bool],
        copies_wanted: Callable[[ContentId], int],
        knows_holders: Callable[[], bool],
        rng: random.Random,
    ) -> None:
        """``is_surplus``: whether this pod keeps a content and needn't; asked again after the others have answered."""
        self._mesh = mesh
        self._access = access
        self._database = database
        self._catalogue = catalogue
        self._releasing = releasing
        self._is_surplus = is_surplus
        self._copies_wanted = copies_wanted
        self._knows_holders = knows_holders
        self._rng = rng
        self._due: dict[ContentId, None] = {}
        self._tried: dict[ContentId, None] = {}
        """What others didn't keep when they were asked last."""
        self._wake = anyio.Event()
        self.says_no = False
        """Set while this pod is handing over what it keeps: nobody is to rely on its copies."""
        self.dropped = anyio.Event()
        """Set, and replaced, when something was dropped."""
        mesh.handle(Tag.HOLDING_ASK, self._answer)

    def consider(self, content: ContentId) -> None:
        """Drop a content soon if it is too much."""
        if len(self._due) < MAX_DUE:
            self._due[content] = None
            self._wake.set()

    # -- what others ask

    async def _answer(self, _sender: PodId, body: object) -> object:
        if not isinstance(body, list) or len(body) > BATCH:
            raise DamagedError("A pod sent a question about copies that can't be read.")
        answers: list[bool] = []
        for number, content in enumerate(body):
            if not isinstance(content, bytes) or len(content) != 32:
                raise DamagedError("A pod sent a question about copies that can't be read.")
            answers.append(self._keeps(ContentId(content)))
            if number % LOOKED_AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
        return [had and self._counts(ContentId(content)) for content, had in zip(body, answers, strict=True)]

    def _counts(self, content: ContentId) -> bool:
        return (
            not self.says_no and self._database.own(content) is Holding.KEPT and not self._database.is_dropping(content)
        )

    def _keeps(self, content: ContentId) -> bool:
        """Tell whether others may rely on this pod's copy: told, not being dropped, and every piece on the disk."""
        info = self._catalogue.info(content)
        if info is None or not self._counts(content):
            return False
        try:
            manifest = self._access.manifest_now(content, info.size)
        except DamagedError:
            return False
        return manifest is not None and is_whole(self._access.store, content, manifest)

    # -- asking

    async def verified(self, contents: Sequence[ContentId]) -> dict[ContentId, set[PodId]]:
        """Return who says, after a look at its disk, that it keeps each of at most `BATCH` contents."""
        said: dict[ContentId, set[PodId]] = {content: set() for content in contents}
        by_pod: dict[PodId, list[ContentId]] = {}
        alive = self._mesh.alive()
        for content in contents:
            for pod, holding in self._database.others(content).items():
                if holding is Holding.KEPT and pod in alive:
                    by_pod.setdefault(pod, []).append(content)

        async def ask(pod: PodId, asked: list[ContentId]) -> None:
            try:
                answer = await self._mesh.call(pod, Tag.HOLDING_ASK, asked, timeout_s=ASK_S)
            except WormholeError as error:
                log.debug("%s wasn't asked what it keeps: %s", pod, error)
                return
            if isinstance(answer, list) and len(answer) == len(asked):
                for content, keeps in zip(asked, answer, strict=True):
                    if keeps is True:
                        said[content].add(pod)

        async with anyio.create_task_group() as group:
            for pod, asked in by_pod.items():
                group.start_soon(ask, pod, asked)
        return said

    # -- dropping

    async def resume(self) -> None:
        """After a start: what was being dropped is held again if all of it is here, else told to be gone."""
        marked = self._database.dropping()
        left = [content for content in marked if self._database.own(content) is Holding.NONE]
        gone: dict[ContentId, Holding] = {}
        for content in marked:
            info = self._catalogue.info(content)
            manifest = self._access.manifest_now(content, info.size) if info is not None else None
            if info is not None and (manifest is None or not is_whole(self._access.store, content, manifest)):
                gone[content] = Holding.NONE
        if gone:
            await self._database.record(gone)
        if left:
            await self._releasing.drop(left)
        await self._database.mark_dropping(marked, on=False)

    async def run(self, group: TaskGroup) -> None:
        """Drop what is due, until cancelled."""
        while True:
            await self._wake.wait()
            await anyio.sleep(GATHER_S)
            if not self._due:
                self._wake = anyio.Event()
                continue
            batch = list(self._due)[:BATCH]
            for content in batch:
                del self._due[content]
            try:
                again = await self._round(batch)
            except WormholeError as error:
                log.warning("copies that are too many can't be dropped: %s", error)
                again = batch
            tried = [content for content in again if content in self._tried]
            fresh = [content for content in again if content not in self._tried]
            for content in batch:
                self._tried.pop(content, None)
            self._tried |= dict.fromkeys(again[: MAX_DUE - len(self._tried)])
            for contents, pause_s in zip((fresh, tried), RETRY_S, strict=True):
                if contents:
                    group.start_soon(self._later, contents, pause_s)

    async def _later(self, contents: Collection[ContentId], pause_s: float) -> None:
        await anyio.sleep(pause_s * (1 + self._rng.random() / 2))
        for content in contents:
            self.consider(content)

    async def _round(self, batch: Sequence[ContentId]) -> list[ContentId]:
        """Drop what may be dropped; return what is to be tried again."""
        if self.says_no or not self._knows_holders():
            return list(batch)
        surplus = [content for content in batch if self._is_free(content)]
        if not surplus:
            return []
        await self._database.mark_dropping(surplus, on=True)
        dropped: list[ContentId] = []
        try:
            said = await self.verified(surplus)
            me = self._mesh.pod_id
            dropped = [
                content
                for content in surplus
                if may_drop(said[content], me, self._copies_wanted(content)) and self._is_free(content)
            ]
            if dropped:
                await self._releasing.drop(dropped)
                self.dropped.set()
                self.dropped = anyio.Event()
                log.info("dropped %d copies that were too many", len(dropped))
        finally:
            with anyio.CancelScope(shield=True):
                await self._database.mark_dropping(surplus, on=False)
        gone = set(dropped)
        return [content for content in surplus if content not in gone]

    def _is_free(self, content: ContentId) -> bool:
        """Tell whether this pod keeps a content that it needn't, and that nobody here is using."""
        access = self._access
        return (
            self._database.own(content) is Holding.KEPT
            and content not in access.pinned
            and content not in access.claims.contents()
            and self._is_surplus(content)
        )
