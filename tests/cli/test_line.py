"""The line itself: help, wrong usage, exit codes, global options, and how fast it starts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cli import hoist
from commands.invocation import COMMANDS
from tests.cli.runner import ROOT, WORMHOLE, Person

HEAVY = {"anyio", "trio", "zeroconf", "pycrdt", "cryptography", "pyfuse3", "msgspec", "tomlkit", "blake3", "rich"}
NAMES = [command.name for command in COMMANDS]
REQUIRED = (
    *("new", "join", "nearby", "invite", "up", "down", "autostart", "mount", "unmount", "pods", "status"),
    *("where", "sync", "import", "leave", "destroy", "demo", "requests", "approve", "deny", "evict", "recover"),
    *("maintenance", "pin", "unpin", "scrub", "why", "safe-to-unplug", "plan", "prepare"),
    *("freeze", "unfreeze", "drill"),
)


def test_every_command_of_this_release_is_there() -> None:
    config = (f"config {name}" for name in ("apply", "check", "edit", "export", "get", "lost", "set", "show"))
    groups = (*config, "conflicts list", "conflicts keep")
    assert {*REQUIRED, *groups, "trash list", "trash restore", "trash empty"} == set(NAMES)


def test_help_lists_all_commands_on_one_line_each(person: Person) -> None:
    done = person.run("--help")
    assert done.code == 0
    assert done.err == ""
    for name in NAMES:
        lines = [line for line in done.out.splitlines() if line.split()[:1] == name.split()[:1]]
        assert len(lines) == 1, name
        assert not lines[0].endswith("..."), lines[0]
    assert "\x1b" not in done.out


@pytest.mark.parametrize("name", NAMES)
def test_each_command_explains_itself_with_an_example(person: Person, name: str) -> None:
    done = person.run(*name.split(), "--help")
    assert done.code == 0
    assert f"Usage: wormhole {name}" in done.out
    example = done.out.partition("Example")[2]
    assert f"  wormhole {name}" in example


@pytest.mark.parametrize(
    "line",
    [
        ["frobnicate"],
        ["statsu"],
        ["status", "--frob"],
        ["where"],
        ["where", "a", "b"],
        ["sync", "--copies", "0"],
        ["sync", "--copies", "many"],
        ["invite", "--uses", "-1"],
        ["autostart", "perhaps"],
        ["config"],
        ["config", "frob"],
        ["--home"],
        ["status", "--cluster"],
        ["new", "-x"],
        ["new", "a/b"],
        ["new", ".."],
        ["new", ""],
        ["new", "n" * 64],
        ["new", "home", "--pod", "a b"],
        ["new", "home", "--mount", "x", "--no-mount"],
        ["new", "home", "--no-mount", "--listen", "nonsense"],
        ["new", "home", "--no-mount", "--listen", "127.0.0.1:99999"],
        ["join", "--no-mount", "--peer", "1.2.3.4", "--code", "x"],
        [b"wh\xffre"],
    ],
)
def test_wrong_usage_is_exit_2(person: Person, line: list[str | bytes]) -> None:
    person.fails(2, *[word if isinstance(word, str) else os.fsdecode(word) for word in line])
    assert not person.state.exists()


def test_a_slip_is_guessed(person: Person) -> None:
    assert "'status'" in person.fails(2, "statsu")


def test_no_command_is_wrong_usage_and_shows_the_help(person: Person) -> None:
    done = person.run()
    assert (done.code, done.out) == (2, "")
    assert "Commands:" in done.err


def test_without_any_pod_it_is_exit_7(person: Person) -> None:
    for line in (["status"], ["pods"], ["where", "x"], ["up"], ["down"], ["invite"], ["destroy", "--yes"], ["leave"]):
        assert "wormhole new" in person.fails(7, *line)
    assert not person.state.exists()


def test_a_named_home_that_is_not_there_is_exit_7(person: Person) -> None:
    assert "/nowhere" in person.fails(7, "--home", "/nowhere", "status")
    assert "/elsewhere" in person.fails(7, "status", WORMHOLE_HOME="/elsewhere")
    assert "/nowhere" in person.fails(7, "status", "--home=/nowhere", WORMHOLE_HOME="/elsewhere")
    assert "office" in person.fails(7, "status", "--cluster", "office")


def _home(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "pod.toml").write_text('[pod]\nname = "x"\nmount = ""\n')
    return folder


def test_one_home_is_found_and_of_several_one_must_be_named(person: Person) -> None:
    _home(person.state / "home")
    assert "state/wormhole/home is not running" in person.fails(7, "status")
    _home(person.state / "office")
    assert "home, office" in person.fails(2, "status")
    assert "state/wormhole/office is not running" in person.fails(7, "status", "--cluster", "office")
    assert "state/wormhole/office is not running" in person.fails(
        7, "status", WORMHOLE_HOME=str(person.state / "office")
    )


def test_global_options_stand_anywhere() -> None:
    for line in (
        ["--home", "/h", "--json", "config", "show", "--pod-level"],
        ["config", "--home", "/h", "show", "--json", "--pod-level"],
        ["config", "show", "--pod-level", "--json", "--home=/h"],
    ):
        assert sorted(hoist(line)[:2]) == ["--home=/h", "--json"]
        assert hoist(line)[2:] == ["config", "show", "--pod-level"]
    assert hoist(["where", "--", "--json"]) == ["where", "--", "--json"]


def test_an_error_with_json_leaves_stdout_empty(person: Person) -> None:
    person.fails(7, "status", "--json")
    person.fails(2, "statsu", "--json")


def test_config_check_tells_all_errors_at_once(person: Person) -> None:
    good = person.folder / "good.toml"
    good.write_text('[cluster]\nname = "home"\n')
    assert person.run("config", "check", good).code == 0
    bad = person.folder / "bad.toml"
    bad.write_text('[cluster]\nname = "home"\nadmision = "code"\n\n[redundancy]\ncopies = "two"\n')
    done = person.run("config", "check", bad)
    assert done.code == 6
    assert f"{bad}:3: cluster.admision" in done.err
    assert f"{bad}:6: redundancy.copies" in done.err
    assert len(person.run("config", "check", bad, "--json").json["errors"]) == 2
    person.fails(3, "config", "check", "/nowhere.toml")


def test_a_bad_file_for_new_is_exit_6_and_leaves_nothing(person: Person) -> None:
    bad = person.folder / "bad.toml"
    bad.write_text("[redundancy]\ncopies = 99\n")
    done = person.run("new", "home", "--no-mount", "--from", bad)
    assert (done.code, done.out) == (6, "")
    assert f"{bad}:2: redundancy.copies" in done.err
    assert not person.state.exists()


def test_a_mount_point_in_use_is_exit_9_and_leaves_nothing(person: Person) -> None:
    full = person.folder / "full"
    full.mkdir()
    (full / "file").write_text("mine")
    assert "not empty" in person.fails(9, "new", "home", "--mount", full)
    assert "no folder" in person.fails(9, "new", "home", "--mount", full / "file")
    assert not person.state.exists()
    assert (full / "file").read_text() == "mine"


def test_a_port_in_use_is_exit_9_and_leaves_nothing(person: Person) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "in use" in person.fails(9, "new", "home", "--no-mount", "--listen", f"127.0.0.1:{port}")
    assert not person.state.exists()


@pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="this machine is run by systemd")
def test_autostart_without_systemd_is_exit_9_and_leaves_nothing(person: Person) -> None:
    assert "systemd" in person.fails(9, "new", "home", "--no-mount", "--autostart")
    assert not person.state.exists()


def test_a_home_in_use_is_refused(person: Person) -> None:
    home = _home(person.folder / "h")
    assert "already" in person.fails(4, "new", "home", "--no-mount", "--home", home)
    other = person.folder / "other"
    other.mkdir()
    (other / "file").write_text("mine")
    assert "not an empty folder" in person.fails(4, "new", "home", "--no-mount", "--home", other)


def test_a_malformed_code_is_refused_before_anything_else(person: Person) -> None:
    assert "wormhole join --code" in person.fails(4, "join", "--no-mount", "--code", "abc")
    assert not list(person.folder.rglob("identity"))


def test_destroy_asks_and_a_stopped_pod_may_hold_the_only_copy(person: Person) -> None:
    home = _home(person.folder / "h")
    assert "--force" in person.fails(4, "destroy", "--yes", "--home", home)
    assert "--yes" in person.fails(2, "destroy", "--force", "--home", home)
    assert person.run("destroy", "--force", "--yes", "--home", home).code == 0
    assert not home.exists()


def test_status_of_a_closed_reader_is_quiet(person: Person) -> None:
    line = f"'{WORMHOLE}' --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], env=person.environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stderr == ""
    assert done.stdout.strip() in {"0", "141"}


def test_a_full_disk_for_stdout_is_an_error(person: Person) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [WORMHOLE, "config", "check", _good(person), "--json"],
            env=person.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 9
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def _good(person: Person) -> Path:
    path = person.folder / "good.toml"
    path.write_text('[cluster]\nname = "home"\n')
    return path


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["INT", "TERM", "HUP"]
)
def test_a_signal_ends_a_join_with_its_exit_code_and_leaves_nothing(person: Person, number: int, code: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.settimeout(120)
        peer = f"127.0.0.1:{mute.getsockname()[1]}"
        process = subprocess.Popen(
            [WORMHOLE, "join", "home", "--code", "0000-00-0000-0000-0000", "--no-mount", "--peer", peer],
            env=person.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            connection, _address = mute.accept()
            with connection:
                process.send_signal(number)
                out, err = process.communicate(timeout=120)
        finally:
            process.kill()
            process.wait()
    assert (process.returncode, out) == (code, ""), err
    assert "Traceback" not in err
    assert not list(person.folder.rglob("*identity*"))
    assert not list(person.folder.rglob(".*ing-*"))


LAZY = """
import sys
import cli
code = cli.run({line!r})
print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize("line", [["--help"], ["status"], ["join", "--help"], ["status", "--home", "{home}"], ["frob"]])
def test_nothing_heavy_is_loaded(person: Person, line: list[str]) -> None:
    home = _home(person.folder / "h")
    line = [word.format(home=home) for word in line]
    done = subprocess.run(
        [sys.executable, "-c", LAZY.format(line=line, heavy=HEAVY)],
        env={**person.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stderr.splitlines()[-1] == "[]"
