"""R37, R38: what people do on both sides of a cut cable, on the mounts, and what they find when it is plugged in again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import lab as laboratory
from tests.cluster.lab import WORMHOLE, Host, Lab, lab, wait_until

CONFIGURATION = """
[cluster]
name = "home"
[conflicts]
strategy = "keep-both"
[[rule]]
match = "latest/**"
strategy = "last-writer-wins"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three hosts: both versions are kept, but below ``latest`` the last writer wins."""
    assert os.geteuid() == 0, "network namespaces need root: run the tests as root"
    configuration = tmp_path_factory.mktemp("configuration") / "cluster.toml"
    configuration.write_text(CONFIGURATION)
    with lab(3) as found:
        laptop, *_ = found.cluster("home", "--from", str(configuration))
        (laptop.mount / "latest").mkdir()
        yield found


def shell(host: Host, script: str) -> None:
    host.run("sh", "-ec", script.replace("$M", str(host.mount)))


def tree(host: Host) -> dict[str, bytes | None]:
    """Return everything below a mount: path -> content; None for directories."""
    return laboratory.below(host.mount)


def below(host: Host, folder: str) -> dict[str, bytes | None]:
    prefix = f"{folder}/"
    return {path.removeprefix(prefix): data for path, data in tree(host).items() if path.startswith(prefix)}


def everywhere(made: Lab, folder: str, wanted: dict[str, bytes | None]) -> None:
    """Wait until all pods show exactly this below a folder."""
    wait_until(lambda: all(below(host, folder) == wanted for host in made.hosts), 60, f"{folder} as wanted: {wanted}")


def known_everywhere(made: Lab) -> None:
    """Wait until all pods show the same."""

    def same() -> bool:
        first, *others = [tree(host) for host in made.hosts]
        return all(other == first for other in others)

    for host in made.hosts:
        host.wormhole("sync")
    wait_until(same, 60, "the same everywhere")


Story = Callable[[Lab], Iterator[None]]
STORIES: list[Story] = []
"""Each prepares a folder, goes on behind the first `yield`, while the nas is cut off, and looks behind the second."""


def story(told: Story) -> Story:
    STORIES.append(told)
    return told


@contextmanager
def cut(made: Lab, lone: Host) -> Iterator[None]:
    """Have a host cut off for a while; its files are local, so that it can go on with them.

    Behind it all pods know what all have done: a mark that is written last comes last.
    """
    lone.cut()
    others = [host for host in made.hosts if host is not lone]
    wait_until(lambda: state_of(others[0], lone.name) != "alive", 30, "the cut is noticed")
    try:
        yield
    finally:
        lone.plug()
    made.settled()
    for host in made.hosts:
        host.wormhole("sync")
        (host.mount / f"mark of {host.name}").mkdir()
    marks = {f"mark of {host.name}" for host in made.hosts}
    wait_until(lambda: all(marks <= set(os.listdir(host.mount)) for host in made.hosts), 60, "all know of all")


@pytest.fixture(scope="module")
def after_a_cut(made: Lab) -> dict[Story, Iterator[None]]:
    """All stories, up to where the cable is plugged in again: what each does is below a folder of its own."""
    running = {told: told(made) for told in STORIES}
    for one in running.values():
        next(one)
    known_everywhere(made)
    with cut(made, made.hosts[2]):
        for one in running.values():
            next(one)
    return running


def published(host: Host, path: str) -> None:
    """Return when what was written on a host is a record, with its time: closing a file doesn't wait for that."""
    host.wormhole("sync", path, "--copies", "1")


def state_of(host: Host, name: str) -> str:
    return next(str(pod["state"]) for pod in host.ask("pods")["pods"] if pod["name"] == name)


