"""Random operations on two directories at once: a plain one and one on a mount. They must never differ.

    python tests/mount/comparer.py MOUNTED PLAIN SEED STEPS

Names come from a small set, so that operations meet: open files are renamed, replaced, unlinked, mapped, truncated.
Everything is drawn from the seed; the first difference ends the run and shows the steps that led there.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
import stat
import sys
from collections import deque
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.mount.oracle import RENAME_EXCHANGE, RENAME_NOREPLACE, content_of, facts, inside, renameat2, same_files

NAMES = ("a", "b", "c", "d")
DEPTH = 3
OPEN_LIMIT = 6
SIZES = (0, 1, 100, 4096, 5000, 70_000, 1 << 20, (1 << 20) + 1, 2_500_000)
PLACES = (0, 0, 1, 4095, 4096, 60_000, (1 << 20) - 3, 1 << 20, 2_000_000)
FLAGS = (
    *(os.O_RDONLY, os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_APPEND, os.O_RDWR | os.O_TRUNC, os.O_RDWR | os.O_CREAT),
    *(
        os.O_RDWR | os.O_CREAT | os.O_EXCL,
        os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
        os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    ),
)
SHOWN_STEPS = 40


class Side:
    """One of the two directories with what is open in it."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.files: dict[int, int] = {}
        self.maps: dict[int, mmap.mmap] = {}

    def close(self) -> None:
        for shared in self.maps.values():
            shared.close()
        for fd in self.files.values():
            os.close(fd)
        self.maps.clear()
        self.files.clear()

    def do(self, name, *arguments):
        """Return what an operation returned, or its error's name."""
        try:
            with inside(self.top):
                return getattr(self, name)(*arguments)
        except OSError as error:
            return errno.errorcode[error.errno or 0]

    # -- operations; a handle is a number that both sides share

    def open(self, handle, path, flags, mode):
        self.files[handle] = os.open(path, flags, mode)
        return "opened"

    def shut(self, handle):
        os.close(self.files.pop(handle))

    def write(self, handle, data):
        return os.write(self.files[handle], data), os.fstat(self.files[handle]).st_size

    def pwrite(self, handle, data, place):
        return os.pwrite(self.files[handle], data, place)

    def read(self, handle, length, place):
        return os.pread(self.files[handle], length, place)

    def ftruncate(self, handle, size):
        os.ftruncate(self.files[handle], size)

    def fstat(self, handle):
        return facts(os.fstat(self.files[handle]))

    def fchmod(self, handle, mode):
        os.fchmod(self.files[handle], mode)

    def fsync(self, handle):
        os.fsync(self.files[handle])

    def map(self, handle):
        fd = self.files[handle]
        found = os.fstat(fd)
        size = found.st_size if stat.S_ISREG(found.st_mode) else 0  # that of a directory is the file system's own
        if not size or handle in self.maps:
            return "not mapped"
        try:
            self.maps[handle] = mmap.mmap(fd, size)
        except PermissionError:
            return "EACCES"
        return size

    def poke(self, handle, data, place):
        shared = self.maps[handle]
        room = min(len(shared), os.fstat(self.files[handle]).st_size) - len(data)
        if room < 0:
            return "too small"
        shared[place % (room + 1) : place % (room + 1) + len(data)] = data
        return place % (room + 1)

    def unmap(self, handle):
        self.maps.pop(handle).close()

    def creat(self, path, data):
        with open(path, "wb") as file:
            file.write(data)

    def truncate(self, path, size):
        os.truncate(path, size)

    def unlink(self, path):
        os.unlink(path)

    def mkdir(self, path):
        os.mkdir(path)

    def rmdir(self, path):
        os.rmdir(path)

    def rename(self, path, new, flags):
        if flags:
            return renameat2(path, new, flags)
        return os.rename(path, new)

    def link(self, path, new):
        os.link(path, new, follow_symlinks=False)

    def symlink(self, target, path):
        os.symlink(target, path)

    def chmod(self, path, mode):
        os.chmod(path, mode)

    def chown(self, path, uid, gid):
        os.chown(path, uid, gid, follow_symlinks=False)

    def utime(self, path, atime_ns, mtime_ns):
        os.utime(path, ns=(atime_ns, mtime_ns), follow_symlinks=False)
        return os.lstat(path).st_mtime_ns

    def setxattr(self, path, name, value):
        os.setxattr(path, name, value)

    def removexattr(self, path, name):
        os.removexattr(path, name)

    def xattrs(self, path):
        return {name: os.getxattr(path, name) for name in sorted(os.listxattr(path))}

    def stat(self, path):
        return facts(os.stat(path))

    def readlink(self, path):
        return os.readlink(path)

    def listdir(self, path):
        return sorted(os.listdir(path))

    def picture(self):
        """Return everything that a program could find out."""
        shown = {}
        for folder, folders, files in os.walk("."):
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                info = os.lstat(path)
                shown[path] = (*facts(info), content_of(path, info))
        handles = {handle: facts(os.fstat(fd)) for handle, fd in self.files.items()}
        return shown, handles, same_files()


class Difference(AssertionError):  # noqa: N818
    """The two directories are not the same."""


