"""Following other pods' holdings over the mesh: news are pushed as they happen, what was missed is asked for.

A pod that comes into sight is asked for everything since it was last heard of; all are asked again every half minute,
which costs a few bytes when there is nothing new.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Final

import anyio
from anyio.abc import TaskGroup

from base import beat
from base.errors import DamagedError, RefusedError, WormholeError
from base.ids import ContentId, PodId
from mesh.api import Mesh
from mesh.wire import Tag
from transfer.holdings import GENERATION_BYTES, PAGE_ROWS, Page, Verdict, answer_from, pack, unpack
from transfer.holdings_db import HoldingsDb

log = logging.getLogger(__name__)

ASK_EVERY_S: Final = 30.0
CALL_S: Final = 10.0
PATIENCE_S: Final = 10.0
"""How long nothing is fetched for good because a pod that is there hasn't said what it holds."""
MAX_PAGES: Final = 100_000
IN_VAIN: Final = 5
"""Pages of an answer without anything new, since news may have come meanwhile."""
LULL_S: Final = 0.5
LULLS: Final = 600
"""While the tree is still coming, of which people wait to see something, a long table waits for it: so often at most."""


class HoldingsSync:
    """Tells and asks.

    ``on_news`` is called with the contents whose holders changed, ``on_exchanged`` when a pod's table was followed to
    its end for the first time.
    """

    def __init__(
        self,
        mesh: Mesh,
        database: HoldingsDb,
        on_news: Callable[[Collection[ContentId]], None],
        on_exchanged: Callable[[], None],
        counts: Callable[[PodId], bool] = lambda _: True,
        is_behind: Callable[[], bool] = lambda: False,
    ) -> None:
        """``counts``: whether what a pod holds counts; what client pods hold is nobody's business.

        ``is_behind``: whether this pod is catching up with the tree.
        """
        self._counts = counts
        self._is_behind = is_behind
        self._mesh = mesh
        self._database = database
        self._on_news = on_news
        self._on_exchanged = on_exchanged
        self._patient_until: dict[PodId, float] = {}
        self._group: TaskGroup | None = None
        self._told: dict[PodId, int] = {}
        self._telling: set[PodId] = set()
        self._asking: set[PodId] = set()
        self._seen: frozenset[PodId] = frozenset()
        self._start = database.own_cursor.sequence
        self.exchanged: set[PodId] = set()
        """Pods whose table was followed to its end since this pod started."""
        mesh.handle(Tag.HOLDINGS_SINCE, self._answer)
        mesh.handle(Tag.HOLDINGS_PUSH, self._told_by)

    async def run(self, group: TaskGroup) -> None:
        """Ask everybody now and every half minute; news are told within ``group``."""
        self._group = group
        try:
            while True:
                self._seen = frozenset()
                self.look()
                await beat.rest(ASK_EVERY_S)
        finally:
            self._group = None  # links may still come and go, and say so

    def look(self) -> None:
        """See who is there; ask those who came."""
        alive = self._mesh.alive()
        came, self._seen = alive - self._seen, alive
        for pod in sorted(came):
            self._ask_soon(pod)

    def knows_all(self, pods: Iterable[PodId]) -> bool:
        """Tell whether these pods' tables are known, or were waited for long enough."""
        now = anyio.current_time()
        missing = [pod for pod in pods if pod not in self.exchanged]
        return not any(now < self._patient_until.setdefault(pod, now + PATIENCE_S) for pod in missing)

    def tell(self) -> None:
        """Push what is new in this pod's own table to everybody."""
        if self._group is None or not self._counts(self._mesh.pod_id):
            return
        for pod in sorted(self._mesh.alive() - self._telling):
            self._telling.add(pod)
            self._group.start_soon(self._tell, pod)

    async def _tell(self, pod: PodId) -> None:
        try:
            while (told := self._told.get(pod, self._start)) < self._database.own_cursor.sequence:
                page = self._database.page(told)
                if page.more:  # the latest only: whoever misses what is before asks for it when it has time
                    page = self._database.page(max(told, self._database.own_cursor.sequence - PAGE_ROWS // 2))
                self._told[pod] = page.upto
                await self._mesh.call(pod, Tag.HOLDINGS_PUSH, pack(page), timeout_s=CALL_S)
        except WormholeError as error:
            log.debug("holdings not told to %s: %s", pod, error)
        finally:
            self._telling.discard(pod)

    async def _told_by(self, sender: PodId, body: object) -> object:
        if not self._counts(sender):
            raise RefusedError("What a client pod holds doesn't count.")
        await self._apply(sender, unpack(body))
        return None

    async def _apply(self, pod: PodId, page: Page) -> Verdict:
        verdict = await self._database.apply(pod, page)
        if verdict is Verdict.ASK:
            self._ask_soon(pod)
        elif verdict is not Verdict.IGNORE:
            self._on_news([content for content, _ in page.rows])
        return verdict

    def _ask_soon(self, pod: PodId) -> None:
        if self._group is not None and pod not in self._asking:
            self._asking.add(pod)
            self._group.start_soon(self._ask, pod)

    async def _ask(self, pod: PodId) -> None:
        lulls, tries = LULLS, IN_VAIN
        try:
            for _ in range(MAX_PAGES):
                known = self._database.cursor(pod)
                body = [known.generation, known.sequence] if known is not None else [b"", 0]
                page = unpack(await self._mesh.call(pod, Tag.HOLDINGS_SINCE, body, timeout_s=CALL_S))
                verdict = await self._database.apply(pod, page)
                if verdict in {Verdict.APPLY, Verdict.ANEW}:
                    self._on_news([content for content, _ in page.rows])
                if not page.more:
                    if pod not in self.exchanged:
                        self.exchanged.add(pod)
                        self._on_exchanged()
                    return
                if verdict in {Verdict.IGNORE, Verdict.ASK} and not (tries := tries - 1):
                    raise DamagedError("A pod goes on telling what it told already.")
                while lulls and self._is_behind():
                    lulls -= 1
                    self._patient_until[pod] = anyio.current_time() + PATIENCE_S  # it is this pod that lets it wait
                    await anyio.sleep(LULL_S)
        except WormholeError as error:
            self._seen -= {pod}
            log.debug("holdings of %s not learnt: %s", pod, error)
        finally:
            self._asking.discard(pod)

    async def _answer(self, _sender: PodId, body: object) -> object:
        match body:
            case [bytes(generation), int(since)] if len(generation) in {0, GENERATION_BYTES}:
                own = self._database.own_cursor
                return pack(self._database.page(answer_from(own, generation, since)))
        raise DamagedError("A pod sent a question about holdings that can't be read.")
