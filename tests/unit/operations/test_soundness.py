"""What tells a home from its copies."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from base.birth import born_ns
from base.errors import DamagedError
from base.home import Home
from operations.soundness import place_of


def home(path: Path) -> Home:
    made = Home(path)
    made.identity.mkdir(parents=True)
    (made.identity / "pod.key").write_text("key")
    return made


def test_a_home_stays_the_same_and_its_copy_is_another(tmp_path: Path) -> None:
    mine = home(tmp_path / "home")
    place = place_of(mine)
    if born_ns(mine.identity / "pod.key") is not None:
        (mine.identity / "pod.key").chmod(0o600)
        os.utime(mine.identity / "pod.key", ns=(1, 1))
    assert place_of(mine) == place
    mine.path.rename(tmp_path / "moved")
    assert place_of(Home(tmp_path / "moved")) == place
    shutil.copytree(tmp_path / "moved", tmp_path / "home", copy_function=shutil.copy2)
    assert place_of(mine) != place
    shutil.rmtree(tmp_path / "moved")
    shutil.copytree(tmp_path / "home", tmp_path / "moved", copy_function=shutil.copy2)
    assert place_of(Home(tmp_path / "moved")) not in (place, place_of(mine)), "also where an inode is used again"


def test_a_missing_key_is_told(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match="identity"):
        place_of(Home(tmp_path))
