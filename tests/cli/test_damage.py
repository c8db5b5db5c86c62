"""Files of a home that are gone, foreign, half written or changing: a clear sentence, and nothing is deleted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from base.home import Home
from discovery.founding import found
from policies.edit import default_cluster_toml
from tests.cli.runner import LOCAL, WORMHOLE, Person, processes

NEW = ("new", "home", "--no-mount", "--pod", "laptop", *LOCAL)


def files_of(home: Path) -> set[str]:
    """Return the files of a home but those that come and go with its process."""
    passing = ("-wal", "-shm", ".sock")
    return {str(path.relative_to(home)) for path in home.rglob("*") if not path.name.endswith(passing)}


def remove_database(path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)


def scribble(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for place in range(4096, len(data) - 8, 1500):
        data[place : place + 8] = b"\xff" * 8
    path.write_bytes(data)


DAMAGES: dict[str, tuple[int, str, Callable[[Path], object]]] = {
    "metadata.db is gone": (8, "vanished", lambda home: remove_database(home / "metadata.db")),
    "metadata.db is scribbled on": (8, "damaged", lambda home: scribble(home / "metadata.db")),
    "roster.db is gone": (8, "lost the records", lambda home: remove_database(home / "roster.db")),
    "roster.db is garbage": (8, "damaged", lambda home: (home / "roster.db").write_bytes(b"garbage " * 999)),
    "the key is gone": (8, "pod.key is missing", lambda home: (home / "identity" / "pod.key").unlink()),
    "the store's marker is gone": (9, "vanished", lambda home: (home / "store" / "store.id").unlink()),
    "pod.toml is no text": (6, "UTF-8", lambda home: (home / "pod.toml").write_bytes(b"\xff\xfe\0")),
}


def test_damage_is_told_and_nothing_is_deleted(person: Person) -> None:
    home, source, saved = person.folder / "h", person.folder / "source", person.folder / "saved"
    source.mkdir()
    for number in range(30):
        (source / f"{number}").write_bytes(os.urandom(3000))
    assert person.run(*NEW, "--home", home).code == 0
    assert person.run("import", source, "/things", "--home", home).code == 0
    assert person.run("down", "--home", home).code == 0
    shutil.copytree(home, saved)
    for name, (code, words, damage) in DAMAGES.items():
        damage(home)
        left = files_of(home)
        assert words in person.fails(code, "up", "--home", home), name
        assert left <= files_of(home), name
        assert processes(person.folder) == [], name
        shutil.rmtree(home)
        shutil.copytree(saved, home)
    assert person.run("up", "--home", home).code == 0
    assert person.run("status", "--home", home, "--json").json["files"]["total"] == 30


def test_what_a_killed_new_left_is_no_obstacle(person: Person) -> None:
    home = person.state / "home"
    (home / ".draft-killed" / "identity").mkdir(parents=True)  # killed before the keys were complete
    (person.state / ".joining-4000000" / ".draft-killed").mkdir(parents=True)
    person.fails(7, "status")
    assert person.run(*NEW).code == 0
    assert not list(home.glob(".draft-*"))
    assert person.run("destroy", "--yes").code == 0
    assert not person.state.exists(), "not even what a killed join left"


def test_a_pod_that_was_killed_before_it_had_a_pod_toml_comes_up(person: Person) -> None:
    found(Home(person.state / "home"), "home", "laptop", default_cluster_toml("home"), time.time())
    assert "wormhole up" in person.fails(4, *NEW)
    assert person.run("up").code == 0
    assert person.run("status", "--json").json["mount"] == str(person.folder / "Wormhole")
    assert person.run("destroy", "--yes").code == 0
    assert os.listdir(person.folder) == [".local"]


def test_a_join_that_was_killed_when_it_was_in_is_settled_by_the_next_one(person: Person) -> None:
    found(Home(person.state / ".joining-4000000"), "home", "laptop", default_cluster_toml("home"), time.time())
    person.fails(7, "status")
    assert "wormhole up" in person.fails(4, "join", "home", "--no-mount")
    assert os.listdir(person.state) == ["home"]
    assert "wormhole up" in person.fails(7, "status")


def test_a_file_that_changes_while_it_is_moved_in_is_told_and_stays(person: Person) -> None:
    home, source = person.folder / "h", person.folder / "source"
    source.mkdir()
    (source / "restless").write_bytes(bytes(40_000_000))
    (source / "quiet").write_text("quiet")
    assert person.run(*NEW, "--home", home).code == 0
    ended = threading.Event()

    def write() -> None:
        with (source / "restless").open("r+b", buffering=0) as file:
            while not ended.wait(0.001):
                file.seek(0)
                file.write(os.urandom(8))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        done = person.run("import", source, "/in", "--move", "--home", home, "--json")
    finally:
        ended.set()
        writer.join()
    assert done.code == 1
    assert "restless: " in done.json["skipped"][0]
    assert os.listdir(source) == ["restless"], "it stays where it is"
    again = person.run("import", source, "/again", "--move", "--home", home, "--json")
    assert (again.code, again.json["bytes"]) == (0, 40_000_000)
    assert not source.exists()


def test_an_import_leaves_the_pods_own_folders_out(person: Person) -> None:
    place = person.folder / "everything"
    home, mount = place / "home", place / "mount"
    place.mkdir()
    (place / "letter").write_text("dear")
    line = ("new", "home", "--pod", "laptop", *LOCAL, "--home", home, "--mount", mount)
    assert person.run(*line).code == 0
    done = person.run("import", place, "/all", "--home", home, "--json")
    assert done.code == 1
    assert len(done.json["skipped"]) == 2
    assert os.listdir(mount / "all") == ["letter"]
    assert "too long" in person.fails(2, "import", place, "/" + "x" * 300, "--home", home)
    assert person.run("destroy", "--yes", "--home", home).code == 0


def test_what_can_t_be_is_refused_at_once(person: Person) -> None:
    assert "printable" in person.fails(2, "new", "home", "--mount", "a\nb")
    assert not person.state.exists()
    assert person.run(*NEW).code == 0
    assert "'home'" in person.fails(2, "status", "--home", person.state / "home", "--cluster", "work")


def test_an_interrupt_at_once_ends_a_pod_in_the_foreground(person: Person) -> None:
    process = subprocess.Popen(
        [WORMHOLE, *NEW, "--foreground"], env=person.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 128 + signal.SIGINT
    finally:
        process.kill()
        process.communicate()
    assert processes(person.folder) == []
