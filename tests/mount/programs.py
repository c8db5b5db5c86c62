"""Public programs at full length, for `script/soak`: Python's own tests of files, a C program built, git, rsync, pip,
and, where they are installed, ``fio --verify`` and the file stressors of ``stress-ng --verify``.

Each ends with exit code 0 or raises with the end of what it printed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

PYTHON_TESTS: Final = (
    *("test_os", "test_shutil", "test_pathlib", "test_mmap", "test_largefile", "test_posix", "test_fileio"),
    *("test_tempfile", "test_glob", "test_filecmp", "test_zipfile", "test_tarfile", "test_dbm", "test_sqlite3"),
)
STRESSORS: Final = (
    *("access", "chdir", "chmod", "chown", "copy-file", "dentry", "dir", "dirdeep", "dirmany", "dup", "fallocate"),
    *("fiemap", "file-ioctl", "filename", "flock", "flushcache", "fpunch", "fstat", "getdent", "hdd", "link", "locka"),
    *("lockf", "mmap", "open", "readahead", "rename", "seek", "symlink", "sync-file", "touch", "unlink", "utime"),
    *("verity", "xattr", "metamix", "iomix"),
)
LIMIT_S: Final = 1800


def run(*words: str | Path, cwd: Path, **more: str) -> str:
    """Run a program to its end; return what it printed."""
    environment = {**os.environ, **more}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{words}: {done.stdout[-3000:]} {done.stderr[-3000:]}"
    return done.stdout


def python_tests(top: Path, tests: tuple[str, ...] = PYTHON_TESTS) -> None:
    """Run tests of Python's own, with their temporary directories in ``top``."""
    run(sys.executable, "-m", "test", "-u", "largefile", "--tempdir", top, *tests, cwd=top, TMPDIR=str(top))


def has_python_tests() -> bool:
    """Tell whether this Python has them: distributions leave them out."""
    return (
        subprocess.run([sys.executable, "-c", "import test.test_os"], capture_output=True, check=False).returncode == 0
    )


def git(top: Path) -> None:
    """Clone, change, rebase, collect and check a repository."""
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "safe.directory=*", "-c", "init.defaultBranch=main")
    one, two = top / "one", top / "two"
    run("git", *who, "init", one, cwd=top)
    for number in range(300):
        (one / f"{number % 17}").mkdir(exist_ok=True)
        (one / f"{number % 17}" / f"{number}.txt").write_text(f"{number}\n" * number)
    run("git", *who, "add", ".", cwd=one)
    run("git", *who, "commit", "-m", "first", cwd=one)
    run("git", *who, "clone", one, two, cwd=top)
    for folder, name in ((one, "1/1.txt"), (two, "2/2.txt")):
        (folder / name).write_text("changed\n")
        run("git", *who, "commit", "-am", name, cwd=folder)
    run("git", *who, "pull", "--rebase", cwd=two)
    run("git", *who, "gc", "--aggressive", "--prune=now", cwd=two)
    run("git", *who, "fsck", "--full", "--strict", cwd=two)
    assert not run("git", *who, "status", "--porcelain", cwd=two)


def rsync(top: Path) -> None:
    """Copy a large tree in and out with everything that rsync can compare."""
    source = Path(os.__file__).parent
    copy = ("rsync", "-aHAX", "--checksum", "--delete", "--exclude=site-packages", "--exclude=__pycache__")
    with tempfile.TemporaryDirectory() as out:
        run(*copy, f"{source}/", f"{top}/in/", cwd=top)
        run(*copy, f"{top}/in/", f"{out}/", cwd=top)
        assert not run(*copy, "--dry-run", "--itemize-changes", f"{source}/", f"{out}/", cwd=top)


def pip(top: Path) -> None:
    """Make a virtual environment with pip in it, have that install itself anew from its own wheel, and run it."""
    run(sys.executable, "-m", "venv", top / "env", cwd=top)
    python = top / "env" / "bin" / "python"
    wheel = next((Path(os.__file__).parent / "ensurepip" / "_bundled").glob("pip-*.whl"))
    run(python, "-m", "pip", "install", "--no-index", "--force-reinstall", wheel, cwd=top)
    run(python, "-m", "pip", "check", cwd=top)


def compiling(top: Path) -> None:
    """Build a C program of some hundred files with make, with two jobs, twice."""
    for number in range(200):
        (top / f"part{number}.c").write_text(f"int part{number}(void) {{ return {number}; }}\n")
    calls = "+".join(f"part{number}()" for number in range(200))
    heads = "".join(f"int part{number}(void);\n" for number in range(200))
    (top / "main.c").write_text(f"{heads}int main(void) {{ return {calls} == 19900 ? 0 : 1; }}\n")
    (top / "Makefile").write_text("main: $(patsubst %.c,%.o,$(wildcard *.c))\n\tcc -o $@ $^\n")
    run("make", "-j2", cwd=top)
    run(top / "main", cwd=top)
    assert "up to date" in run("make", cwd=top)


def verified_writes(top: Path) -> None:
    """Let fio write and verify, through write and through mappings."""
    common = ("--verify_fatal=1", f"--directory={top}", "--name=v", "--size=32m")
    run("fio", *common, "--rw=randwrite", "--bs=4k", "--fsync=64", "--verify=crc32c", cwd=top)
    run("fio", *common, "--rw=randrw", "--bs=4k", "--ioengine=mmap", "--verify=sha1", "--filename=m", cwd=top)


def stressors(top: Path) -> None:
    """Let stress-ng's file stressors check what they read."""
    known = run("stress-ng", "--stressors", cwd=top).split()
    for name in filter(known.__contains__, STRESSORS):
        run("stress-ng", f"--{name}", "1", "-t", "3s", "--verify", "--temp-path", top, cwd=top)


def everything(top: Path) -> None:
    """Run all of them, each in a folder of its own."""
    for story, needed in (
        (git, "git"),
        (rsync, "rsync"),
        (pip, ""),
        (compiling, "make"),
        (verified_writes, "fio"),
        (stressors, "stress-ng"),
    ):
        if needed and shutil.which(needed) is None:
            continue
        folder = top / story.__name__
        folder.mkdir()
        story(folder)
    if has_python_tests():
        folder = top / "python"
        folder.mkdir()
        python_tests(folder)
