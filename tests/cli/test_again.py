"""A cluster from a file, thrown away, and made again from what it exported: the examples, by the commands of a person."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.cli.runner import LOCAL, ROOT, Person, mounts, processes

EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
FOUNDERS = {"company": "nas-1", "webservice": "control"}
COUNTED = ("cluster", "situation", "reason", "frozen", "files")


def found(person: Person, file: Path, cluster: str, home: Path) -> dict[str, Any]:
    pod = FOUNDERS.get(file.stem, "first")
    mount = home.with_name("mount")
    done = person.run("--home", home, "new", cluster, "--from", file, "--pod", pod, "--mount", mount, *LOCAL, "--json")
    assert done.code == 0, done
    return dict(done.json)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


def is_nothing_left(person: Person) -> bool:
    return (processes(person.folder), mounts(person.folder), files(person.folder)) == ([], [], [])


def test_the_examples_become_clusters_and_nothing_again(person: Person) -> None:
    """All at once: most of the time is waiting."""

    def live_and_die(file: Path) -> None:
        home = person.folder / file.stem / "home"
        home.parent.mkdir()
        found(person, file, file.stem, home)
        assert person.run("--home", home, "config", "export").out == file.read_text(), file
        (home.with_name("mount") / "letter").write_text("hello")
        assert person.run("--home", home, "destroy", "--yes").code == 0, file

    assert len(EXAMPLES) >= 4
    with ThreadPoolExecutor() as pool:
        list(pool.map(live_and_die, EXAMPLES))
    assert is_nothing_left(person)


def test_a_cluster_is_made_again_from_what_it_exported(person: Person) -> None:
    """Export, import, export: the same bytes; the other pods join once each, and all is as it was."""
    home, other, kept = person.folder / "home", person.folder / "other", ROOT.parent / "none"
    exported: list[str] = []
    statuses: list[dict[str, Any]] = []
    source = ROOT / "examples" / "laboratory.toml"
    for again in range(2):
        address = found(person, source, "laboratory", home)["address"]
        if not again:
            changed = (
                '# ours\n[trash]\nkeep = "1d"  # short\n\n[redundancy]\ncopies = 2\n[cluster]\nadmission = "open"\n'
            )
            (person.folder / "changed.toml").write_text(f'{changed}name = "laboratory"\n')
            assert person.run("--home", home, "config", "apply", person.folder / "changed.toml").code == 0
            (person.folder / "changed.toml").unlink()
        words = ("--home", other, "join", "laboratory", "--peer", address, "--no-mount", "--pod", "second", *LOCAL)
        joined = person.run(*words, "--json")
        assert joined.code == 0, joined
        exported.append(person.run("--home", other, "config", "export").out)
        status = person.run("--home", home, "status", "--json").json
        statuses.append({key: status[key] for key in COUNTED})
        for one in (other, home):
            assert person.run("--home", one, "destroy", "--yes", "--force").code == 0
        assert is_nothing_left(person)
        kept = person.folder.with_name(f"{person.folder.name}.toml")
        kept.write_text(exported[-1])
        source = kept
    kept.unlink()
    assert exported[0] == exported[1]
    assert exported[0].startswith("# ours\n")
    assert statuses[0] == statuses[1]
