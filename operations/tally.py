"""How many files stand how. Small trees are judged content by content at every question, large ones by one query in a thread.

The query reads the whole tree, 1,000,000 files in some seconds, so its answer is used for ten times as long as it took.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyio import lowlevel, to_thread

from base.ids import EMPTY_CONTENT, ContentId, PodId
from mesh.api import State
from policies.situation import Standing, Tally, standing
from transfer.holdings import Holding

if TYPE_CHECKING:
    from operations.parts import Parts

PAGE: Final = 256
"""Contents judged between two looks at the rest of the pod."""
LARGE: Final = 10_000
"""Files from which on the query is used."""
REST: Final = 10.0
"""A tally is used for so many times as long as it took."""
MAPPED_BYTES: Final = 2_000_000_000
KEPT, CACHED, PLANNED, ABSENT = (1 << 12 * place for place in range(4))
"""Numbers of pods in one sum; twelve bits for each."""

QUERY: Final = """
SELECT {own} + {theirs} AS holders, count(*) FROM (
    SELECT content FROM inode WHERE content IS NOT NULL AND kind = 1
    UNION ALL SELECT content FROM sibling WHERE content <> :empty
) AS shown GROUP BY holders
"""
OWN: Final = (
    "ifnull((SELECT CASE state WHEN 2 THEN :kept WHEN 1 THEN :cached END FROM own WHERE content = shown.content), 0)"
)
THEIRS: Final = """ifnull((SELECT sum(ifnull(weight, :absent)) FROM theirs LEFT JOIN temp.weight USING (pod, state)
    WHERE content = shown.content), 0)"""


class Tallies:
    """Remembers the last tally."""

    def __init__(self) -> None:
        self._last: tuple[float, frozenset[object], Tally] | None = None

    def forget(self) -> None:
        """Count anew at the next question: other copies are wanted."""
        self._last = None

    async def tally(self, parts: Parts) -> Tally:
        """Judge every file."""
        if parts.metadata.tree.totals().files < LARGE:
            return await _one_by_one(parts)
        now, members = time.monotonic(), frozenset((one.pod, one.state, one.announced) for one in parts.mesh.members())
        if self._last is not None and now < self._last[0] and members == self._last[1]:
            return self._last[2]
        copies = {parts.cluster.redundancy.copies, *(rule.copies for rule in parts.cluster.rules if rule.copies)}
        if len(copies) == 1 and not parts.metadata.tree.view.marks:
            await parts.metadata.committer.durable()  # the query sees what is committed
            found = await _by_query(parts)
        else:
            found = await _one_by_one(parts)
        took_s = time.monotonic() - now
        self._last = (time.monotonic() + REST * took_s, members, found)
        return found


async def _one_by_one(parts: Parts) -> Tally:
    """Judge in slices, so that the mount is not held up."""
    announced = frozenset(member.pod for member in parts.mesh.members() if member.announced)
    counts: dict[Standing, int] = {}
    after: ContentId | None = None
    while page := parts.catalogue.page(after, PAGE):
        for info in page:
            found = _content_standing(parts, info.content, info.copies, announced)
            files = len(parts.metadata.tree.showing(info.content)) if found is not Standing.SAFE else 0
            counts[found] = counts.get(found, 0) + files
        after = page[-1].content
        await lowlevel.checkpoint()
    return _tally(parts, counts)


def _content_standing(parts: Parts, content: ContentId, copies: int, announced: frozenset[PodId]) -> Standing:
    """Judge one content by what is known of its holders."""
    if content == EMPTY_CONTENT:
        return Standing.SAFE
    holders = parts.transfer.holders(content)
    return standing(
        wanted=parts.catalogue.copies_wanted(copies),
        kept=len(holders.kept),
        cached=len(holders.cached),
        planned=len(holders.absent & announced),
        absent=len(holders.absent - announced),
    )


async def _by_query(parts: Parts) -> Tally:
    """Judge by one query: of every file how many pods hold its content, and how they are."""
    alive = parts.mesh.alive()
    weights: list[tuple[PodId, int, int]] = []
    for member in parts.mesh.members():
        for holding in (Holding.KEPT, Holding.CACHED):
            if member.pod in alive:
                weight = KEPT if holding is Holding.KEPT else CACHED
            elif member.state in (State.LEFT, State.EVICTED):
                weight = 0
            else:
                weight = PLANNED if member.announced else ABSENT
            weights.append((member.pod, int(holding), weight))
    groups = await to_thread.run_sync(count_holders, parts.home.metadata_db, parts.home.holdings_db, weights)
    wanted = parts.catalogue.copies_wanted(parts.cluster.redundancy.copies)
    counts: dict[Standing, int] = {}
    for holders, files in groups.items():
        kept, cached, planned, absent = (holders // place & 0xFFF for place in (KEPT, CACHED, PLANNED, ABSENT))
        found = standing(wanted=wanted, kept=kept, cached=cached, planned=planned, absent=absent)
        counts[found] = counts.get(found, 0) + files
    return _tally(parts, counts)


def count_holders(metadata: Path, holdings: Path, weights: Iterable[tuple[PodId, int, int]]) -> dict[int, int]:
    """Return sum of the weights of a content's holders → number of files; blocking.

    ``weights`` are (pod, holding, weight) of the other pods; one without counts as absent.
    """
    with closing(sqlite3.connect(f"file:{metadata}?mode=ro", uri=True, isolation_level=None)) as database:
        database.execute(f"PRAGMA mmap_size = {MAPPED_BYTES}")  # rows are looked up in no order
        database.execute("ATTACH ? AS holdings", (f"file:{holdings}?mode=ro",))
        database.execute(f"PRAGMA holdings.mmap_size = {MAPPED_BYTES}")
        database.execute("CREATE TEMP TABLE weight (pod TEXT, state INTEGER, weight INTEGER, PRIMARY KEY (pod, state))")
        database.executemany("INSERT INTO temp.weight VALUES (?, ?, ?)", weights)
        theirs = THEIRS if database.execute("SELECT 1 FROM theirs LIMIT 1").fetchone() else "0"
        query = QUERY.format(own=OWN, theirs=theirs)
        values = {"kept": KEPT, "cached": CACHED, "absent": ABSENT, "empty": EMPTY_CONTENT}
        return dict(database.execute(query, values).fetchall())


def _tally(parts: Parts, counts: Mapping[Standing, int]) -> Tally:
    short, pending, missing = (counts.get(one, 0) for one in (Standing.SHORT, Standing.PENDING, Standing.MISSING))
    return Tally(parts.metadata.tree.totals().files, short, pending, missing)
