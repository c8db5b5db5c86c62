"""The directory that a tree is mounted on: is it free, is it stale, who uses it, take it off. Blocking; use a thread.

Must never touch the mounted tree to learn about it, except by statvfs to see whether it answers: a daemon that is
stuck would take the asker along. What is mounted is read from /proc.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from base.errors import MachineError

STACK_LIMIT: Final = 16
"""Stale mounts on top of each other that are taken off."""

COMMAND_S: Final = 20.0
"""The longest that an unmount command may take (s)."""

DEVICE: Final = Path("/dev/fuse")

_ESCAPE = re.compile(rb"\\([0-7]{3})")


def is_root() -> bool:
    """Whether this process may mount by itself."""
    return os.geteuid() == 0


def mounted_at(directory: Path) -> str | None:
    """Return the type of what is mounted on top at exactly this directory, None when nothing is."""
    wanted = os.fsencode(directory)
    found = None
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        point = _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), before.split(b" ")[4])
        if point == wanted:
            found = after.split(b" ")[0].decode(errors="replace")
    return found


def answers(directory: Path) -> bool:
    """Whether the file system at a directory answers. May hang as long as that does."""
    try:
        os.statvfs(directory)
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO):
            return False
        raise
    return True


def unmount_command(directory: Path, lazy: bool) -> list[str]:
    """Return the command that takes a mount off."""
    if is_root():
        return ["umount", *(["-l"] if lazy else []), str(directory)]
    return ["fusermount3", "-u", *(["-z"] if lazy else []), str(directory)]


def take_off(directory: Path, lazy: bool) -> bool:
    """Unmount; return whether that worked."""
    done = subprocess.run(unmount_command(directory, lazy), capture_output=True, timeout=COMMAND_S, check=False)
    return done.returncode == 0


def clean(directory: Path) -> int:
    """Take off the mounts that killed pods left; return how many. Raises `MachineError` when something lives there."""
    for count in range(STACK_LIMIT):
        kind = mounted_at(directory)
        if kind is None:
            return count
        if not kind.startswith("fuse") or answers(directory):
            raise MachineError(
                f"Something is mounted on {directory} already.", "Unmount it, or choose another directory with --mount."
            )
        if not take_off(directory, lazy=True):
            raise MachineError(f"The stale mount on {directory} can't be removed.", f"Run: sudo umount -l {directory}")
    raise MachineError(f"Too many stale mounts are stacked on {directory}.", f"Run: sudo umount -l {directory}")


def prepare(directory: Path) -> None:
    """Make a directory ready to be mounted on: stale mounts gone, there, and empty. Raises `MachineError`."""
    if not DEVICE.exists():
        raise MachineError(
            "This machine has no /dev/fuse.", "Load the kernel module with `modprobe fuse`, or go on with --no-mount."
        )
    if not is_root() and shutil.which("fusermount3") is None:
        raise MachineError("fusermount3 isn't installed.", "Install the package fuse3, or go on with --no-mount.")
    clean(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        occupied = any(directory.iterdir())
    except FileExistsError:
        raise MachineError(f"{directory} is not a directory.", "Choose another one with --mount.") from None
    except OSError as error:
        raise MachineError(
            f"{directory} can't be used as mount point: {error.strerror}.", "Choose another one with --mount."
        ) from None
    if occupied:
        raise MachineError(f"{directory} is not empty.", "Empty it, or choose another directory with --mount.")


def others_allowed() -> bool:
    """Whether other users may be let in: root may, others where /etc/fuse.conf says so."""
    if is_root():
        return True
    try:
        lines = Path("/etc/fuse.conf").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def set_read_ahead(directory: Path, kib: int) -> bool:
    """Let the kernel read ahead this much; return whether it could be set (it takes root)."""
    device = directory.stat().st_dev
    try:
        Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb").write_text(str(kib))
    except OSError:
        return False
    return True


def abort_connection(device: int) -> bool:
    """Have the kernel fail all requests of the mount with this device number; return whether that worked."""
    try:
        Path(f"/sys/fs/fuse/connections/{os.minor(device)}/abort").write_text("1")
    except OSError:
        return False
    return True


def users(directory: Path) -> list[tuple[int, str]]:
    """Return (pid, name) of the processes that have a file or their working directory below a directory."""
    found = []
    top, below = os.fsencode(directory), os.fsencode(directory) + b"/"

    def inside(link: bytes) -> bool:
        try:
            target = os.readlink(link)  # noqa: PTH115 - a Path for each descriptor of the machine is slow
        except OSError:
            return False
        return target == top or target.startswith(below)

    for entry in os.scandir(b"/proc"):
        if not entry.name.isdigit():
            continue
        links = [entry.path + b"/" + name for name in (b"cwd", b"root", b"exe")]
        try:
            links += [fd.path for fd in os.scandir(entry.path + b"/fd")]
            mapped = below in Path(os.fsdecode(entry.path + b"/maps")).read_bytes()
            name = Path(os.fsdecode(entry.path + b"/comm")).read_text(errors="replace").strip()
        except OSError:
            continue
        if mapped or any(inside(link) for link in links):
            found.append((int(entry.name), name))
    return sorted(found)
