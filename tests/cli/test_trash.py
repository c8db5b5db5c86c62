"""The trash and the conflict inbox by the commands that a person types, on two pods of one machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.runner import LOCAL, Done, Person, end_pods

DEADLINE_S = 90.0


class Pod(NamedTuple):
    """A mounted pod."""

    person: Person
    home: Path
    mount: Path

    def run(self, *arguments: str | Path) -> Done:
        return self.person.run("--home", self.home, *arguments)

    def does(self, *arguments: str | Path) -> Done:
        done = self.run(*arguments)
        assert done.code == 0, done
        return done

    def fails(self, code: int, *arguments: str | Path) -> str:
        return self.person.fails(code, "--home", self.home, *arguments)

    def trash(self, *arguments: str) -> list[tuple[str, str, int]]:
        found = self.does("trash", *arguments, "--json").json["trash"]
        return sorted((one["path"], one["reason"], one["size"]) for one in found)


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pod, Pod]]:
    """Two pods of one cluster, ``ann`` and ``bob``."""
    person = Person(tmp_path_factory.mktemp("trash"))
    ann, bob = (Pod(person, person.folder / f"{name}.home", person.folder / name) for name in ("ann", "bob"))
    made = ann.run("new", "home", "--pod", "ann", "--mount", ann.mount, *LOCAL, "--json")
    assert made.code == 0, made
    keys = made.json
    joined = bob.run(
        *("join", "--code", keys["code"], "--peer", keys["address"], "--pod", "bob", "--mount", bob.mount, *LOCAL)
    )
    assert joined.code == 0, joined
    yield ann, bob
    end_pods(person.folder)


def eventually(what: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE_S
    while not holds(what):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


def holds(what: Callable[[], bool]) -> bool:
    """Tell whether something is so; what can't be read at this moment isn't."""
    try:
        return what()
    except OSError:
        return False


def shows(pod: Pod, name: str, text: str | None) -> Callable[[], bool]:
    def is_so() -> bool:
        path = pod.mount / name
        return (path.read_text() if path.exists() else None) == text

    return is_so


def test_deleted_here_restored_there(pods: tuple[Pod, Pod]) -> None:
    ann, bob = pods
    (ann.mount / "letters").mkdir()
    (ann.mount / "letters" / "a.txt").write_text("dear bob")
    eventually(shows(bob, "letters/a.txt", "dear bob"))
    (ann.mount / "letters" / "a.txt").unlink()
    (ann.mount / "letters").rmdir()
    eventually(lambda: bob.trash("letters") == [("/letters/a.txt", "deleted", 8)])
    (entry,) = bob.does("trash", "letters", "--json").json["trash"]
    assert entry.keys() == {"path", "reason", "time", "size", "content", "pod", "id"}
    assert (entry["pod"], len(entry["content"])) == ("ann", 64)
    assert abs(entry["time"] - time.time()) < 60
    assert "letters/a.txt" in bob.does("trash").out
    assert bob.trash("nothing") == []
    restored = bob.does("trash", "restore", bob.mount / "letters" / "a.txt", "--json").json
    assert restored["restored_as"] == "/letters/a.txt"
    for pod in pods:
        eventually(shows(pod, "letters/a.txt", "dear bob"))
        eventually(lambda pod=pod: pod.trash("letters") == [])  # type: ignore[misc]


def test_versions_are_restored_by_id_time_or_content(pods: tuple[Pod, Pod]) -> None:
    ann, bob = pods
    (ann.mount / "notes.txt").write_text("first")
    eventually(shows(bob, "notes.txt", "first"))
    (bob.mount / "notes.txt").write_text("second, longer")
    eventually(lambda: ann.trash("notes.txt") == [("/notes.txt", "overwritten", 5)])
    (version,) = ann.does("trash", "list", "notes.txt", "--json").json["trash"]
    assert version["pod"] == "bob"
    for name in (version["id"], version["content"][:8], repr(version["time"])):
        (bob.mount / "notes.txt").write_text("once more")
        eventually(shows(ann, "notes.txt", "once more"))
        assert "Restored" in ann.does("trash", "restore", "notes.txt", "--version", name).out
        for pod in pods:
            eventually(shows(pod, "notes.txt", "first"))
    assert "no version" in ann.fails(3, "trash", "restore", "notes.txt", "--version", "0123456789ab")


def test_a_taken_name_is_left_alone(pods: tuple[Pod, Pod]) -> None:
    ann, _ = pods
    (ann.mount / "list.txt").write_text("old")
    ann.does("sync", "list.txt")
    (ann.mount / "list.txt").unlink()
    (ann.mount / "list.txt").write_text("new")
    name = ann.does("trash", "restore", "list.txt", "--json").json["restored_as"]
    assert name.startswith("/list.restored-")
    assert name.endswith(".txt")
    assert (ann.mount / name[1:]).read_text() == "old"
    assert (ann.mount / "list.txt").read_text() == "new"


def test_emptying_asks(pods: tuple[Pod, Pod]) -> None:
    ann, bob = pods
    for name in ("x", "y"):
        (ann.mount / name).write_text(name)
        ann.does("sync", name)
        (ann.mount / name).unlink()
    assert ("/x", "deleted", 1) in ann.trash()
    assert "yes" in ann.fails(2, "trash", "empty", "x")
    assert ("/x", "deleted", 1) in ann.trash()
    assert "1 entry" in ann.does("trash", "empty", "x", "--yes").out
    assert ann.trash("x") == []
    assert ann.trash("y") != []
    ann.does("trash", "empty", "--yes")
    assert ann.trash() == []
    eventually(lambda: bob.trash() == [])
    assert ann.does("trash", "empty", "--json").json["entries"] == 0
    ann.fails(3, "trash", "restore", "x")


def test_wrong_words(pods: tuple[Pod, Pod]) -> None:
    ann, _ = pods
    ann.fails(2, "trash", "restore")
    ann.fails(2, "trash", "a", "b")
    ann.fails(2, "conflicts", "keep", "x")
    ann.fails(3, "conflicts", "keep", "nothing", "ann")
    for words in (("trash",), ("trash", "restore"), ("trash", "empty"), ("conflicts",), ("conflicts", "keep")):
        assert "Example" in ann.does(*words, "--help").out or words in (("trash",), ("conflicts",))


def test_a_conflict_is_listed_and_decided(pods: tuple[Pod, Pod]) -> None:
    ann, bob = pods
    (ann.mount / "plan.txt").write_text("plan")
    eventually(shows(bob, "plan.txt", "plan"))
    assert ann.does("conflicts", "--json").json["conflicts"] == []
    bob.does("down")
    (ann.mount / "plan.txt").write_text("plan of ann")
    ann.does("down")
    assert bob.run("up").code == 0
    (bob.mount / "plan.txt").write_text("plan of bob, later")
    bob.run("sync", "plan.txt", "--copies", "1")
    assert ann.run("up").code == 0
    eventually(lambda: len(ann.does("conflicts", "--json").json["conflicts"]) == 1)
    (conflict,) = ann.does("conflicts", "--json").json["conflicts"]
    assert conflict["path"] == "/plan.txt"
    winner, loser = conflict["versions"]
    assert (winner["pod"], winner["size"], loser["pod"], loser["size"]) == ("bob", 18, "ann", 11)
    assert winner["shown_as"] == "/plan.txt"
    assert loser["shown_as"].startswith("/plan.conflict-ann-")
    assert {"pod", "time", "size", "content"} <= loser.keys()
    eventually(lambda: "plan.conflict-ann-" in bob.does("conflicts").out)
    warnings = ann.run("status", "--json").json["warnings"]
    assert any("wormhole conflicts" in warning for warning in warnings)
    assert "no version" in ann.fails(3, "conflicts", "keep", "plan.txt", "eve")
    kept = bob.does("conflicts", "keep", "plan.txt", "ann", "--json").json
    assert kept["kept"]["pod"] == "ann"
    for pod in pods:
        eventually(shows(pod, "plan.txt", "plan of ann"))
        eventually(lambda pod=pod: pod.does("conflicts", "--json").json["conflicts"] == [])  # type: ignore[misc]
        eventually(lambda pod=pod: ("/plan.txt", "conflict", 18) in pod.trash())  # type: ignore[misc]
        eventually(lambda pod=pod: not [name for name in os.listdir(pod.mount) if "conflict" in name])  # type: ignore[misc]
    assert "There are no conflicts" in ann.does("conflicts").err


def test_the_trash_gives_way_before_the_disk_is_full(pods: tuple[Pod, Pod]) -> None:
    ann, _ = pods
    toml = ann.home / "pod.toml"
    ann.does("down")
    used = 24 << 20
    text = toml.read_text().replace('"20 GiB"', '"1 MiB"')
    toml.write_text(f'{text}\n[storage]\nlimit = "{used} B"\n')
    assert ann.run("up").code == 0
    for number in range(6):
        (ann.mount / "big").write_bytes(os.urandom(10 << 20))
        ann.run("sync", "big", "--copies", "1")
        (ann.mount / "big").unlink()
        status = ann.run("status", "--json").json
        assert status["bytes"]["used"] <= used, number
    left = [one for one in ann.trash() if one[0] == "/big"]
    assert 1 <= len(left) <= 2, "the oldest went, and no more than was needed"
