"""cluster.toml in a home is written for people, and never over what a person wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from base.errors import MachineError
from operations.rendering import META_RENDERED, Rendering, replace_text


class Memory:
    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self.kept.get(key)

    def put(self, key: str, value: bytes) -> None:
        self.kept[key] = value


@pytest.fixture
def rendering(tmp_path: Path) -> Rendering:
    return Rendering(tmp_path / "cluster.toml", Memory())


def test_it_follows_what_is_in_force(rendering: Rendering) -> None:
    for text in ("one\n", "two\r\n", "one\n", ""):
        assert rendering.render(text)
        assert rendering.path.read_bytes() == text.encode()
        assert not rendering.is_edited(text)
    assert not rendering.is_edited("a version that is not written yet")


def test_what_a_person_wrote_stays(rendering: Rendering) -> None:
    rendering.render("one")
    rendering.path.write_text("mine")
    assert rendering.is_edited("one")
    assert not rendering.render("two")
    assert rendering.path.read_text() == "mine"
    assert not rendering.is_edited("mine"), "it was applied"
    assert rendering.render("mine")
    assert rendering.render("three")
    rendering.path.write_text("one")
    assert rendering.is_edited("three"), "also when it is what once was in force"


def test_a_file_from_before_that_nobody_rendered_stays(rendering: Rendering) -> None:
    rendering.path.write_text("a backup")
    assert not rendering.render("one")
    rendering.path.unlink()
    assert not rendering.is_edited("one")
    assert rendering.render("one")


def test_a_crash_between_note_and_file_leaves_nothing_edited(rendering: Rendering, tmp_path: Path) -> None:
    memory = Memory()
    again = Rendering(rendering.path, memory)
    again.render("one")
    before = dict(memory.kept)
    again.render("two")
    after = memory.kept[META_RENDERED]
    for noted, text in ((before[META_RENDERED], "one"), (after + before[META_RENDERED], "one"), (after, "two")):
        memory.kept[META_RENDERED] = noted
        again.path.write_text(text)
        assert not again.is_edited("two")
        assert again.render("two")


def test_a_file_is_replaced_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "pod.toml"
    replace_text(file, "one")
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    replace_text(file, "two")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("two", 0o644)
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(MachineError):
        replace_text(tmp_path / "none" / "x", "text")
    blocked = tmp_path / "folder"
    blocked.mkdir()
    (blocked / "inside").touch()
    with pytest.raises(MachineError):
        replace_text(blocked, "text")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["folder", "pod.toml"]
