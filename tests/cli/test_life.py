"""The life of pods by the commands that a person types: real processes, real mounts, real codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.runner import LOCAL, WORMHOLE, Person, mounts, processes


def test_a_pod_from_new_to_destroy(person: Person) -> None:
    made = person.run("new", "home", "--pod", "laptop", *LOCAL, "--json")
    assert made.code == 0, made
    mount = person.folder / "Wormhole"
    keys = made.json
    assert (keys["cluster"], keys["pod"], keys["mount"]) == ("home", "laptop", str(mount))
    assert re.fullmatch(r"127\.0\.0\.1:\d+", keys["address"])
    assert re.fullmatch(r"[0-9a-z]{4}-[0-9a-z]{2}(-[0-9a-z]{4}){3}", keys["code"])
    assert mounts(person.folder) == [str(mount)]
    assert len(processes(person.folder)) == 1
    home = person.state / "home"
    assert f'mount = "{mount}"' in (home / "pod.toml").read_text()

    assert "already" in person.fails(4, "new", "home")
    assert "joined already" in person.fails(4, "join", "--code", keys["code"])

    status = person.run("status", "--json")
    assert status.json["situation"] == "favourable"
    assert status.code == 0
    assert status.json["home"] == str(home)
    assert status.json["pid"] in processes(person.folder)
    assert "favourable" in person.run("status").out
    assert [pod["name"] for pod in person.run("pods", "--json").json["pods"]] == ["laptop"]
    assert person.run("pods").out.split()[0] == "NAME"

    (mount / "letters").mkdir()
    (mount / "letters" / "a.txt").write_text("hello")
    for path in (mount / "letters/a.txt", "letters/a.txt", "/letters/a.txt", "tree:letters/a.txt"):
        assert person.run("where", path, "--json").json["path"] == "/letters/a.txt"
    inside = subprocess.run(
        [WORMHOLE, "where", "a.txt", "--json"],
        cwd=mount / "letters",
        env=person.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert json.loads(inside.stdout)["path"] == "/letters/a.txt"
    assert "laptop" in person.run("where", "letters/a.txt").out
    person.fails(3, "where", "nothing")
    person.fails(3, "status", "nothing")
    assert person.run("sync", "--timeout", "30s").code == 0
    assert 'name = "home"' in person.run("config", "show").out
    assert person.run("config", "show", "--pod-level", "--json").json["level"] == "pod"

    up = person.run("up")
    assert up.code == 0
    assert "already" in up.out
    assert person.run("down").code == 0
    assert processes(person.folder) == []
    assert mounts(person.folder) == []
    assert "wormhole up" in person.fails(7, "status")
    assert person.run("config", "show", "--pod-level").code == 0
    assert person.run("up", "--json").code == 0
    assert (mount / "letters" / "a.txt").read_text() == "hello"

    assert person.run("unmount").code == 0
    assert mounts(person.folder) == []
    other = person.folder / "other"
    assert person.run("mount", other).code == 0
    assert (other / "letters" / "a.txt").read_text() == "hello"

    assert "--yes" in person.fails(2, "destroy")
    assert person.run("destroy", "--yes").code == 0
    assert processes(person.folder) == []
    assert mounts(person.folder) == []
    assert not home.exists()
    assert not mount.exists()
    person.fails(7, "status")


def test_import_tells_what_it_did_and_what_it_left(person: Person) -> None:
    assert person.run("new", "home", "--no-mount", *LOCAL).code == 0
    source = person.folder / "source"
    (source / "deep").mkdir(parents=True)
    for number in range(50):
        (source / "deep" / f"{number}.txt").write_text(f"text {number}\n")
    done = person.run("import", source, "--json")
    assert done.code == 0, done
    assert (done.json["files"], done.json["different"]) == (50, [])
    assert person.run("status", "--json").json["files"]["total"] == 50
    assert person.run("where", "/source/deep/7.txt", "--json").json["size"] == 7
    (source / "deep" / "7.txt").write_text("changed meanwhile\n")
    again = person.run("import", source, "/source")
    assert again.code == 1
    assert "7.txt" in again.err
    person.fails(3, "import", person.folder / "nowhere")
    assert person.run("destroy", "--yes").code == 0


def test_a_second_device_joins_by_code_and_leaves(person: Person) -> None:
    first, second = person.folder / "first", person.folder / "second"
    made = person.run("new", "home", "--home", first, "--no-mount", "--pod", "one", *LOCAL, "--json").json
    wrong = made["code"][:-6] + ("0" if made["code"][-6] != "0" else "1") + made["code"][-5:]
    person.fails(4, "join", "--code", wrong, "--home", second, "--no-mount", *LOCAL)
    assert not second.exists()
    mount = person.folder / "mount"
    line = ("join", "--code", made["code"], "--home", second, "--mount", mount, "--pod", "two", *LOCAL, "--json")
    joined = person.run(*line)
    assert joined.code == 0, joined
    assert {key: joined.json[key] for key in ("cluster", "pod", "mount")} == {
        "cluster": "home",
        "pod": "two",
        "mount": str(mount),
    }
    third = person.folder / "third"
    assert "used" in person.fails(4, "join", "--code", made["code"], "--home", third, "--no-mount", *LOCAL)
    assert not third.exists()
    names = [cluster["name"] for cluster in person.run("nearby", "--json").json["clusters"]]
    assert "home" in names
    assert {pod["name"] for pod in person.run("pods", "--home", first, "--json").json["pods"]} == {"one", "two"}
    assert person.run("leave", "--home", second).code == 0
    assert not second.exists()
    assert not mount.exists()
    assert person.run("destroy", "--yes", "--home", first).code == 0
    assert processes(person.folder) == []


def test_a_pod_that_cannot_start_says_why_and_new_leaves_nothing(person: Person) -> None:
    home, mount = person.folder / "h", person.folder / "m"
    assert person.run("new", "home", "--home", home, "--mount", mount, *LOCAL).code == 0
    assert person.run("down", "--home", home).code == 0
    (mount / "mine").write_text("in the way")
    assert "not empty" in person.fails(9, "up", "--home", home)
    assert processes(person.folder) == []
    (mount / "mine").unlink()
    (home / "pod.toml").write_text("[pod]\nmounnt = 1\n")
    done = person.run("up", "--home", home)
    assert done.code == 6
    assert "pod.toml:2: pod.mounnt" in done.err
    assert processes(person.folder) == []


def test_foreground_stays_until_the_signal(person: Person) -> None:
    home = person.folder / "h"
    assert person.run("new", "home", "--home", home, "--no-mount", *LOCAL).code == 0
    assert person.run("down", "--home", home).code == 0
    process = subprocess.Popen([WORMHOLE, "up", "--foreground", "--home", home], env=person.environment)
    try:
        deadline_s = time.monotonic() + 120
        while person.run("status", "--home", home).code == 7:
            assert process.poll() is None
            assert time.monotonic() < deadline_s
        assert person.run("status", "--home", home, "--json").json["pid"] == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) in {0, 143}
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_the_demo_shows_three_pods_and_leaves_nothing(person: Person, number: int) -> None:
    source = person.folder / "things"
    source.mkdir()
    for name in range(200):
        (source / f"{name}.bin").write_bytes(os.urandom(1000 + 10 * name))
    process = subprocess.Popen(
        [WORMHOLE, "demo", source, "--json"],
        env={**person.environment, "TMPDIR": str(person.folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        text = ""
        for text_line in process.stdout:
            text += text_line
            if text_line.startswith("}"):
                break
        document = json.loads(text)
        assert (document["files"], len(document["pods"])) == (200, 3)
        for pod in document["pods"]:
            assert len(list((Path(pod["mount"]) / "things").iterdir())) == 200
        process.send_signal(number)
        _out, err = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == (0 if number == signal.SIGINT else 143), err
    assert "the same bytes" in err
    assert processes(person.folder) == []
    assert mounts(person.folder) == []
    assert [path.name for path in person.folder.iterdir()] == ["things"]
