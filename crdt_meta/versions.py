"""What becomes of contents that a new one replaces, and how what is in the trash is purged: pure, records in, records out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, NamedTuple

from base.ids import EMPTY_CONTENT, ContentId, Dot, WriterId
from crdt_meta.derive import PAST_DOTS, Version, Written, is_named, purged_dots, settled_dots
from crdt_meta.hlc import FRACTION_BITS
from crdt_meta.records import Birth, Content, Overwritten, Settled, Why

HOUR_MS: Final = 3_600_000
"""So far apart are two versions of a file at least."""


def is_young(clock: int, now: int) -> bool:
    """Tell whether a hybrid clock's stamp is of the last hour."""
    return 0 <= (now >> FRACTION_BITS) - (clock >> FRACTION_BITS) < HOUR_MS


class Kept(NamedTuple):
    """What is written with a content that replaces others."""

    versions: tuple[Overwritten, ...]
    purged: tuple[Dot, ...]
    """Older versions that go for them."""


NOTHING_KEPT: Final = Kept((), ())


def overwritten(
    versions: Sequence[Version],
    records: Sequence[Written],
    replaces: Iterable[Dot],
    content: ContentId,
    tick: Callable[[], int],
    limit: int,
    always: Why | None = None,
) -> Kept:
    """Return what to keep of a file whose contents in ``replaces`` a new content replaces.

    ``versions``: what no record replaces so far, the latest first; ``records``: of the file, overwritten contents
    included. Of what it showed one content an hour is kept at most, and ``limit`` in all. What had lost against that is
    always kept, and that itself, too, when ``always`` says as what.
    """
    named, given_up = set(replaces), purged_dots(records)
    gone: dict[ContentId, Version] = {}
    for one in versions:
        if is_named(one, named) and not is_named(one, given_up):
            gone.setdefault(one.content, one)
    kept: list[Overwritten] = []
    purged: list[Dot] = []
    for index, one in enumerate(gone.values()):
        if one.content in (content, EMPTY_CONTENT):
            continue
        if index:
            kept.append(_kept(one, tick(), Why.CONFLICT))
            continue
        earlier = listed(records)
        now = tick()
        if always or (limit and not any(is_young(body.clock, now) for body in earlier)):
            kept.append(_kept(one, now, always or Why.OVERWRITTEN))
            if kept[0].why is Why.OVERWRITTEN:
                purged = [body.dot for body in earlier[max(0, limit - 1) :]]
    return Kept(tuple(kept), tuple(purged))


def _kept(version: Version, clock: int, why: Why) -> Overwritten:
    return Overwritten(clock, version.dot, version.content, version.size, version.mtime_ns, why)


def listed(records: Sequence[Written]) -> list[Overwritten]:
    """Return the overwritten contents of a file that nobody purged, conflicts' losers apart, the latest first."""
    settled = settled_dots(records)
    found = {
        body.dot: body
        for _, body in sorted(records, key=lambda one: (one[1].clock, one[0]))
        if isinstance(body, Overwritten) and body.why is Why.OVERWRITTEN and body.dot not in settled
    }
    return sorted(found.values(), key=lambda body: (body.clock, body.dot), reverse=True)


def purge(
    writer: WriterId, records: Sequence[Written], dots: Iterable[Dot], shown: Collection[Dot], clock: int
) -> tuple[Settled, tuple[int, ...]]:
    """Return the writer's record that purges ``dots``, and the clocks of its overwritten contents that can go then.

    ``shown``: those of a file that lives, which would otherwise be shown beside it one day; they are given up. Of dots
    without any record that carries them only some are named still, for pods that are behind.
    """
    earlier = next((body for by, body in records if by == writer and isinstance(body, Settled)), Settled(0, ()))
    given_up = dict.fromkeys((*earlier.dots, *(dot for dot in dots if dot in shown)))
    purged = dict.fromkeys((*earlier.purged, *(dot for dot in dots if dot not in shown)))
    settled = {*given_up, *purged, *settled_dots(records)}
    gone: list[int] = []
    carried: set[Dot] = set()
    for by, body in records:
        if isinstance(body, (Content, Birth)):
            carried.add(Dot(by, body.clock))
        if isinstance(body, Birth) and body.origin is not None:
            carried.add(body.origin)
        if isinstance(body, Overwritten):
            if by == writer and body.dot in settled:
                gone.append(body.clock)
            else:
                carried.add(body.dot)
    return Settled(clock, _needed(given_up, carried), _needed(purged, carried)), tuple(gone)


def _needed(dots: Iterable[Dot], carried: Collection[Dot]) -> tuple[Dot, ...]:
    past = set([dot for dot in dots if dot not in carried][-PAST_DOTS:])
    return tuple(dot for dot in dots if dot in carried or dot in past)
