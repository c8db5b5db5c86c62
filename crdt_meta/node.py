"""What the tree shows to the packages above: plain values, no behaviour beyond small questions about themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from base.ids import ContentId, Dot, InodeId, LinkId, PodId


class Kind(IntEnum):
    """What an inode is; the numbers are stored, so they never change."""

    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    FIFO = 4
    SOCKET = 5
    CHARACTER = 6
    BLOCK = 7


class Node(NamedTuple):
    """What one name in the tree shows at one moment."""

    inode: InodeId
    link: LinkId
    """The link that it was reached through; of a node without a name the last one that it had."""
    kind: Kind
    mode: int
    """The 12 permission bits."""
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    size: int
    """Bytes of a file, length of a symlink's target, 0 otherwise."""
    nlink: int
    """Living links; of a directory 2 + its subdirectories."""
    content: ContentId
    target: bytes
    rdev: int
    shown: tuple[Dot, ...]
    """The content dots that a reader of this node sees; a write over it replaces exactly these."""
    author: PodId | None
    """The pod that published the content; None when it isn't known (yet)."""

    @property
    def is_directory(self) -> bool:
        """Whether it has children."""
        return self.kind is Kind.DIRECTORY


@dataclass(frozen=True, slots=True)
class Delta:
    """What an operation or an applied batch of remote changes altered."""

    remote: bool
    inodes: set[InodeId] = field(default_factory=set)
    """Inodes whose attributes, content or link count changed, or that came or went."""
    entries: set[tuple[InodeId, bytes]] = field(default_factory=set)
    """(directory, name) pairs that appeared, vanished or now show another inode."""
    contents: set[ContentId] = field(default_factory=set)
    """Contents that gained or lost a reference."""
    loses: bool = False
    """Whether one of them may have lost one: new files only gain some."""

    def __bool__(self) -> bool:
        return bool(self.inodes or self.entries or self.contents)


class Totals(NamedTuple):
    """How much the tree shows. A file of several links counts once."""

    files: int
    directories: int
    bytes: int


class JournalEntry(NamedTuple):
    """A durable private draft of one open file (fsync before close); local to this pod."""

    inode: InodeId
    link: LinkId
    content: ContentId
    size: int
    mtime_ns: int
    replaces: tuple[Dot, ...]


class Version(NamedTuple):
    """One side of a conflict."""

    inode: InodeId
    path: bytes
    """Where it is shown; empty when it isn't (last-writer-wins)."""
    pod: PodId | None
    time_ns: int
    """The clock of its record, as nanoseconds since the epoch."""
    size: int
    content: ContentId


class Conflict(NamedTuple):
    """Two or more versions that lay claim to one name or one file."""

    path: bytes
    versions: tuple[Version, ...]
