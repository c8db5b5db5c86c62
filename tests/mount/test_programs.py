"""Public programs on the mount: each believes that it works on a local directory."""

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mount.programs import has_python_tests, python_tests


def run(*words, cwd=None, **kwargs):
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, capture_output=True, text=True, timeout=100, check=False, **kwargs
    )
    assert done.returncode == 0, f"{words}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Path:
    """A tree of real files: modes, times, links, empty and larger ones."""
    top: Path = tmp_path_factory.mktemp("source") / "tree"
    top.mkdir()
    package = Path(hashlib.__file__).parent / "email"
    shutil.copytree(package, top / "email", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(Path(hashlib.__file__).parent / "json", top / "json")
    (top / "empty").write_bytes(b"")
    (top / "large").write_bytes(os.urandom(3_500_000))
    (top / "script").write_text("#!/bin/sh\n")
    (top / "script").chmod(0o755)
    (top / "link").symlink_to("email/header.py")
    os.link(top / "empty", top / "hard")
    # Old times: rsync takes times of less than a second apart for equal.
    for number, path in enumerate(sorted(top.rglob("*"))):
        os.utime(path, ns=(1, 1_234_567_890_123_456_789 + number * 3_000_000_007), follow_symlinks=False)
    return top


def same(one: Path, two: Path) -> None:
    run("diff", "-r", "--no-dereference", one, two)
    listing = "find . -printf '%p %y %m %s %T@ %l\\n' | grep -v ' d ' | sort"
    assert run("sh", "-c", listing, cwd=one) == run("sh", "-c", listing, cwd=two)


def test_cp(work, source, pod):
    run("cp", "-a", source, work / "copy")
    same(source, work / "copy")
    pod.settled()
    pod.forget()
    same(source, work / "copy")
    run("rm", "-r", work / "copy")
    assert os.listdir(work) == []


def test_rsync(work, source):
    run("rsync", "-aHAX", f"{source}/", work / "copy")
    same(source, work / "copy")
    assert run("rsync", "-aHAX", "--checksum", "--itemize-changes", f"{source}/", work / "copy") == ""
    assert run("rsync", "-aH", "--itemize-changes", f"{source}/", work / "copy") == ""


def test_tar(work, source, tmp_path):
    run("tar", "--format=posix", "-cf", tmp_path / "a.tar", "-C", source, ".")
    (work / "x").mkdir()
    run("tar", "xpf", tmp_path / "a.tar", "-C", work / "x")
    same(source, work / "x")
    run("tar", "cf", work / "b.tar", "-C", work / "x", ".")
    assert "email/header.py" in run("tar", "tf", work / "b.tar")


def test_git(work, source, tmp_path):
    origin = tmp_path / "origin"
    shutil.copytree(source, origin, symlinks=True)
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "safe.directory=*")
    run(*git, "init", "-q", "-b", "main", origin)
    run(*git, "add", "-A", cwd=origin)
    run(*git, "commit", "-qm", "first", cwd=origin)
    clone = work / "clone"
    run(*git, "clone", "-q", f"file://{origin}", clone)
    assert run(*git, "status", "--porcelain", cwd=clone) == ""
    (clone / "new").write_text("x")
    (clone / "json" / "decoder.py").write_text("changed")
    assert sorted(run(*git, "status", "--porcelain", cwd=clone).split()) == ["??", "M", "json/decoder.py", "new"]
    run(*git, "add", "-A", cwd=clone)
    run(*git, "commit", "-qm", "second", cwd=clone)
    run(*git, "gc", "-q", cwd=clone)
    run(*git, "fsck", "--strict", cwd=clone)
    run(*git, "checkout", "-q", "HEAD~1", cwd=clone)
    assert run(*git, "status", "--porcelain", cwd=clone) == ""


def test_saving_by_rename_as_editors_do(work, pod):
    path = work / "document"
    for turn in range(20):
        temporary = work / ".document.tmp"
        with open(temporary, "w") as file:
            file.write(f"version {turn}\n" * 1000)
            if turn % 2:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
        assert path.read_text() == f"version {turn}\n" * 1000
    pod.settled()
    pod.forget()
    assert path.read_text() == "version 19\n" * 1000
    assert os.listdir(work) == ["document"]


def test_saving_with_a_backup(work):
    path = work / "document"
    path.write_text("one")
    for turn in range(5):
        os.rename(path, work / "document~")
        path.write_text(f"{turn}")
    assert (path.read_text(), (work / "document~").read_text()) == ("4", "3")


def test_venv(work):
    run(sys.executable, "-m", "venv", "--without-pip", work / "env")
    python = work / "env" / "bin" / "python"
    (work / "env" / "module.py").write_text("value = 5\n")
    assert run(python, "-c", "import json, module; print(module.value)", cwd=work / "env").strip() == "5"


@pytest.mark.parametrize("journal", ["delete", "wal", "truncate", "persist"])
def test_sqlite(work, journal, pod):
    path = work / "data.db"
    with sqlite3.connect(path, isolation_level=None) as db:
        assert db.execute(f"PRAGMA journal_mode={journal}").fetchone()[0] == journal
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)")
        for _ in range(5):
            db.execute("BEGIN")
            db.executemany("INSERT INTO t (data) VALUES (?)", [(os.urandom(500),) for _ in range(200)])
            db.execute("COMMIT")
        db.execute("BEGIN")
        db.execute("DELETE FROM t")
        db.execute("ROLLBACK")
        with sqlite3.connect(path) as other:
            assert other.execute("SELECT count(*) FROM t").fetchone() == (1000,)
        db.execute("VACUUM")
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
    pod.settled()
    pod.forget()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*) FROM t").fetchone() == (1000,)
    db.close()


def test_compiling(work):
    (work / "a.c").write_text('#include <stdio.h>\nint main(void) { puts("built"); return 0; }\n')
    (work / "Makefile").write_text("a: a.o\n\tcc -o a a.o\na.o: a.c\n\tcc -c a.c\n")
    run("make", cwd=work)
    assert run(work / "a").strip() == "built"
    assert "up to date" in run("make", cwd=work)


@pytest.mark.skipif(not has_python_tests(), reason="this Python comes without its tests")
def test_pythons_own_tests(work):
    python_tests(work, ("test_mmap", "test_posix", "test_largefile", "test_shutil"))
