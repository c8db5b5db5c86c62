"""What is fetched ahead for a program that reads the files of a directory one after the other."""

from __future__ import annotations

from base.ids import ROOT_INODE, ContentId, InodeId, LinkId, PodId
from crdt_meta.node import Kind, Node
from vfs.foresight import FIRST, FORGET_S, Foresight

DIRECTORY = ROOT_INODE


class Folder:
    """A directory of small files, and what was asked for."""

    def __init__(self, count: int, size: int = 4096) -> None:
        self.files = {b"%05d" % number: self.node(number, size) for number in range(count)}
        self.asked: list[list[int]] = []
        self.now_s = 0.0
        self.foresight = Foresight(self, self, lambda: self.now_s)  # type: ignore[arg-type]

    @staticmethod
    def node(number: int, size: int) -> Node:
        name = number.to_bytes(16, "big")
        content = ContentId(name * 2)
        return Node(InodeId(name), LinkId(name), Kind.FILE, 0o644, 0, 0, 0, 0, size, 1, content, b"", 0, (), PodId("a"))

    def parent(self, inode: InodeId) -> tuple[InodeId, bytes]:
        return DIRECTORY, b"%05d" % int.from_bytes(inode, "big")

    def children_after(self, parent: InodeId, name: bytes, limit: int) -> list[tuple[bytes, Node]]:
        return [(each, node) for each, node in self.files.items() if each > name][:limit]

    def is_small(self, size: int) -> bool:
        return 0 < size <= 65536

    def foresee(self, contents: list[tuple[ContentId, int, PodId | None]]) -> None:
        self.asked.append([int.from_bytes(content[:16], "big") for content, _, _ in contents])

    def missed(self, number: int) -> None:
        self.foresight.missed(self.files[b"%05d" % number])

    def read(self, number: int) -> None:
        """Read a file as the mount does: what wasn't fetched ahead has to be fetched."""
        inode = self.files[b"%05d" % number].inode
        if inode in self.foresight.wires:
            self.foresight.opened(inode)
        if not any(number in some for some in self.asked):
            self.missed(number)


def test_a_walk_is_followed_ever_further_ahead() -> None:
    folder = Folder(1000)
    for number in range(1000):
        folder.read(number)
    assert sum(map(len, folder.asked)) == 998, "all but the first two, each once"
    assert sorted(number for some in folder.asked for number in some) == list(range(2, 1000))
    assert [len(some) for some in folder.asked] == [32, 64, 128, 256, 256, 256, 6]
    assert len(folder.foresight.wires) <= 1


def test_single_reads_fetch_nothing_more() -> None:
    folder = Folder(100)
    folder.missed(50)
    assert folder.asked == []
    folder.now_s += FORGET_S + 1
    folder.missed(60)
    assert folder.asked == []
    folder.missed(61)
    assert folder.asked == [list(range(62, min(100, 62 + FIRST)))]


def test_large_files_are_left_alone_and_bytes_are_bounded() -> None:
    folder = Folder(100, size=1 << 20)
    for number in range(10):
        folder.missed(number)
    assert folder.asked == []
    folder = Folder(1000, size=65536)
    for number in range(500):
        folder.read(number)
    assert max(map(len, folder.asked)) <= 64
