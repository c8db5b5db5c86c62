"""`wormhole config` as a person and a script use it: on a running pod, and on the home of a stopped one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.runner import LOCAL, Person, end_pods


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    """Somebody with a running pod ``laptop``."""
    made = Person(tmp_path_factory.mktemp("config"))
    done = made.run("new", "home", "--pod", "laptop", "--no-mount", *LOCAL)
    assert done.code == 0, done
    yield made
    end_pods(made.folder)


def config(person: Person, code: int, *arguments: str | Path, **variables: str) -> tuple[str, str]:
    done = person.run("config", *arguments, **variables)
    assert done.code == code, done
    return done.out, done.err


def test_set_and_get(person: Person) -> None:
    before = config(person, 0, "export")[0]
    assert config(person, 0, "set", "redundancy.copies", "3") == ("", "")
    assert config(person, 0, "get", "redundancy.copies")[0] == "3\n"
    assert config(person, 0, "get", "admission")[0] == "code\n"
    assert config(person, 0, "get", "administrators")[0] == "*\n"
    assert config(person, 0, "export")[0] == before.replace("\ncopies = 2", "\ncopies = 3", 1)
    assert config(person, 0, "set", "redundancy.fan_out", "3") == ("", "")
    message = config(person, 6, "set", "redundancy.copis", "3")[1]
    assert "cluster.toml:1: redundancy.copis: unknown key; did you mean redundancy.copies?" in message
    assert "redundancy.copies: must be" in config(person, 6, "set", "copies", "many")[1]
    assert "keeps its name" in config(person, 6, "set", "cluster.name", "work")[1]
    assert config(person, 0, "get", "copies")[0] == "3\n", "what was in force stays"
    json = person.run("config", "set", "copies", "2", "--json").json
    assert json["changes"] == [{"key": "redundancy.copies", "old": 3, "new": 2}]
    assert (json["level"], json["changed"], json["warnings"]) == ("cluster", True, [])


def test_export_and_apply(person: Person) -> None:
    file = person.folder / "mine.toml"
    text = config(person, 0, "export")[0]
    file.write_text(text)
    assert config(person, 0, "apply", file) == ("", "Nothing to change.\n")
    file.write_text("# ours\n" + text.replace("\ncopies = 2", "\ncopies = 4"))
    out, err = config(person, 0, "apply", file, "--yes")
    assert "-copies = 2" in out
    assert "+copies = 4" in out
    assert "+# ours" in out
    assert err == ""
    assert config(person, 0, "export")[0] == file.read_text() == (person.state / "home" / "cluster.toml").read_text()
    json = person.run("config", "apply", file, "--json").json
    assert (json["changed"], json["changes"], json["diff"]) == (False, [], "")
    file.write_text('[cluster]\nnam = "home"\n[redundancy]\ncopies = "x"\n[pod]\n')
    out, err = config(person, 6, "apply", file)
    assert [line.split(": ")[:2] for line in err.splitlines()[:3]] == [
        [f"{file}:2", "cluster.nam"],
        [f"{file}:4", "redundancy.copies"],
        [f"{file}:5", "pod"],
    ]
    assert config(person, 0, "get", "copies")[0] == "4\n"
    person.fails(3, "config", "apply", "nowhere.toml")


def test_edit(person: Person) -> None:
    config(person, 0, "edit", EDITOR="sed -i s/^copies.*/copies=1/")
    assert config(person, 0, "get", "copies")[0] == "1\n"
    assert config(person, 0, "edit", VISUAL="true", EDITOR="false")[1] == "Nothing to change.\n"
    err = config(person, 6, "edit", EDITOR="sed -i s/^copies.*/copies=99/")[1]
    draft = Path(err.split("What you wrote is in ")[1].removesuffix(".\n"))
    assert f"{draft}:" in err
    assert "copies=99" in draft.read_text()
    assert config(person, 0, "get", "copies")[0] == "1\n"
    assert "failed with exit code 3" in person.fails(1, "config", "edit", EDITOR="exit 3;")
    assert "EDITOR" in person.fails(2, "config", "edit", EDITOR="", VISUAL="")
    draft.unlink()
    draft.parent.rmdir()


def test_an_edit_by_hand_is_noticed_and_offered(person: Person) -> None:
    home = person.state / "home"
    file = home / "cluster.toml"
    file.write_text(file.read_text().replace("copies=1", "copies=5"))
    (home / "pod.toml").write_text((home / "pod.toml").read_text() + "# mine\n")
    warnings = person.run("status", "--json").json["warnings"]
    assert [path for path in (file, home / "pod.toml") if any(f"{path} was edited" in one for one in warnings)] == [
        file,
        home / "pod.toml",
    ]
    config(person, 0, "set", "trash.versions", "5")
    assert "copies=5" in file.read_text(), "it is left alone"
    config(person, 0, "apply", file)
    config(person, 0, "apply", home / "pod.toml", "--pod-level")
    assert config(person, 0, "get", "copies")[0] == "5\n"
    assert not any("edited" in one for one in person.run("status", "--json").json["warnings"])


def test_this_pods_own_running_and_stopped(person: Person) -> None:
    pod_toml = person.state / "home" / "pod.toml"
    config(person, 0, "set", "cache.mode", "copy", "--pod-level")
    assert 'mode = "copy"' in pod_toml.read_text()
    assert "at the next `wormhole up`" in config(person, 1, "set", "pod.mount", "~/elsewhere", "--pod-level")[1]
    config(person, 1, "set", "pod.mount", "", "--pod-level")
    assert config(person, 0, "get", "cache.mode", "--pod-level")[0] == "copy\n"
    assert "--pod-level" in config(person, 6, "set", "cache.mode", "copy")[1]
    assert "keeps its name" in config(person, 6, "set", "pod.name", "x", "--pod-level")[1]
    text = config(person, 0, "export", "--pod-level")[0]
    assert text == pod_toml.read_text()
    assert person.run("down").code == 0
    assert config(person, 0, "get", "copies")[0] == "5\n"
    assert "copies = 5" in config(person, 0, "show")[0]
    assert config(person, 0, "export", "--pod-level")[0] == text
    config(person, 0, "set", "cache.limit", "5 GiB", "--pod-level")
    assert config(person, 0, "get", "cache.limit", "--pod-level")[0] == "5 GiB\n"
    assert "not running" in person.fails(7, "config", "set", "copies", "2")
    pod_toml.write_text("[cach]\n")
    assert "did you mean [cache]?" in person.run("up").err
    file = person.folder / "pod.toml"
    file.write_text(text)
    config(person, 0, "apply", file, "--pod-level")
    assert person.run("up").code == 0
    assert config(person, 0, "get", "cache.mode", "--pod-level")[0] == "copy\n"


def test_who_founds_has_to_administer(person: Person) -> None:
    file = person.folder / "company.toml"
    file.write_text('[cluster]\nadministrators = ["nas-1", "nas-2"]\n')
    home = person.folder / "other"
    done = person.run("new", "company", "--from", file, "--home", home, "--pod", "nas-1", "--no-mount", *LOCAL)
    assert (done.code, done.err) == (0, "")
    assert person.run("invite", "--home", home).code == 0
    assert config(person, 0, "get", "administrators", "--home", home)[0] == "nas-1\nnas-2\n"
    assert config(person, 1, "set", "administrators", '["nas-3"]', "--home", home)[1].startswith(
        "cluster.administrators"
    )
    assert config(person, 0, "set", "copies", "1", "--home", home), "nobody else is there to do it"
