"""What a .wormholeignore ignores: as git would, beside one directory."""

from __future__ import annotations

import subprocess

import pytest

from policies.ignoring import MAX_LINES, Ignored

TEXT = "# tools\n*.log\n!keep.log\nbuild/\n/top\na/**/z\n\\#real\n[broken\n   \ndoc/*.txt\n"
PATHS = ["x.log", "deep/x.log", "keep.log", "build/", "build/a", "build", "top", "deep/top", "a/z", "a/b/c/z", "#real"]
PATHS += ["doc/a.txt", "doc/deep/a.txt", "plain", "x.log/", "x.log/inside"]


def test_it_decides_as_git_does(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text(TEXT)
    ignored = Ignored(TEXT)
    for path in PATHS:
        asked = subprocess.run(
            ["git", "check-ignore", "-q", "--no-index", path], cwd=tmp_path, check=False, capture_output=True
        )
        assert bool(ignored.decision(path)) == (asked.returncode == 0), path


def test_the_last_pattern_decides_and_none_is_no_decision():
    ignored = Ignored(TEXT)
    assert (ignored.decision("a.log"), ignored.decision("keep.log"), ignored.decision("other")) == (True, False, None)


@pytest.mark.parametrize("text", ["", "\n\n", "#\n", "[\n", "a\x00b\n", "\udcff\n"])
def test_any_text_can_be_read(text):
    Ignored(text).decision("a")


def test_it_is_bounded():
    assert Ignored("x\n" * MAX_LINES + "y\n").decision("y") is None
