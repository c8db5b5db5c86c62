"""Placement moves as little as possible when pods come and go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from base.ids import PodId, hash_bytes
from policies.placement import Candidate, place

WEIGHTS = st.sampled_from([0.0, 0.25, 1.0, 1.0, 2.0, 8.0])
CLUSTERS = st.lists(WEIGHTS, min_size=1, max_size=8).map(
    lambda weights: [Candidate(PodId(hash_bytes(bytes([i])).hex()[:32]), weight) for i, weight in enumerate(weights)]
)
CONTENTS = st.binary(min_size=1, max_size=4).map(hash_bytes)


@given(CONTENTS, CLUSTERS, st.integers(1, 6), st.data())
def test_a_pod_that_goes_leaves_only_what_it_had(content, candidates, copies, data):
    author = data.draw(st.sampled_from([None, *(candidate.pod for candidate in candidates)]))
    gone = data.draw(st.sampled_from(candidates))
    before = place(content, 1, copies, author, candidates)
    after = place(content, 1, copies, author, [candidate for candidate in candidates if candidate != gone])
    if gone.pod not in before:
        assert after == before
    else:
        stayed = [pod for pod in before if pod != gone.pod]
        assert list(after[: len(stayed)]) == stayed
        assert len(after) == min(copies, len(candidates) - 1)


@given(CONTENTS, CLUSTERS, st.integers(1, 6), WEIGHTS, st.data())
def test_a_pod_that_comes_takes_only_what_it_wins(content, candidates, copies, weight, data):
    author = data.draw(st.sampled_from([None, *(candidate.pod for candidate in candidates)]))
    newcomer = Candidate(PodId("f" * 32), weight)
    before = place(content, 1, copies, author, candidates)
    after = place(content, 1, copies, author, [*candidates, newcomer])
    assert [pod for pod in after if pod != newcomer.pod] == list(before[: len(after) - (newcomer.pod in after)])
    assert set(before) - set(after) <= set(before[-1:])


@given(CONTENTS, CLUSTERS, st.integers(1, 6), st.randoms())
def test_everybody_computes_the_same(content, candidates, copies, rng):
    shuffled = list(candidates)
    rng.shuffle(shuffled)
    assert place(content, 9, copies, candidates[0].pod, shuffled) == place(
        content, 9, copies, candidates[0].pod, candidates
    )


@given(CONTENTS, CLUSTERS, st.integers(1, 6), st.data())
def test_more_weight_never_loses_a_copy(content, candidates, copies, data):
    grown = data.draw(st.sampled_from(candidates))
    more = [Candidate(c.pod, c.weight * 2 + 0.1 if c == grown else c.weight) for c in candidates]
    if grown.pod in place(content, 1, copies, None, candidates):
        assert grown.pod in place(content, 1, copies, None, more)
