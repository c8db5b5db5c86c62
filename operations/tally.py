"""How many files stand how. Small trees are judged content by content at every question, large ones by one query in a thread.

The query reads the whole tree, 1,000,000 files in some seconds, so its answer is used for ten times as long as it took.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyio import lowlevel, to_thread

from base.ids import EMPTY_CONTENT, ContentId, PodId
from mesh.api import Role, State
from operations.catalogue import ROOM
from policies.situation import NOTHING, Acceptance, Held, Pods, Standing, Survey, Verdict
from transfer.api import ContentInfo
from transfer.holdings import Holding

if TYPE_CHECKING:
    from operations.parts import Parts

PAGE: Final = 64
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


GONE: Final = (State.LEFT, State.EVICTED)
SAMPLE: Final = 20
"""Contents that are named of each standing."""

Note = Callable[[Standing, ContentInfo], None]


def pods_of(parts: Parts) -> Pods:
    """Return the full members as this pod sees them."""
    present, planned, lost, unseen = set[PodId](), set[PodId](), set[PodId](), set[PodId]()
    room: dict[PodId, int] = {}
    for one in parts.mesh.members():
        if one.role is not Role.FULL or one.state in GONE:
            continue
        if one.last_seen is None and one.state in (State.SUSPECT, State.ABSENT):
            unseen.add(one.pod)
        elif one.announced:
            planned.add(one.pod)
        elif one.state is State.ABSENT:
            lost.add(one.pod)
        else:
            present.add(one.pod)
            told = one.meta.get(ROOM)
            if isinstance(told, int):
                room[one.pod] = told
    here = frozenset[PodId]() if parts.editor is None else frozenset({parts.mesh.pod_id})
    return Pods(frozenset(present), frozenset(planned), frozenset(lost), room, frozenset(unseen), here)


@dataclass(frozen=True, slots=True)
class Found:
    """What a look at everything found."""

    verdict: Verdict
    named: Mapping[Standing, tuple[ContentId, ...]]
    """The first contents that aren't safe, by standing; nothing of a large tree."""
    took_s: float = 0.0


class Tallies:
    """Remembers the last look at a large tree."""

    def __init__(self) -> None:
        self._last: tuple[float, object, Found] | None = None

    def forget(self) -> None:
        """Count anew at the next question: other copies are wanted."""
        self._last = None

    async def look(self, parts: Parts, accepted: Acceptance = NOTHING) -> Found:
        """Judge every file."""
        pods, now = pods_of(parts), time.monotonic()
        if parts.metadata.tree.totals().files < LARGE:
            return await look_one_by_one(parts, pods, accepted)
        key = (pods.present, pods.planned, pods.lost, accepted)
        if self._last is not None and now < self._last[0] and key == self._last[1]:
            return self._last[2]
        copies = {parts.cluster.redundancy.copies, *(rule.copies for rule in parts.cluster.rules if rule.copies)}
        is_plain = len(copies) == 1 and not parts.metadata.tree.view.marks
        if is_plain and parts.catalogue.most_copies is None:
            await parts.metadata.committer.durable()  # the query sees what is committed
            found = await _by_query(parts, pods, accepted)
        else:
            found = await look_one_by_one(parts, pods, accepted)
        took_s = time.monotonic() - now
        self._last = (time.monotonic() + REST * took_s, key, found)
        return found


async def look_one_by_one(parts: Parts, pods: Pods, accepted: Acceptance = NOTHING, note: Note | None = None) -> Found:
    """Judge content by content, in slices, so that the mount is not held up; ``note`` is told of those that aren't safe."""
    started = time.monotonic()
    survey, named = Survey(pods, accepted), dict[Standing, list[ContentId]]()
    after: ContentId | None = None
    while page := parts.catalogue.page(after, PAGE):
        for info in page:
            if info.content == EMPTY_CONTENT:
                continue
            found = survey.add(_held(parts, info, pods))
            if found is not Standing.SAFE:
                some = named.setdefault(found, [])
                if len(some) < SAMPLE and parts.metadata.tree.showing(info.content):
                    some.append(info.content)
                if note is not None:
                    note(found, info)
        after = page[-1].content
        await lowlevel.checkpoint()
    verdict = survey.verdict(parts.metadata.tree.totals().files)
    return Found(verdict, {one: tuple(some) for one, some in named.items()}, time.monotonic() - started)


def _held(parts: Parts, info: ContentInfo, pods: Pods) -> Held:
    """Return what is known of one content; of what is only in the trash no file suffers."""
    known = parts.transfer.known_holdings(info.content)
    kept = frozenset(pod for pod, holding in known.items() if holding is Holding.KEPT)
    cached = frozenset(pod for pod, holding in known.items() if holding is Holding.CACHED)
    copies = info.configured or info.copies
    safe = pods.full and len(kept & pods.present) + len(kept & pods.planned) >= copies and kept & pods.present
    files = 0 if safe else len(parts.metadata.tree.showing(info.content))
    promised = info.copies if info.copies < copies else None
    return Held(info.content, files, info.size if files else 0, copies, kept, cached, info.author, promised)


async def _by_query(parts: Parts, pods: Pods, accepted: Acceptance) -> Found:
    """Judge by one query: of every file how many pods hold its content, and how they are."""
    started = time.monotonic()
    weights: list[tuple[PodId, int, int]] = []
    for member in parts.mesh.members():
        for holding in (Holding.KEPT, Holding.CACHED):
            if member.pod in pods.present:
                weight = KEPT if holding is Holding.KEPT else CACHED
            elif member.pod in pods.planned:
                weight = PLANNED
            else:
                weight = ABSENT if member.pod in pods.lost | pods.unseen else 0
            weights.append((member.pod, int(holding), weight))
    groups = await to_thread.run_sync(count_holders, parts.home.metadata_db, parts.home.holdings_db, weights)
    wanted = parts.catalogue.copies_wanted(parts.cluster.redundancy.copies)
    totals = parts.metadata.tree.totals()
    survey = Survey(pods, accepted)
    for holders, files in groups.items():
        kept, cached, planned, absent = (holders // place & 0xFFF for place in (KEPT, CACHED, PLANNED, ABSENT))
        size = totals.bytes // max(1, totals.files)
        survey.add_many(files, size, wanted=wanted, kept=kept, cached=cached, planned=planned, absent=absent)
    return Found(survey.verdict(totals.files), {}, time.monotonic() - started)


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
