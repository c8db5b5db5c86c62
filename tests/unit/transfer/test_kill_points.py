"""Some of the steps of `kill_points`, which can be run for all of them (two minutes a story)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("story", "first", "stride"), [("moving", 9, 17), ("lodging", 4, 11)])
def test_nothing_is_lost_wherever_all_pods_are_killed(tmp_path: Path, story: str, first: int, stride: int) -> None:
    line = [sys.executable, "-m", "tests.unit.transfer.kill_points", story, str(tmp_path), str(first), str(stride)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 90, "the story has many steps"
