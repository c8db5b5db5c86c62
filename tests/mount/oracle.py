"""The local file system as oracle: one action in a plain directory and on the mount, and everything that it did there."""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import contextmanager

NOBODY = 65534
REALTIME_COARSE = 5  # Linux; not in the time module
LONG = "n" * 255
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2


def renameat2(old, new, flags):
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def tick():
    """Wait until the kernel's coarse clock moves on: a local file system may take its times from it."""
    start = time.clock_gettime_ns(REALTIME_COARSE)
    while time.clock_gettime_ns(REALTIME_COARSE) == start:
        pass


@contextmanager
def inside(top):
    """Work in a directory: names are relative then, and the same on the mount and beside it."""
    before = os.getcwd()
    os.chdir(top)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def user(uid, gid=None, groups=()):
    """Be somebody else for a while."""
    own = os.getgroups()
    os.setgroups(groups)
    os.setegid(uid if gid is None else gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(own)


def outcome(action):
    """Return the value of an action, or the name of the error that it raised."""
    try:
        value = action()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    if isinstance(value, os.stat_result):
        return facts(value)
    return value


def facts(info):
    """Return what must be the same of two stat results, in whatever file system."""
    size = None if stat.S_ISDIR(info.st_mode) else info.st_size
    return oct(info.st_mode), info.st_nlink, info.st_uid, info.st_gid, size, info.st_rdev


def names_below(top="."):
    """Return all paths below the working directory, itself first."""
    found = [top]
    for folder, folders, files in os.walk(top):
        found += [os.path.join(folder, name) for name in (*folders, *files)]
    return sorted(found)


def content_of(path, info):
    if stat.S_ISREG(info.st_mode):
        with open(path, "rb") as file:
            return file.read()
    return os.readlink(path) if stat.S_ISLNK(info.st_mode) else None


def attributes_of(path, info):
    if stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode):
        return {name: os.getxattr(path, name) for name in sorted(os.listxattr(path))}
    return {}


def picture():
    """Return everything below the working directory, but times and numbers."""
    shown = {}
    for path in names_below():
        info = os.lstat(path)
        shown[path] = (*facts(info), content_of(path, info), attributes_of(path, info))
    return shown


def same_files():
    """Return which paths are one file."""
    groups: dict[int, list[str]] = {}
    for path in names_below():
        groups.setdefault(os.lstat(path).st_ino, []).append(path)
    return sorted(groups.values())


def times_of():
    """Return mtime and ctime of everything, by inode: a rename must not hide whom it touches."""
    return {os.lstat(path).st_ino: (path, os.lstat(path)) for path in names_below()}


def effects(action):
    """Run an action in the working directory; return its outcome, what is there afterwards and which times it moved."""
    before = times_of()
    tick()
    result = outcome(action)
    after = times_of()
    moved = {}
    for number, (path, was) in before.items():
        if number in after:
            now = after[number][1]
            assert now.st_ctime_ns >= was.st_ctime_ns, f"the ctime of {path} went back"
            moved[path] = (was.st_mtime_ns != now.st_mtime_ns, was.st_ctime_ns != now.st_ctime_ns)
    fresh = {
        after[number][0]: 0 <= after[number][1].st_ctime_ns - after[number][1].st_mtime_ns < 1_000_000_000
        for number in set(after) - set(before)
        if not stat.S_ISDIR(after[number][1].st_mode)
    }
    return {"result": result, "picture": picture(), "moved": moved, "fresh": fresh, "same": same_files()}
