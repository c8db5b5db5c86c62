"""Identifiers and the one hash function of the project.

Every identifier is a plain ``str`` or ``bytes`` with a distinct static type, so that a mix-up is a type error and
not a lost file.
"""

from __future__ import annotations

import os
import time
from typing import Final, NamedTuple, NewType

from blake3 import blake3

PodId = NewType("PodId", str)
"""32 lower-case hexadecimal digits: the first 16 bytes of BLAKE3(raw Ed25519 public key of the pod)."""

ClusterId = NewType("ClusterId", str)
"""32 lower-case hexadecimal digits: the first 16 bytes of BLAKE3(founding record)."""

WriterId = NewType("WriterId", bytes)
"""8 bytes: the identity under which a pod writes metadata. A pod that was restored from a backup takes a new one."""

InodeId = NewType("InodeId", bytes)
"""16 bytes: what has content and attributes. Nothing may be read from them, see `new_inode_id`."""

LinkId = NewType("LinkId", bytes)
"""16 bytes: what has a place and a name, and points to an inode."""

ChunkId = NewType("ChunkId", bytes)
"""32 bytes: BLAKE3 of the chunk's bytes."""

ContentId = NewType("ContentId", bytes)
"""32 bytes: the manifest's BLAKE3; for a content of one chunk (the empty one, too) that chunk's own."""

ROOT_INODE = InodeId(bytes(16))
"""The directory that every cluster has from the start."""


class Dot(NamedTuple):
    """The name of one write: who wrote, and the writer's hybrid logical clock at that write (unique per writer)."""

    writer: WriterId
    clock: int


def hash_bytes(data: bytes | bytearray | memoryview) -> bytes:
    """Return the 32-byte BLAKE3 digest of ``data`` (https://github.com/BLAKE3-team/BLAKE3-specs)."""
    return blake3(data).digest()


EMPTY_CONTENT = ContentId(hash_bytes(b""))
"""The content id of a file of no bytes. It needs no chunk on any disk."""


def pod_id_of(public_key: bytes) -> PodId:
    """Return the pod id that belongs to a raw 32-byte Ed25519 public key."""
    return PodId(hash_bytes(public_key)[:16].hex())


_TIME_BITS: Final = (1 << 56) - 1


def new_inode_id() -> InodeId:
    """Return a fresh inode id: the time in µs as 7 bytes, for the sake of tables sorted by it, and 9 random bytes.

    What is made together lies together on the disk then. The time may be wrong: 72 random bits keep ids apart.
    """
    return InodeId((time.time_ns() // 1000 & _TIME_BITS).to_bytes(7, "big") + os.urandom(9))


def new_link_id() -> LinkId:
    """Return a fresh link id, made as `new_inode_id` makes them."""
    return LinkId(new_inode_id())


def author_of(pod: PodId) -> WriterId:
    """Return the id by which a client pod, which has no log, is named as the author of what it does."""
    return WriterId(hash_bytes(b"author " + pod.encode())[:8])


def new_writer_id() -> WriterId:
    """Return a fresh random writer id."""
    return WriterId(os.urandom(8))
