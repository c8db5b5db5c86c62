"""Which files show a content, however late the table of it is written, and whatever is taken back or lost meanwhile."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from base.ids import EMPTY_CONTENT, ContentId, Dot, InodeId, WriterId, hash_bytes
from crdt_meta import bycontent
from crdt_meta.node import Kind
from crdt_meta.records import Strategy
from crdt_meta.rows import InodeRow, Rows, SiblingRow
from crdt_meta.store import Store

WRITER = WriterId(b"w" * 8)
CONTENTS = [EMPTY_CONTENT, *(ContentId(hash_bytes(b"%d" % number)) for number in range(40))]
CONTENTS += [ContentId(CONTENTS[1][:6] + bytes(26)), ContentId(CONTENTS[1][:6] + b"\xff" * 26)]
FILES = [InodeId(bytes([number]) * 16) for number in range(60)]
Shown = dict[InodeId, ContentId]


def row(inode: InodeId, content: ContentId) -> InodeRow:
    rest = 0o644, 0, 0, 0, 0, 1, content, b"", 0, Dot(WRITER, 7), (), Strategy.KEEP_BOTH
    return InodeRow(inode, Kind.FILE, *rest)


class World:
    """A store whose process may be killed, and what it must show."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now: Shown = {}
        self.committed: Shown = {}
        self.open()

    def open(self) -> None:
        self.store = Store(self.path)
        self.store.number_of(WRITER)
        self.rows = Rows(self.store)
        self.store.commit()
        self.now = dict(self.committed)

    def put(self, inode: InodeId, content: ContentId | None) -> None:
        self.store.begin()
        self.rows.put_inode(inode, None if content is None else row(inode, content), self.rows.inode(inode))
        self.now.pop(inode, None)
        if content is not None:
            self.now[inode] = content

    def commit(self, *, is_last: bool = False) -> None:
        self.store.begin()
        self.store.commit(is_last=is_last)
        self.committed = dict(self.now)

    def kill(self) -> None:
        self.store.close()
        self.open()

    def check(self, limit: int) -> None:
        for content in CONTENTS[1:]:
            wanted = [(inode, 1, WRITER) for inode in sorted(self.now) if self.now[inode] == content]
            assert self.rows.showing(content) == wanted
        found: list[ContentId] = []
        while page := self.rows.contents(found[-1] if found else None, limit):
            found += [content for content, _, _ in page]
        assert found == sorted(set(self.now.values()) - {EMPTY_CONTENT})


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_written_late_or_taken_back(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(bycontent, "FEW", rng.choice((0, 2, 100)))
    monkeypatch.setattr(bycontent, "WAITING_LIMIT", rng.choice((5, 20, 1000)))
    world = World(tmp_path / "metadata.db")
    for _ in range(300):
        match rng.randrange(12):
            case 0 | 1:
                world.commit()
            case 2:
                world.store.flush()
            case 3 if rng.random() < 0.3:
                world.kill()
            case 4:
                before = dict(world.now)
                world.store.savepoint()
                for inode in rng.sample(FILES, 3):
                    world.put(inode, rng.choice(CONTENTS))
                if rng.random() < 0.5:
                    world.store.undo()
                    world.now = before
                else:
                    world.store.release()
            case 5:
                world.check(rng.choice((1, 3, 50)))
            case _:
                world.put(rng.choice(FILES), rng.choice((None, *CONTENTS)))
    world.commit(is_last=True)
    assert world.store.get_meta(bycontent.MARK) is None
    world.check(5)
    world.kill()
    world.check(5)


def test_a_file_of_an_earlier_release(tmp_path: Path) -> None:
    world = World(tmp_path / "metadata.db")
    for inode, content in zip(FILES, CONTENTS, strict=False):
        world.put(inode, content)
    world.commit(is_last=True)
    world.store.db.execute("DELETE FROM content_start")
    former = "CREATE INDEX inode_by_content_start ON inode (substr(content, 1, 6)) WHERE content IS NOT NULL"
    world.store.db.execute(former)
    world.kill()
    world.check(7)
    query = "SELECT count(*) FROM sqlite_master WHERE name = 'inode_by_content_start'"
    assert world.store.db.execute(query).fetchone() == (0,)


def test_many_empty_versions_beside_files_end_no_walk_over_all_contents(tmp_path: Path) -> None:
    world = World(tmp_path / "metadata.db")
    contents = {ContentId(bytes([first]) * 32) for first in range(256)}
    for content in contents:
        world.put(InodeId(os.urandom(16)), content)
    for clock in range(20):
        inode, shown = InodeId(os.urandom(16)), InodeId(os.urandom(16))
        world.rows.set_siblings(inode, [SiblingRow(inode, Dot(WRITER, clock), shown, EMPTY_CONTENT, 0, 0, ())])
    world.commit()
    found: list[ContentId] = []
    while page := world.rows.contents(found[-1] if found else None, 10):
        found += [content for content, _, _ in page]
    assert found == sorted(contents)
