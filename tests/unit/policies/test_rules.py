"""Rules for paths: which patterns match, and which rule wins."""

from __future__ import annotations

import subprocess
import time

import pytest

from policies import patterns
from policies.config import parse_cluster, parse_pod
from policies.patterns import PatternError, RuleBook, compile_pattern
from policies.schema import FilePolicy, PodFilePolicy

CLUSTER = """
[redundancy]
copies = 3
[conflicts]
strategy = "last-writer-wins"
[[rule]]
match = "photos/**"
copies = 5
cache = false
[[rule]]
match = "*.tmp"
copies = 1
[[rule]]
match = "/photos/raw/"
read_only = true
cache = true
[[rule]]
match = "photos/raw/one.jpg"
copies = 1
strategy = "keep-both"
"""


@pytest.mark.parametrize(
    ("path", "policy"),
    [
        ("/a.txt", FilePolicy(3, True, False, "last-writer-wins")),
        ("a.txt", FilePolicy(3, True, False, "last-writer-wins")),
        ("/photos", FilePolicy(3, True, False, "last-writer-wins")),
        ("/photos/a.jpg", FilePolicy(5, False, False, "last-writer-wins")),
        ("/x/photos/a.jpg", FilePolicy(3, True, False, "last-writer-wins")),
        ("/photos/a.tmp", FilePolicy(1, False, False, "last-writer-wins")),
        ("/x/y/a.tmp", FilePolicy(1, True, False, "last-writer-wins")),
        ("/photos/raw/two.jpg", FilePolicy(5, True, True, "last-writer-wins")),
        ("/photos/raw", FilePolicy(5, False, False, "last-writer-wins")),
        ("/photos/raw/", FilePolicy(5, True, True, "last-writer-wins")),
        ("/photos/raw/one.jpg", FilePolicy(1, True, True, "keep-both")),
        ("/photos/odd\nname.tmp", FilePolicy(1, False, False, "last-writer-wins")),
        ("/photos/odd.tmp\n", FilePolicy(5, False, False, "last-writer-wins")),
        ("/photos/\udcff.tmp", FilePolicy(1, False, False, "last-writer-wins")),
    ],
)
def test_later_rules_win_key_by_key(path, policy):
    config = parse_cluster(CLUSTER)
    assert config.for_path(path) == policy
    assert config.for_path(path) == policy


def test_the_pod_wins_over_the_cluster_where_it_says_something():
    cluster = parse_cluster("[[rule]]\nmatch = 'video/**'\ncache = false")
    pod = parse_pod(
        "[[rule]]\nmatch = 'video/new/**'\ncache = true\n[[rule]]\nmatch = '*.iso'\ncache = false\nkeep = true"
    )
    expected = {
        "/a": (PodFilePolicy(False, None), True),
        "/video/a": (PodFilePolicy(False, None), False),
        "/video/new/a": (PodFilePolicy(False, True), True),
        "/video/new/a.iso": (PodFilePolicy(True, False), False),
    }
    for path, (policy, cached) in expected.items():
        assert pod.for_path(path) == policy
        assert policy.may_cache(cluster.for_path(path)) is cached


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(patterns, "MEMO_LIMIT", 100)
    book = RuleBook(["*.tmp"])
    for index in range(1000):
        assert book.matching(f"/{index}.tmp") == (0,)
        assert book.matching(f"/{index}.txt") == ()
    assert len(book._memo) <= 100


PATTERNS = [
    "photos/**", "*.tmp", "/x/", "x/", "x", "/x", "a/*/b", "a/**/b", "**/b", "**/x/**", "*a*b*c", "f[a-c]o", "f[!a]o",
    "f?o", "\\#x", "\\!x", "a b", "**", "*", "*/", "**/", "a/*", "/*.tmp", "a/b", "*/b", "a**b", "[]]", "\\*",
    "a/**/", "/**/", "a/**/**/", "x/**/b/",
]  # fmt: skip
PATHS = [
    "x", "x/b", "x/a/b", "y/x/b", "photos/a", "photos/x/c.tmp", "y/photos/a", "c.tmp", "a/b", "a/x/b", "a/x/y/b",
    "a/x/b/c", "b", "aXbXc", "cab", "abc", "xaabbcc", "fao", "fbo", "fdo", "foo", "fo", "#x", "!x", "a b", "y/a b/c",
    "]", "*", "aXb", "a.tmp/b", ".hidden", "photos/.hidden/x", "ä/x",
]  # fmt: skip


def test_patterns_match_as_in_git(tmp_path):
    """Each pattern alone in a .gitignore; all paths are those of files."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for pattern in PATTERNS:
        (tmp_path / ".gitignore").write_text(f"{pattern}\n")
        asked = subprocess.run(
            ["git", "-c", "core.excludesFile=/dev/null", "check-ignore", "--no-index", "-z", "--stdin"],
            cwd=tmp_path,
            input="\0".join(PATHS).encode(),
            capture_output=True,
            check=False,
        )
        assert asked.returncode in (0, 1), asked.stderr
        ignored = {path.decode() for path in asked.stdout.split(b"\0") if path}
        found = {path for path in PATHS if compile_pattern(pattern).search(path)}
        assert found == ignored, pattern


@pytest.mark.parametrize(
    "pattern",
    ["*a*a*a*a*a*a*a*a*a*a*b", "**/*a*a*a*a*a*a*b", "a/*a*a*a*a*b/**/*a*a*a*b", "*" * 200 + "b", "?*?*?*?*?*?*?*b"],
)
def test_no_pattern_takes_exponential_time(pattern):
    found = compile_pattern(pattern)
    started_s = time.process_time()
    assert not found.search("a" * 255)
    assert not found.search("a/" + "/".join(["a" * 255] * 16))
    assert time.process_time() - started_s < 1.0


@pytest.mark.parametrize(
    "pattern", ["", "  ", "!x", "#x", "/", "[", "[a", "[z-a]", "a\\", "[[:alpha:]]", "x" * 1025, "**/a/" * 4]
)
def test_what_is_no_pattern(pattern):
    with pytest.raises(PatternError) as caught:
        compile_pattern(pattern)
    assert caught.value.text
