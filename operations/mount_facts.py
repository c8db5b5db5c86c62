"""What the mount tells about files and room beyond what the tree and the store say themselves."""

from __future__ import annotations

import errno
import os
from typing import Final

from base.errors import FileSystemError
from crdt_meta.node import Kind, Node
from mesh.api import Role, State
from operations.catalogue import Wanted
from operations.parts import Parts
from operations.where import names
from policies.forms import Share
from policies.room import whole_copies
from policies.wishes import WRITABLE, normal
from transfer.room import folders_bytes

LIMIT_STEP_BYTES: Final = 1 << 26
LIMIT_DIGITS: Final = 7
"""Binary digits told of a limit that depends on how full a disk is, so that it isn't told anew all the time."""


class OwnAttributes:
    """The attributes ``user.wormhole.*`` of files: `vfs.xattrs.XattrInfo`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def value(self, name: bytes, node: Node) -> bytes | None:
        """Return one of a file, None of anything else; what was set at the file itself goes before all rules."""
        parts = self._parts
        if node.kind is not Kind.FILE:
            return None
        match name:
            case b"user.wormhole.holders":
                holders = parts.transfer.holders(node.content)
                return ",".join(names(parts, holders.kept | holders.cached)).encode()
            case b"user.wormhole.copies":
                return str(self._wanted(node).copies).encode()
            case b"user.wormhole.content":
                return node.content.hex().encode()
            case b"user.wormhole.keep":
                return b"1" if self._wanted(node).keep else b"0"
        return None

    def _wanted(self, node: Node) -> Wanted:
        path = self._parts.metadata.tree.path(node.inode)
        return self._parts.catalogue.wanted(node.inode, "" if path is None else path.decode("utf-8", "surrogateescape"))

    def accepted(self, name: bytes, value: bytes | None, node: Node) -> bytes | None:
        """Return what is stored when one is set (None: removed). Raises FileSystemError: EPERM, EISDIR, EINVAL."""
        if name not in WRITABLE or not self._parts.roster.roster.is_admin(self._parts.mesh.pod_id):
            raise FileSystemError(errno.EPERM)
        if node.kind is not Kind.FILE:
            raise FileSystemError(errno.EISDIR if node.is_directory else errno.EPERM)
        try:
            return None if value is None else normal(name, value)
        except ValueError as error:
            raise FileSystemError(errno.EINVAL, f"{name.decode()} {error}.") from None


def local_space(parts: Parts) -> tuple[int, int]:
    """Return total and free bytes of the disk below the store, within this pod's limit."""
    found = os.statvfs(parts.home.store)
    total, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    limit = parts.pod.storage.limit
    if isinstance(limit, Share):
        free = max(0, free - int(total * (1 - limit.percent / 100)))
    else:
        total = min(total, limit)
        used = parts.transfer.bytes_used()
        free = max(0, min(free, limit - used - folders_bytes(used, limit)))
    return total, free


def offered_bytes(parts: Parts) -> tuple[int, int]:
    """Return how many bytes this pod offers for copies in all, and how many of them are left: the cache gives way."""
    total, free = local_space(parts)
    limit = parts.pod.storage.limit
    capacity = int(total * limit.percent / 100) if isinstance(limit, Share) else total
    return capacity, free + parts.transfer.bytes_cached()


def space(parts: Parts) -> tuple[int, int]:
    """Return total and free bytes for ``df``: what can be written to the whole cluster with all its copies.

    Each full pod that can be reached offers what its limit allows; what they offer together is divided by the copies of
    each file, which stand on different pods (`policies.room`). `cluster.storage_limit` is the most that there can be.
    """
    mesh, me = parts.mesh, parts.mesh.pod_id
    offers: list[tuple[int, int]] = []
    for one in mesh.members():
        if one.role is not Role.FULL:
            continue
        limit, used = one.meta.get("bytes_limit"), one.meta.get("bytes_used")
        if one.pod == me:
            limit, used = limit_bytes(parts), parts.transfer.bytes_used()
        elif one.state is not State.ALIVE:
            continue
        if isinstance(limit, int) and isinstance(used, int):
            offers.append((limit, max(0, limit - used - folders_bytes(used, limit))))
    copies = max(1, parts.catalogue.copies_wanted(parts.cluster.redundancy.copies))
    total = whole_copies([limit for limit, _ in offers], copies)
    free = whole_copies([left for _, left in offers], copies)
    most = parts.cluster.cluster.storage_limit_bytes
    if most is not None:
        free = min(free, max(0, most - parts.transfer.quota.used()))
        total = min(total, most)
    return max(total, free), free


class Told:
    """A number of bytes told in steps; it isn't told anew while it only goes back and forth over the end of a step."""

    def __init__(self) -> None:
        self._told: int | None = None

    def value(self, exact: int, step: int) -> int:
        """Return what to tell: the step below, unless what was told is less than half a step off that one."""
        told = self._told
        if told is None or told % step or not told - step // 2 <= exact < told + step + step // 2:
            told = self._told = exact - exact % step
        return told


def limit_bytes(parts: Parts, told: Told | None = None) -> int:
    """Return how large the store may become; for a share of the disk in steps of at most `LIMIT_STEP_BYTES`."""
    if parts.editor is not None:
        return parts.pod.cache.limit_bytes
    limit = parts.pod.storage.limit
    if not isinstance(limit, Share):
        return limit
    most = parts.transfer.bytes_used() + local_space(parts)[1]
    step = min(LIMIT_STEP_BYTES, 1 << max(0, most.bit_length() - LIMIT_DIGITS))
    return (told or Told()).value(most, step)


def room_bytes(parts: Parts, told: Told | None = None) -> int:
    """Return how many bytes of contents this pod can still keep, in steps; what it only caches gives way."""
    room = offered_bytes(parts)[1]
    step = 1 << max(0, room.bit_length() - LIMIT_DIGITS)
    return (told or Told()).value(room, step)
