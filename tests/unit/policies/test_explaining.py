"""What `why` and `safe-to-unplug` say, from plain facts."""

from __future__ import annotations

import pytest

from base.ids import PodId
from policies.config import parse_cluster, parse_pod
from policies.explaining import Facts, copies_rule, named, no_cache_rule, reason
from policies.unplugging import endangers, floor

CLUSTER = parse_cluster("""
[redundancy]
copies = 2
[[rule]]
match = "photos/**"
copies = 3
[[rule]]
match = "*.tmp"
cache = false
""")


@pytest.mark.parametrize(
    ("path", "copies", "wanted", "said"),
    [
        ("/a", 2, 2, "redundancy.copies = 2"),
        ("/a", 2, 1, "redundancy.copies = 2; the cluster has 1 full pod"),
        ("/a", 3, 3, "3 copies by another file of the same content (redundancy.copies = 2)"),
        ("/photos/a", 3, 3, "rule 1 of cluster.toml, 'photos/**': copies = 3"),
        ("/photos/a.tmp", 3, 2, "rule 1 of cluster.toml, 'photos/**': copies = 3; the cluster has 2 full pods"),
    ],
)
def test_why_so_many_copies(path: str, copies: int, wanted: int, said: str) -> None:
    assert copies_rule(CLUSTER, path, copies, wanted) == said


@pytest.mark.parametrize(
    ("pod", "path", "said"),
    [
        (None, "/a.tmp", "rule 2 of cluster.toml, '*.tmp': cache = false"),
        (None, "/a", ""),
        ("", "/a", ""),
        ("[cache]\nmode = 'stream'", "/a", 'cache.mode = "stream" in pod.toml'),
        ("[[rule]]\nmatch = '*'\ncache = true", "/a.tmp", ""),
        ("[[rule]]\nmatch = 'a'\ncache = false", "/a", "rule 1 of pod.toml, 'a': cache = false"),
    ],
)
def test_why_it_is_not_cached(pod: str | None, path: str, said: str) -> None:
    assert no_cache_rule(CLUSTER, None if pod is None else parse_pod(pod), path) == said


def test_a_long_pattern_is_cut() -> None:
    config = parse_pod(f"[[rule]]\nmatch = '{'x' * 500}'\nkeep = true")
    assert len(named(0, config, "keep = true")) < 120


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (Facts("kept", is_author=True, place=1), "its writer keeps it"),
        (Facts("kept", is_author=True, place=1, pin="rule 1"), "pinned here: rule 1"),
        (Facts("kept", place=2), "copy 2 of 3"),
        (Facts("kept"), "more than wanted"),
        (Facts("kept", place=1, is_leaving=True), "leaving"),
        (Facts("kept", place=1, answers=False), "does not answer: its copy counts for redundancy.repair_after"),
        (Facts("kept", answers=False, is_given_up=True), "made anew elsewhere"),
        (Facts("kept", place=1, answers=False, is_announced=True), "as announced"),
        (Facts("cached"), "cached when it was read"),
        (Facts("cached", place=3), "not fetched yet"),
        (Facts("cached", is_client=True), "a client pod keeps nothing; cached"),
        (Facts("none", is_client=True, no_cache="rule 2"), "a client pod keeps nothing; not cached: rule 2"),
        (Facts("none", place=3), "copy 3 of 3: placed here, not fetched yet"),
        (Facts("none", pin="rule 1"), "pinned here: rule 1; not fetched yet"),
        (Facts("none"), "cached once it is read here"),
        (Facts("none", no_cache="rule 2"), "not cached: rule 2"),
    ],
)
def test_the_reason_of_one_pod(facts: Facts, words: str) -> None:
    assert words in reason(facts, 3)


A, B, C = PodId("a"), PodId("b"), PodId("c")


@pytest.mark.parametrize(
    ("kept", "cached", "absent", "author", "least", "expected"),
    [
        ({A, B}, set(), set(), A, 1, False),
        ({A, B}, set(), set(), A, 2, True),
        ({A}, {B}, set(), A, 1, True),
        ({A}, set(), {B}, B, 1, True),
        ({B}, {A}, set(), B, 1, False),
        ({B}, {A}, set(), B, 2, False),
        (set(), {A}, {B}, B, 1, True),
        ({B}, set(), set(), A, 2, False),
        (set(), set(), {B}, A, 1, False),
        (set(), set(), set(), A, 1, True),
        (set(), set(), set(), B, 1, False),
        ({B}, set(), {A}, A, 1, False),
        (set(), set(), {A}, B, 1, True),
    ],
)
def test_what_unplugging_a_endangers(
    kept: set[PodId], cached: set[PodId], absent: set[PodId], author: PodId, least: int, expected: bool
) -> None:
    assert endangers(A, kept=kept, cached=cached, absent=absent, author=author, least=least) is expected


def test_the_floor_is_never_above_what_there_can_be_nor_below_one() -> None:
    assert [floor(1, 3), floor(2, 3), floor(3, 1), floor(2, 0)] == [1, 2, 1, 1]
