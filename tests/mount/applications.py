"""Applications that promise to survive a crash, run on the mount under kills of themselves and of the pod.

Each writes forever into a folder and prints ``committed N`` once change N is promised to last. After a kill its
`check` looks at what is left: nothing promised may be lost, nothing may be damaged.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.mount.conftest import Pod

SQLITE = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1] + "/data.db", isolation_level=None, timeout=30)
db.execute(f"PRAGMA journal_mode={sys.argv[2]}")
db.execute("PRAGMA synchronous=EXTRA")
db.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, data BLOB, twice INTEGER)")
number = db.execute("SELECT coalesce(max(n), 0) FROM t").fetchone()[0]
while True:
    number += 1
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO t VALUES (?, randomblob(3000), ?)", (number, 2 * number))
    db.execute("UPDATE t SET data = randomblob(2000) WHERE n = ?", (number // 2,))
    if number % 5 == 0:
        db.execute("DELETE FROM t WHERE n = ?", (number // 3,))
    db.execute("COMMIT")
    print("committed", number, flush=True)
"""

LMDB = """
import lmdb, os, sys
env = lmdb.open(sys.argv[1] + "/lmdb", map_size=1 << 26)
with env.begin() as look:
    number = int(look.get(b"last", b"0"))
while True:
    number += 1
    with env.begin(write=True) as change:
        change.put(b"%08d" % number, os.urandom(2000))
        change.delete(b"%08d" % (number // 2))
        change.put(b"last", b"%d" % number)
    print("committed", number, flush=True)
"""

GIT = """
import os, subprocess, sys
git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "safe.directory=*", "-c", "gc.auto=0"]
top = sys.argv[1] + "/repository"
if not os.path.isdir(top + "/.git"):
    subprocess.run([*git, "init", "-q", "-b", "main", top], check=True)
for name in ("index.lock", "HEAD.lock", "refs/heads/main.lock"):
    if os.path.exists(f"{top}/.git/{name}"):
        os.unlink(f"{top}/.git/{name}")
subprocess.run([*git, "reset", "-q", "--hard"], cwd=top, capture_output=True)
done = subprocess.run([*git, "rev-list", "--count", "HEAD"], cwd=top, capture_output=True, text=True)
number = int(done.stdout) if done.returncode == 0 else 0
while True:
    number += 1
    for name in (f"file-{number}", "always"):
        with open(f"{top}/{name}", "w") as file:
            file.write(f"{number} " * 500)
    subprocess.run([*git, "add", "-A"], cwd=top, check=True)
    subprocess.run([*git, "commit", "-qm", f"{number}"], cwd=top, check=True)
    if number % 12 == 0:
        subprocess.run([*git, "repack", "-adq"], cwd=top, check=True)
    print("committed", number, flush=True)
"""


def check_sqlite(top: Path, committed: int) -> None:
    with contextlib.closing(sqlite3.connect(top / "data.db", timeout=30)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT max(n) FROM t").fetchone()[0] >= committed
        assert db.execute("SELECT count(*) FROM t WHERE twice <> 2 * n").fetchone() == (0,)


def check_lmdb(top: Path, committed: int) -> None:
    import lmdb

    env = lmdb.open(str(top / "lmdb"), map_size=1 << 26)
    with env.begin() as look:
        last = int(look.get(b"last", b"0"))
        keys = sum(len(value) == 2000 for key, value in look.cursor() if key != b"last")
    env.close()
    assert last >= committed
    assert keys == last - last // 2


def check_git(top: Path, committed: int) -> None:
    """It doesn't sync its folders, so the last commits may be gone with the pod; what is there must be whole."""
    git = ("git", "-c", "safe.directory=*")

    def run(*words: str) -> str:
        done = subprocess.run(
            [*git, *words], cwd=top / "repository", capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
        return done.stdout

    run("fsck", "--strict", "--full")
    count = int(run("rev-list", "--count", "HEAD"))
    assert count
    for number in range(1, count, 7):
        assert run("show", f"HEAD:file-{number}") == f"{number} " * 500


class Application(NamedTuple):
    """A program, its arguments after the folder, and what checks its folder."""

    code: str
    arguments: tuple[str, ...]
    check: Callable[[Path, int], None]
    changes: int
    """How many it makes in a round at most."""


APPLICATIONS = {
    "sqlite-delete": Application(SQLITE, ("delete",), check_sqlite, 30),
    "sqlite-wal": Application(SQLITE, ("wal",), check_sqlite, 30),
    "sqlite-truncate": Application(SQLITE, ("truncate",), check_sqlite, 30),
    "lmdb": Application(LMDB, (), check_lmdb, 60),
    "git": Application(GIT, (), check_git, 8),
}


def kill_loop(name: str, top: Path, rounds: int, rng: random.Random, pod: Pod | None = None) -> int:
    """Run an application in rounds; each ends with kills, a look at what is left, and a new start.

    With a pod that is killed first, else the application alone. Returns what was committed.
    """
    application = APPLICATIONS[name]
    committed = 0
    for _ in range(rounds):
        child = subprocess.Popen(
            [sys.executable, "-c", application.code, str(top), *application.arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert child.stdout is not None
        assert child.stderr is not None
        before = committed
        for _ in range(rng.randrange(2, application.changes)):
            line = child.stdout.readline()
            assert line, f"{name} ended by itself: {child.stderr.read()[-2000:]}"
            committed = int(line.split()[1])
        time.sleep(rng.random() * 0.02)  # to be hit at any point of the next change
        if pod is not None:
            pod.kill()
        os.killpg(child.pid, signal.SIGKILL)
        said = [int(line.split()[1]) for line in child.stdout]
        if pod is None:
            # Under a mount that just died it proves nothing: SQLite takes a folder that it can't open for one synced.
            committed = max([committed, *said])
        child.wait(30)
        child.stdout.close()
        child.stderr.close()
        assert committed > before
        if pod is not None:
            pod.start()
        application.check(top, committed)
    return committed
