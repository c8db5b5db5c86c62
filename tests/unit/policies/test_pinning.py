"""Pins: a pattern names one path and nothing else, and goes into a pod.toml and out again without a trace."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from base.errors import ConfigError, UsageError
from policies.config import parse_pod
from policies.pinning import keeping_rule, pattern_of, with_pin, without_pin

NAME = st.text(st.sampled_from("ab *?[]!#\\\t\n.-^$+{}()|~\u00e9\udcff\u3000"), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)
PATH = st.lists(NAME, min_size=1, max_size=3).map(lambda names: "/" + "/".join(names))
PLAIN = st.text(st.sampled_from("ab *?[]!#\\"), min_size=1, max_size=5).map(lambda name: f"/{name}")


def pinned(path: str, *, folder: bool) -> str:
    return with_pin("", pattern_of(path, folder=folder), "pod.toml")


@given(PATH, st.booleans())
@example("/#a", False)
@example("/!a", False)
@example("/**", True)
@example("/a ", False)
@example("/a ", True)
@example("/a\t", False)
@example("/[a]\\*?", False)
def test_a_pin_keeps_what_it_names(path: str, folder: bool) -> None:
    text = pinned(path, folder=folder)
    text.encode()
    config = parse_pod(text)
    assert config.for_path(f"{path}/x" if folder else path).keep
    assert not config.for_path(f"/another_folder{path}/x").keep
    if folder:
        assert config.for_path(f"{path}/x/y").keep
        assert not config.for_path(path).keep, "a file of a folder's name"
    assert keeping_rule(config, f"{path}/x" if folder else path) == 0


@given(PLAIN, PLAIN)
def test_a_pin_keeps_nothing_else(path: str, other: str) -> None:
    config = parse_pod(pinned(path, folder=False))
    if not path[-1].isspace():
        assert config.for_path(other).keep == (path == other)


def test_everything_can_be_pinned() -> None:
    config = parse_pod(pinned("/", folder=True))
    assert config.for_path("/a").keep
    assert config.for_path("/a/b").keep


def test_what_is_too_long_is_refused() -> None:
    with pytest.raises(UsageError, match="longer than"):
        pattern_of("/" + "x" * 2000, folder=False)


WRITTEN = """\
# mine
[pod]
name = "nas"   # this one

[[rule]]   # films
match = "films/**"
cache = false

[[rule]]
match = "/a/"
keep = false
[cache]
mode = "copy"  # always
"""


@pytest.mark.parametrize("text", ["", "# nothing\n", WRITTEN, 'rule = [{ match = "b", keep = true }]\n[pod]\n'])
def test_a_pin_comes_and_goes_without_a_trace(text: str) -> None:
    longer = with_pin(text, "/a/", "pod.toml")
    assert parse_pod(longer).for_path("/a/x").keep, "also behind a rule that says otherwise"
    assert with_pin(longer, "/a/", "pod.toml") == longer
    assert all(line in longer for line in text.splitlines() if "#" in line)
    shorter = without_pin(longer, "/a/", "pod.toml")
    assert parse_pod(shorter) == parse_pod(text)
    assert without_pin(text, "/a/", "pod.toml") == text


def test_what_a_rule_says_besides_stays() -> None:
    text = '[[rule]]\nmatch = "/a"\nkeep = true # pinned\ncache = false # never\n'
    shorter = without_pin(text, "/a", "pod.toml")
    assert "cache = false # never" in shorter
    assert "keep" not in shorter


def test_a_later_rule_is_overruled() -> None:
    text = '[[rule]]\nmatch = "/a"\nkeep = true\n[[rule]]\nmatch = "*"\nkeep = false\n'
    assert not parse_pod(text).for_path("/a").keep
    longer = with_pin(text, "/a", "pod.toml")
    assert parse_pod(longer).for_path("/a").keep
    assert len(parse_pod(longer).rules) == 2, "it moved"


def test_rules_that_are_none_are_told() -> None:
    with pytest.raises(ConfigError, match="list of rules"):
        with_pin("rule = 3\n", "/a", "pod.toml")
