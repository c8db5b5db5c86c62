"""Looking for what this pod must do about contents: those that are new or changed at once, all of them in passes.

What is found is said (`on_work`, `on_surplus`), and carried out elsewhere. What has too many copies, one of them here, is
looked at again until it hasn't: whose it is goes by how laden the pods are, and each hears of that at another time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Final

import anyio

from base.ids import EMPTY_CONTENT, ContentId, PodId
from transfer.access import Access
from transfer.api import Catalogue, ContentInfo
from transfer.holdings import Holding
from transfer.holdings_db import HoldingsDb
from transfer.replicator import Duty, Lull, Watch, WorkQueue, duty

PAGE: Final = 32
CHANGE_PAUSE_S: Final = 0.3
"""Changes of members are gathered for this long before all contents are looked at."""
HELD_S: Final = 60.0
KEPT_PAUSE_S: Final = 1.0
"""What is kept is looked at so long after something has changed, and what changes meanwhile with it."""
LOADS_PAUSE_S: Final = 2.0
"""What has too many copies is looked at again so long after others have said how laden they are now, and no more often."""
LOADS_LOOKS: Final = 2048
"""So much of it at a time; the rest when its own time comes, or with the next change."""
PASS_SHARE: Final = 3.0
"""A pass over all contents rests for so many times as long as it works."""
PASS_REST: Final = 5.0
"""Passes rest for so many times as long as the last one took, where placement changes while time passes."""
MAX_PROMISED: Final = 100_000
BULK: Final = 32
"""While this pod catches up with the tree, contents that come in such numbers aren't looked at one by one, but in a pass
over all once they have come (`Lull`): both at once take several times as long."""


class Surveying:
    """See the module. For the loop thread."""

    def __init__(
        self,
        me: PodId,
        access: Access,
        database: HoldingsDb,
        catalogue: Catalogue,
        alive: Callable[[], Collection[PodId]],
    ) -> None:
        self._me = me
        self._access = access
        self._database = database
        self._catalogue = catalogue
        self._alive = alive
        self.on_work: Callable[[ContentId, Duty], None] = lambda _content, _what: None
        """Called with what is to be fetched here, or may be."""
        self.on_surplus: Callable[[ContentId], None] = lambda _: None
        """Called with what is kept here and needn't be."""
        self.on_pass: Callable[[], None] = lambda: None
        """Called before each pass over all contents."""
        self.pass_every_s: Callable[[], float] = lambda: access.settings.pass_every_s
        self._kept = WorkQueue()
        """What is kept here, and may be too much."""
        self._kept_came = anyio.Event()
        self._watch = Watch()
        self._loads_changed = anyio.Event()
        self._promised: OrderedDict[ContentId, None] = OrderedDict()
        """What is to be kept here whatever the placement says, until it is."""
        self._held: OrderedDict[ContentId, float] = OrderedDict()
        """What somebody asked this pod to keep → until when it isn't too much."""
        self._pass_due = anyio.Event()
        self._lull = Lull()

    # -- what there is to look at

    def consider(self, contents: Collection[ContentId]) -> None:
        """Look at contents soon."""
        if len(contents) >= BULK and self._catalogue.is_behind() and self._lull.extend(anyio.current_time()):
            self._pass_due.set()
            return
        for content in contents:
            if content == EMPTY_CONTENT:
                continue
            self._watch.forget(content)
            if self._database.own(content) is Holding.KEPT:
                self._kept.add(content)
                self._kept_came.set()
            else:
                self.on_work(content, Duty.FETCH)

    def promise(self, content: ContentId) -> None:
        """Have a content kept here whatever the placement says, and look at it soon."""
        self._promised[content] = None
        if len(self._promised) > MAX_PROMISED:
            self._promised.popitem(last=False)
        self.consider([content])

    def is_promised(self, content: ContentId) -> bool:
        """Tell whether a content is to be kept here whatever the placement says."""
        return content in self._promised

    def settled(self, content: ContentId) -> None:
        """Note that a content is kept here now, or needn't be."""
        self._promised.pop(content, None)

    def hold(self, contents: Collection[ContentId]) -> None:
        """Keep contents here for a while, whatever the placement says: somebody waits for that."""
        for content in contents:
            if content != EMPTY_CONTENT and self._database.own(content) is not Holding.KEPT:
                self.promise(content)
            until = self._held[content] = anyio.current_time() + HELD_S
            self._kept.postpone(content, until)  # by then it may be too much
            self._kept_came.set()
            while len(self._held) > MAX_PROMISED:
                self._held.popitem(last=False)

    def is_surplus(self, content: ContentId) -> bool:
        """Tell whether this pod keeps a content that belongs elsewhere, where enough keep it."""
        info = self._catalogue.info(content)
        if self._held.get(content, 0.0) > anyio.current_time():
            return False
        return info is not None and self.duty(info) is Duty.DROP

    def look_at_all(self) -> None:
        """Say that members or placement have changed, or that something was missed: look at everything."""
        self._pass_due.set()

    def loads_changed(self) -> None:
        """Say that a pod is more, or less, laden than before: what is too much may be another's to drop."""
        self._loads_changed.set()

    # -- looking

    async def run(self) -> None:
        """Pass over all contents now, after changes and now and then."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._look_at_kept)
            group.start_soon(self._look_after_loads)
            while True:
                self._pass_due = anyio.Event()
                self.on_pass()
                started_at = anyio.current_time()
                await self._pass()
                rest_s = max(self.pass_every_s(), PASS_REST * (anyio.current_time() - started_at))
                with anyio.move_on_after(min(rest_s, self._access.settings.pass_every_s)):
                    await self._pass_due.wait()
                    await anyio.sleep(CHANGE_PAUSE_S)

    async def _pass(self) -> None:
        after: ContentId | None = None
        while True:
            started_at = anyio.current_time()
            while started_at < self._lull.until:
                await anyio.sleep_until(self._lull.until)
                started_at = anyio.current_time()
            page = self._catalogue.page(after, PAGE)
            for info in page:
                self._take_up(info)
            if len(page) == 0:
                return
            after = page[-1].content
            await anyio.sleep(PASS_SHARE * (anyio.current_time() - started_at))

    def _take_up(self, info: ContentInfo) -> None:
        """Have done what is to be done about a content."""
        what = self.duty(info)
        if what is Duty.DROP:
            self.on_surplus(info.content)
        elif what is not Duty.NONE:
            self.on_work(info.content, what)

    async def _look_at_kept(self) -> None:
        """Look whether what is kept here is too much, where something has changed."""
        while True:
            started_at = anyio.current_time()
            for _ in range(PAGE):
                content = self._kept.take(started_at)
                if content is None:
                    break
                info = self._catalogue.info(content)
                if info is not None:
                    self._take_up(info)
                    self._look_again(info, started_at)
            else:
                await anyio.sleep(PASS_SHARE * (anyio.current_time() - started_at))
                continue
            if self._kept.overflowed:
                self._kept.overflowed = False
                self._pass_due.set()
            self._kept_came = anyio.Event()
            next_at = self._kept.next_at()
            with anyio.move_on_at(float("inf") if next_at is None else next_at):
                await self._kept_came.wait()
            await anyio.sleep(KEPT_PAUSE_S)

    def _look_again(self, info: ContentInfo, now: float) -> None:
        """Have a content looked at again that has too many copies, one of them here."""
        content = info.content
        if self._database.own(content) is not Holding.KEPT or self._others_that_keep(content) < info.copies:
            self._watch.forget(content)
            return
        pause_s = self._watch.pause_s(content)
        if pause_s is not None:
            self._kept.postpone(content, now + pause_s)

    async def _look_after_loads(self) -> None:
        """Look at what has too many copies when others say that they are more, or less, laden."""
        while True:
            await self._loads_changed.wait()
            await anyio.sleep(LOADS_PAUSE_S)
            self._loads_changed = anyio.Event()
            for content in self._watch.first(LOADS_LOOKS):
                self._kept.add(content)
            self._kept_came.set()

    def duty(self, info: ContentInfo) -> Duty:
        """Return what this pod must do about a content."""
        holding = self._database.own(info.content)
        if not self._access.settings.keeps:
            return Duty.FETCH if info.keep and info.size and holding is Holding.NONE else Duty.NONE
        kept = self._others_that_keep(info.content)
        if holding is Holding.KEPT and kept < info.copies:
            return Duty.NONE  # nothing to decide: no copy is too much
        placed = tuple(self._catalogue.place(info))
        enough = 0 < len(placed) <= kept
        promised = info.content in self._promised
        return duty(info, self._me, placed, holding, published=promised, has_copies=enough)

    def _others_that_keep(self, content: ContentId) -> int:
        alive = self._alive()
        return sum(holding is Holding.KEPT and pod in alive for pod, holding in self._database.others(content).items())