class Comparer:
    """Draws operations and compares."""

    def __init__(self, mounted: Path, plain: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.seed = seed
        tops = [folder / "top" for folder in (mounted, plain)]  # a link to ../a leads out of it
        for top in tops:
            top.mkdir()
        self.mounted, self.plain = map(Side, tops)
        self.steps: deque[str] = deque(maxlen=SHOWN_STEPS)
        self.count = 0
        self.last = 0

    def path(self) -> str:
        return "/".join(self.rng.choice(NAMES) for _ in range(self.rng.choice((1, 1, 1, 2, 2, DEPTH))))

    def data(self, largest=70_000) -> bytes:
        size = self.rng.choice([size for size in SIZES if size <= largest])
        return self.rng.randbytes(min(size, 16)) * (size // 16 + 1)

    def step(self) -> None:
        """Do one operation on both sides."""
        rng = self.rng
        open_now = list(self.plain.files)
        drawn = [self.on_path(), self.on_path()]
        if open_now:
            drawn += [self.on_handle(rng.choice(open_now)) for _ in range(3)]
        words = rng.choice(drawn)
        if words[0] == "open" and len(open_now) >= OPEN_LIMIT:
            words = ("shut", open_now[0])
        self.both(*words)

    def on_path(self) -> tuple[Any, ...]:
        rng = self.rng
        path, new = self.path(), self.path()
        self.last += 1
        return rng.choice(
            [
                *[("open", self.last, path, rng.choice(FLAGS), rng.choice((0o644, 0o600)))] * 4,
                ("creat", path, self.data(1 << 21)),
                ("truncate", path, rng.choice(SIZES)),
                *[("unlink", path)] * 2,
                *[("mkdir", path)] * 3,
                ("rmdir", path),
                *[("rename", path, new, rng.choice((0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE)))] * 4,
                *[("link", path, new)] * 2,
                ("symlink", rng.choice((*NAMES, "../a", "nowhere")), path),
                ("chmod", path, rng.choice((0o600, 0o755, 0o4711, 0o2755, 0o1777))),
                ("chown", path, rng.choice((-1, 0, 7)), rng.choice((-1, 0, 8))),
                ("utime", path, rng.randrange(1 << 40), rng.randrange(1 << 60)),
                ("setxattr", path, rng.choice(("user.a", "user.b")), rng.randbytes(rng.choice((0, 1, 300)))),
                ("removexattr", path, "user.a"),
                ("xattrs", path),
                ("stat", path),
                ("readlink", path),
                ("listdir", path),
            ]
        )

    def on_handle(self, handle) -> tuple[Any, ...]:
        rng = self.rng
        if handle in self.plain.maps:
            return rng.choice([("poke", handle, rng.randbytes(7), rng.randrange(1 << 22)), ("unmap", handle)])
        return rng.choice(
            [
                *[("write", handle, self.data())] * 3,
                *[("pwrite", handle, self.data(1 << 20), rng.choice(PLACES))] * 3,
                *[("read", handle, rng.choice(SIZES), rng.choice(PLACES))] * 3,
                ("ftruncate", handle, rng.choice(SIZES)),
                ("fstat", handle),
                ("fchmod", handle, rng.choice((0o600, 0o755, 0o4711))),
                ("fsync", handle),
                ("map", handle),
                *[("shut", handle)] * 2,
            ]
        )

    def both(self, *words):
        """Do it on both sides; raise `Difference` when they don't agree."""
        self.count += 1
        self.steps.append(" ".join(_short(word) for word in words))
        plain, mounted = self.plain.do(*words), self.mounted.do(*words)
        if plain != mounted:
            history = "\n".join(self.steps)
            raise Difference(
                f"seed {self.seed}, step {self.count}: plain {_short(plain)}, mounted {_short(mounted)}, after\n{history}"
            )

    def compare(self) -> None:
        """Compare everything."""
        for index, part in enumerate(("tree", "open files", "links")):
            plain, mounted = self.plain.do("picture")[index], self.mounted.do("picture")[index]
            if plain != mounted:
                if isinstance(plain, dict):
                    keys = sorted({*plain, *mounted}, key=str)
                    mounted = {key: _short(mounted.get(key)) for key in keys if plain.get(key) != mounted.get(key)}
                    plain = {key: _short(plain.get(key)) for key in mounted}
                history = "\n".join(self.steps)
                raise Difference(f"seed {self.seed}: {part}: plain {plain}, mounted {mounted}, after\n{history}")

    def run(self, steps: int) -> None:
        """Do so many steps; compare everything now and then, and at the end once all is closed."""
        try:
            for number in range(steps):
                self.step()
                if number % 100 == 99:
                    self.compare()
            self.compare()
        finally:
            self.mounted.close()
            self.plain.close()
        self.compare()


def _short(word) -> str:
    text = repr(word)
    return text if len(text) < 90 else f"{text[:60]}...{len(word) if hasattr(word, '__len__') else ''}"


def main() -> None:
    mounted, plain, seed, steps = sys.argv[1:]
    Comparer(Path(mounted), Path(plain), int(seed)).run(int(steps))


if __name__ == "__main__":
    main()
