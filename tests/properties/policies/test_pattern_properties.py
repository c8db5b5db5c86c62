"""Patterns match what they match in git, and our bounded regular expressions what pathspec's own do."""

from __future__ import annotations

import re
import subprocess
from contextlib import suppress

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from policies.patterns import PatternError, RuleBook, compile_pattern


def patterns(parts: list[str]) -> st.SearchStrategy[str]:
    segment = st.lists(st.sampled_from(parts), min_size=1, max_size=6).map("".join)
    return st.builds(
        lambda head, segments, tail: head + "/".join(segments) + tail,
        st.sampled_from(["", "/"]),
        st.lists(segment | st.just("**"), min_size=1, max_size=4),
        st.sampled_from(["", "/", "/**"]),
    )


PATH = st.lists(st.text("ab-*", min_size=1, max_size=5), min_size=1, max_size=4).map("/".join)
PATHS = st.lists(PATH, min_size=1, max_size=8)
PLAIN = patterns(["a", "b", "*", "*", "?", "[ab]", "-", "\\*"])
WITH_CLASSES = patterns(["a", "b", "*", "*", "?", "[ab]", "[!a]", "[^b]", "[+-z]", "[]a]", "[!]a]", "-"])


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    path = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", str(path)], check=True)
    return path


def strays_from_its_manual(pattern: str) -> bool:
    """Tell whether git doesn't do what gitignore(5) says: "other consecutive asterisks are considered regular asterisks".

    It compares plain text in front of the first special character by itself, and takes what follows for a pattern of its
    own: so ``a**/b`` finds ``ab``, which ``?**/b`` and the manual don't. We keep to the manual.
    """
    plain = re.match(r"/?[^*?\[\\]*[^*?\[\\/]", pattern)
    return plain is not None and pattern[plain.end() :].startswith("**/") and len(pattern) > plain.end() + 3


@settings(max_examples=150, deadline=None)
@given(pattern=WITH_CLASSES, paths=PATHS)
@example(pattern="*[!a]*a/", paths=["-/a/a", "ab/-"])
@example(pattern="a[!b]a", paths=["a/a", "a-a"])
@example(pattern="a/**/", paths=["a/b", "a/b/a"])
@example(pattern="a?**/b", paths=["ab", "ab/b", "aab/b"])
def test_patterns_match_as_in_git(repository, pattern, paths):
    try:
        ours = compile_pattern(pattern)
    except PatternError:
        return
    assume(not strays_from_its_manual(pattern))
    (repository / ".gitignore").write_text(f"{pattern}\n")
    asked = subprocess.run(
        ["git", "-c", "core.excludesFile=/dev/null", "check-ignore", "--no-index", "-z", "--stdin"],
        cwd=repository,
        input="\0".join(paths).encode(),
        capture_output=True,
        check=False,
    )
    assert asked.returncode in (0, 1), asked.stderr
    assert {path for path in paths if ours.search(path)} == {path for path in asked.stdout.decode().split("\0") if path}


@settings(max_examples=1000)
@given(PLAIN, PATHS)
def test_bounded_patterns_match_alike(pattern, paths):
    try:
        ours = compile_pattern(pattern)
    except PatternError:
        return
    theirs = GitIgnoreSpecPattern(pattern).regex
    assert theirs is not None
    for path in paths:
        expected = theirs.search(path) is not None
        if pattern.endswith("/**/"):
            continue  # there pathspec differs from git
        assert (ours.search(path) is not None) is expected
        assert RuleBook([pattern]).matching(f"/{path}") == ((0,) if expected else ())


@given(st.text(max_size=30) | st.text("[]!-^\\/*?#ab{}()|&~", max_size=20))
def test_any_text_is_a_pattern_or_a_pattern_error(text):
    with suppress(PatternError):
        compile_pattern(text).search("a/b")
