"""When new contents are copied."""

from __future__ import annotations

from base.ids import ContentId, hash_bytes
from transfer.pacing import MAX_WAITING, Pacing


def content(number: int) -> ContentId:
    return ContentId(hash_bytes(number.to_bytes(8, "big")))


A, B = content(1), content(2)


def paced(mode, settle_s=10.0, interval_s=300.0) -> Pacing:
    pacing = Pacing()
    pacing.configure(mode, settle_s, interval_s)
    return pacing


def test_instant_puts_nothing_off():
    pacing = paced("instant")
    pacing.noticed([A], 5.0)
    assert pacing.waits_until(A, 5.0) is None
    assert len(pacing) == 0


def test_settled_waits_from_when_it_was_first_noticed():
    pacing = paced("settled")
    pacing.noticed([A], 5.0)
    pacing.noticed([A, B], 8.0)
    assert (pacing.waits_until(A, 14.9), pacing.waits_until(B, 14.9)) == (15.0, 18.0)
    assert (pacing.waits_until(A, 15.0), pacing.waits_until(B, 15.0)) == (None, 18.0)
    assert pacing.waits_until(A, 15.0) is None, "and is not put off again"


def test_interval_waits_for_a_common_tick():
    pacing = paced("interval", interval_s=5.0)
    pacing.noticed([A], 10.1)
    pacing.noticed([B], 14.9)
    assert (pacing.waits_until(A, 14.95), pacing.waits_until(B, 14.95)) == (15.0, 15.0)
    assert pacing.waits_until(A, 15.0) is None


def test_what_was_not_noticed_or_is_waited_for_is_due():
    pacing = paced("settled")
    assert pacing.waits_until(A, 0.0) is None, "a repair"
    pacing.noticed([A, B], 0.0)
    pacing.hurry([A])
    assert (pacing.waits_until(A, 1.0), pacing.waits_until(B, 1.0)) == (None, 10.0)
    pacing.clear()
    assert pacing.waits_until(B, 1.0) is None


def test_another_configuration_ends_all_waiting_and_the_same_doesn_t():
    pacing = paced("settled")
    pacing.noticed([A], 0.0)
    pacing.configure("settled", 10.0, 300.0)
    assert pacing.waits_until(A, 1.0) == 10.0
    pacing.configure("instant", 10.0, 300.0)
    assert pacing.waits_until(A, 1.0) is None


def test_it_is_bounded():
    pacing = paced("settled")
    pacing.noticed([content(number) for number in range(MAX_WAITING + 10)], 0.0)
    assert len(pacing) == MAX_WAITING
    assert pacing.waits_until(content(0), 1.0) is None, "the oldest doesn't wait"
    assert pacing.waits_until(content(MAX_WAITING), 1.0) == 10.0