def trash(host: Host, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = host.wormhole("trash", path)["trash"]
    return found


def conflicts(host: Host, folder: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = host.wormhole("conflicts")["conflicts"]
    return [one for one in found if str(one["path"]).lstrip("/").startswith(f"{folder}/")]


@story
def last_writer_wins_and_the_loser_is_in_the_trash(made: Lab) -> Iterator[None]:
    laptop, desktop, nas = made.hosts
    shell(laptop, "mkdir $M/latest/r37; echo first > $M/latest/r37/note")
    yield
    shell(nas, "echo of nas > $M/latest/r37/note")
    published(nas, "latest/r37/note")
    shell(laptop, "echo of laptop, later > $M/latest/r37/note")
    wait_until(lambda: below(desktop, "latest/r37") == {"note": b"of laptop, later\n"})
    assert below(nas, "latest/r37") == {"note": b"of nas\n"}
    yield
    everywhere(made, "latest/r37", {"note": b"of laptop, later\n"})
    for host in made.hosts:
        assert conflicts(host, "latest") == []
        (lost,) = [one for one in trash(host, "latest/r37/note") if one["reason"] == "conflict"]
        assert (lost["size"], lost["pod"]) == (len("of nas\n"), "nas")
    desktop.wormhole("trash", "restore", "latest/r37/note", "--version", lost["id"])
    everywhere(made, "latest/r37", {"note": b"of nas\n"})
    assert any(one["size"] == len("of laptop, later\n") for one in trash(nas, "latest/r37/note"))


@story
def keep_both_and_settle_it(made: Lab) -> Iterator[None]:
    laptop, desktop, nas = made.hosts
    shell(laptop, "mkdir $M/r38; echo first > $M/r38/note.txt")
    yield
    shell(nas, "echo of nas > $M/r38/note.txt")
    published(nas, "r38/note.txt")
    shell(laptop, "echo of laptop > $M/r38/note.txt")
    yield
    wait_until(lambda: all(len(below(host, "r38")) == 2 for host in made.hosts), 60, "both, everywhere")
    (beside,) = below(laptop, "r38").keys() - {"note.txt"}
    assert beside.startswith("note.conflict-nas-")
    assert beside.endswith(".txt")
    everywhere(made, "r38", {"note.txt": b"of laptop\n", beside: b"of nas\n"})
    for host in made.hosts:
        (conflict,) = conflicts(host, "r38")
        assert str(conflict["path"]).lstrip("/") == "r38/note.txt"
        assert [one["pod"] for one in conflict["versions"]] == ["laptop", "nas"]
        assert [str(one["shown_as"]).rpartition("/")[2] for one in conflict["versions"]] == ["note.txt", beside]
    desktop.wormhole("conflicts", "keep", "r38/note.txt", "nas")
    everywhere(made, "r38", {"note.txt": b"of nas\n"})
    for host in made.hosts:
        assert conflicts(host, "r38") == []
        assert any(one["size"] == len("of laptop\n") for one in trash(host, "r38"))


@story
def saving_the_winner_again_does_not_harm_the_loser(made: Lab) -> Iterator[None]:
    laptop, _, nas = made.hosts
    shell(laptop, "mkdir $M/next; echo first > $M/next/note")
    yield
    shell(nas, "echo of nas > $M/next/note")
    published(nas, "next/note")
    shell(laptop, "echo of laptop > $M/next/note")
    yield
    wait_until(lambda: all(len(below(host, "next")) == 2 for host in made.hosts), 60, "both, everywhere")
    (beside,) = below(laptop, "next").keys() - {"note"}
    shell(nas, "echo more > $M/next/note")
    everywhere(made, "next", {"note": b"more\n", beside: b"of nas\n"})


@story
def the_same_on_both_sides_is_no_conflict(made: Lab) -> Iterator[None]:
    laptop, _, nas = made.hosts
    shell(laptop, "mkdir $M/same; echo first > $M/same/old")
    script = "echo the same > $M/same/old; echo new > $M/same/new; mkdir $M/same/folder; echo x > $M/same/folder/x"
    yield
    shell(nas, script)
    shell(laptop, script)
    yield
    everywhere(made, "same", {"old": b"the same\n", "new": b"new\n", "folder": None, "folder/x": b"x\n"})
    assert all(conflicts(host, "same") == [] for host in made.hosts)


@story
def an_edit_against_a_deletion(made: Lab) -> Iterator[None]:
    laptop, _, nas = made.hosts
    shell(laptop, "mkdir -p $M/edit/sub; for n in here there unseen; do echo first > $M/edit/sub/$n; done")
    yield
    shell(nas, "echo edited > $M/edit/sub/there; rm $M/edit/sub/here")
    shell(laptop, "echo edited > $M/edit/sub/here; rm $M/edit/sub/there $M/edit/sub/unseen")
    yield
    everywhere(made, "edit", {"sub": None, "sub/here": b"edited\n", "sub/there": b"edited\n"})


@story
def a_directory_deleted_here_and_used_there(made: Lab) -> Iterator[None]:
    laptop, _, nas = made.hosts
    shell(laptop, "mkdir -p $M/used/deep/deeper; echo old > $M/used/deep/old")
    yield
    shell(laptop, "rm -r $M/used/deep")
    shell(nas, "echo new > $M/used/deep/deeper/new")
    assert below(laptop, "used") == {}
    yield
    everywhere(made, "used", {"deep": None, "deep/deeper": None, "deep/deeper/new": b"new\n"})
    shell(laptop, "rm $M/used/deep/deeper/new")
    everywhere(made, "used", {})


@story
def a_directory_made_on_both_sides_is_one(made: Lab) -> Iterator[None]:
    laptop, desktop, nas = made.hosts
    shell(laptop, "mkdir $M/one")
    yield
    shell(nas, "mkdir -p $M/one/d/sub; echo nas > $M/one/d/sub/nas")
    shell(laptop, "mkdir -p $M/one/d/sub; echo laptop > $M/one/d/sub/laptop")
    yield
    everywhere(made, "one", {"d": None, "d/sub": None, "d/sub/nas": b"nas\n", "d/sub/laptop": b"laptop\n"})
    shell(desktop, "mv $M/one/d $M/one/e")
    everywhere(made, "one", {"e": None, "e/sub": None, "e/sub/nas": b"nas\n", "e/sub/laptop": b"laptop\n"})
    shell(nas, "rm $M/one/e/sub/*; rmdir $M/one/e/sub $M/one/e")
    everywhere(made, "one", {})
    assert all(conflicts(host, "one") == [] for host in made.hosts)


def an_open_file_keeps_its_content(made: Lab, folder: str, *, synced: bool) -> Iterator[None]:
    """What is written on both sides of the meeting is one content, beside the other's."""
    laptop, _, nas = made.hosts
    shell(laptop, f"mkdir $M/{folder}; echo first > $M/{folder}/doc")
    yield
    with (nas.mount / folder / "doc").open("r+b", buffering=0) as file:
        file.write(b"of nas, begun\n")
        if synced:
            os.fsync(file.fileno())
        shell(laptop, f"echo of laptop > $M/{folder}/doc")
        yield
        wait_until(lambda: b"of laptop\n" in below(laptop, folder).values())
        file.write(b"and ended\n")
        file.seek(0)
        assert file.read() == b"of nas, begun\nand ended\n"
    wanted = [b"of laptop\n", b"of nas, begun\nand ended\n"]
    for host in made.hosts:
        wait_until(lambda host=host: sorted(filter(None, below(host, folder).values())) == wanted, 60, "both")  # type: ignore[misc]


@story
def an_open_file_keeps_its_content_while_another_was_saved(made: Lab) -> Iterator[None]:
    yield from an_open_file_keeps_its_content(made, "open", synced=False)


@story
def an_open_file_that_was_synced_does_so_too(made: Lab) -> Iterator[None]:
    yield from an_open_file_keeps_its_content(made, "synced", synced=True)


@pytest.mark.parametrize("told", STORIES, ids=lambda told: told.__name__)
def test_what_people_find_when_the_cable_is_plugged_in(after_a_cut: dict[Story, Iterator[None]], told: Story) -> None:
    assert next(after_a_cut[told], "over") == "over"


def test_nothing_was_logged_as_an_error(made: Lab) -> None:
    for host in made.hosts:
        log = Path(host.home / "pod.log").read_text()
        assert " ERROR " not in log, log[-3000:]
        assert host.run(WORMHOLE, "status", "--json", check=False).returncode in (0, 1)
