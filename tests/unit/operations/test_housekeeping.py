"""What expires when, and how much gives way."""

from __future__ import annotations

from base.ids import ContentId, Dot, InodeId, WriterId, hash_bytes
from crdt_meta.trash import TrashEntry
from operations.housekeeping import LOW_BYTES, Ageing, shortage

DAY_NS = 86_400 * 10**9
NOW_NS = 20_000 * DAY_NS
KEEP_NS = 30 * DAY_NS


def entry(removed_ns: int) -> TrashEntry:
    raw = hash_bytes(removed_ns.to_bytes(16, "big"))
    dot = Dot(WriterId(raw[:8]), 1)
    return TrashEntry(b"/f", InodeId(raw[:16]), "deleted", ContentId(raw), 1, 0, removed_ns, None, dot)


def test_what_grew_old_while_this_pod_looked_goes() -> None:
    ageing = Ageing(KEEP_NS, NOW_NS - KEEP_NS - DAY_NS)
    old = entry(NOW_NS - KEEP_NS - DAY_NS // 2)
    assert ageing.before(NOW_NS) == NOW_NS - KEEP_NS
    assert list(ageing.due([old], NOW_NS)) == [old]
    assert ageing.expired_before_ns == NOW_NS - KEEP_NS


def test_what_came_late_gets_the_full_time() -> None:
    """A pod that was away, or whose clock stood in 1970, must not have its deletions purged at once."""
    ageing = Ageing(KEEP_NS, NOW_NS - KEEP_NS - DAY_NS)
    late = entry(DAY_NS)
    for days in range(30):
        assert list(ageing.due([late], NOW_NS + days * DAY_NS)) == [], days
    assert list(ageing.due([late], NOW_NS + 30 * DAY_NS)) == [late]


def test_nothing_goes_in_the_first_round_of_a_new_pod() -> None:
    ageing = Ageing(KEEP_NS, None)
    assert list(ageing.due([entry(NOW_NS - 2 * KEEP_NS)], NOW_NS)) == []
    assert ageing.expired_before_ns == NOW_NS - KEEP_NS
    aged = entry(NOW_NS - KEEP_NS + 1)
    assert list(ageing.due([aged], NOW_NS + DAY_NS)) == [aged]


def test_keeping_nothing_keeps_nothing() -> None:
    old = entry(NOW_NS - 1)
    assert list(Ageing(0, None).due([old], NOW_NS)) == [old]


def test_a_clock_that_goes_back_makes_nothing_old_twice() -> None:
    ageing = Ageing(KEEP_NS, NOW_NS)
    assert list(ageing.due([], NOW_NS)) == []
    assert ageing.expired_before_ns == NOW_NS


def test_room() -> None:
    assert shortage(1 << 40, LOW_BYTES) == 0
    assert shortage(1 << 40, LOW_BYTES - 1) == LOW_BYTES + 1
    assert shortage(100, 5) == 0
    assert shortage(100, 4) == 6
