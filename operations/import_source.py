"""The source of an import: what is there, whether it is still the same, and what of it can go. Blocking."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from policies.ignoring import MAX_BYTES

FolderId = tuple[int, int]
"""Device and inode number."""


def own_folders(paths: list[Path]) -> frozenset[FolderId]:
    """Return which folders these are: the home and the mount, whatever the way that leads to them."""
    found = set()
    for path in paths:
        with suppress(OSError):
            there = path.stat()
            found.add((there.st_dev, there.st_ino))
    return frozenset(found)


def measure(source: Path, own: frozenset[FolderId]) -> tuple[int, int]:
    """Count files and bytes below a folder, without following links or looking into the pod's own folders."""
    files = size = 0
    for folder, below, names in os.walk(source):
        below[:] = [name for name in below if not own_folders([Path(folder) / name]) & own]
        for name in names:
            try:
                found = os.lstat(Path(folder) / name)
            except OSError:
                continue
            files += 1
            size += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return files, size


def scan(folder: Path) -> list[tuple[str, os.stat_result]]:
    """Return the entries of a folder with what they are, sorted by name."""
    with os.scandir(folder) as entries:
        return sorted((entry.name, entry.stat(follow_symlinks=False)) for entry in entries)


def is_same(was: os.stat_result, now: os.stat_result) -> bool:
    """Tell by size, times and inode whether a source is still what it was."""
    return (now.st_size, now.st_mtime_ns, now.st_ino) == (was.st_size, was.st_mtime_ns, was.st_ino)


def free(imported: Iterable[tuple[Path, os.stat_result]]) -> list[str]:
    """Remove source files that are still what was imported; return those that had to stay, with the reason."""
    stayed = []
    for path, found in imported:
        try:
            if is_same(found, os.lstat(path)):
                path.unlink()
            else:
                stayed.append(f"{path}: changed after it was imported, so the source stays")
        except FileNotFoundError:
            continue
        except OSError as error:
            stayed.append(f"{path}: imported, but the source stays: {error.strerror}")
    return stayed


def remove_empty(source: Path) -> None:
    """Remove the folders that an import with ``move`` emptied."""
    for folder, _, _ in os.walk(source, topdown=False):
        try:
            Path(folder).rmdir()
        except OSError:
            continue


def xattrs(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield the extended attributes that people and programs set; those of the system, and of Wormhole, stay behind."""
    with suppress(OSError):  # not every file system has them
        for name in os.listxattr(path, follow_symlinks=False):
            if name.startswith("user.") and not name.startswith("user.wormhole."):
                yield os.fsencode(name), os.getxattr(path, name, follow_symlinks=False)


def rules(path: Path) -> str:
    """Return what a .wormholeignore says; nothing when it can't be read."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES).decode("utf-8", "surrogateescape")
    except OSError:
        return ""
