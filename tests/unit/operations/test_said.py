"""What has ended of an acceptance, as pods tell it each other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from base.ids import PodId
from operations.said import Which, pack_ended, unpack_ended

PODS = tuple(PodId(f"{number:032x}") for number in range(40))


@given(st.lists(st.sampled_from(PODS), unique=True), st.sets(st.sampled_from(PODS)), st.booleans())
def test_what_is_told_is_understood(pods: list[PodId], returned: set[PodId], is_over: bool) -> None:
    order, which = tuple(sorted(pods)), Which(3, PODS[0])
    told = pack_ended(which, order, frozenset(returned), is_over)
    assert unpack_ended(told, which, order) == (frozenset(returned & set(pods)), is_over)
    for other in (Which(4, PODS[0]), Which(3, PODS[1])):
        assert unpack_ended(told, other, order) == (frozenset(), False)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=40) | st.binary(max_size=9),
        lambda inner: st.lists(inner, max_size=5),
    ),
    st.binary(max_size=200),
)
def test_nonsense_ends_nothing_but_pods_of_the_acceptance(told: object, bits: bytes) -> None:
    which = Which(3, PODS[0])
    assert unpack_ended(told, which, PODS) == (frozenset(), False)
    assert unpack_ended([3, PODS[0], bits, True], which, PODS[:5])[0] <= set(PODS[:5])
