"""The short way to derive a plain file says what the rules for everything say, whoever wrote what, and when."""

from __future__ import annotations

import random

import pytest

from base.ids import EMPTY_CONTENT, ContentId, Dot, InodeId, LinkId, WriterId, hash_bytes
from crdt_meta.derive import Written, ctime_of, edges_of, inode_state, name_of, versions_of
from crdt_meta.node import Kind
from crdt_meta.records import Attributes, Birth, Content, LinkBirth, Name, Overwritten, Place, Strategy, Why, Xattrs
from crdt_meta.showing import Plain, inode_rows, plain

FILE = InodeId(b"f" * 16)
PLACES = [InodeId(bytes([number]) * 16) for number in range(3)]
WRITERS = [WriterId(bytes([number]) * 8) for number in range(3)]
CLOCKS = [1, 2, 3, 1 << 30, 1 << 50, (1 << 63) - 1]
"""Few, so that many are equal."""
CONTENTS = [EMPTY_CONTENT, ContentId(hash_bytes(b"1")), ContentId(hash_bytes(b"2"))]
OF_INODE = (Birth, Content, Attributes, Xattrs, Overwritten)


def draw(rng: random.Random) -> list[Written]:
    """Return what may be said of one file that nobody deletes, in any order."""

    def clock() -> int:
        return rng.choice(CLOCKS)

    def attributes() -> dict[str, tuple[int, int]]:
        keys = rng.sample(["mode", "uid", "gid", "mtime_ns"], rng.randrange(5))
        return {key: (clock(), rng.randrange(3)) for key in keys}

    def writers() -> list[WriterId]:
        """Each writer has one record of a kind."""
        return rng.sample(WRITERS, rng.choice((0, 0, 1, 1, 2)))

    maker, kind = rng.choice(WRITERS), rng.choice((Kind.FILE, Kind.FILE, Kind.FILE, Kind.SYMLINK, Kind.FIFO))
    target = b"target" if kind is Kind.SYMLINK else b""
    content = rng.choice(CONTENTS) if kind is Kind.FILE else EMPTY_CONTENT
    birth = Birth(clock(), kind, 0o644, 1, 1, rng.randrange(3), target, 0, content, rng.randrange(3))
    records: list[Written] = [(maker, birth)]
    records.append((rng.choice(WRITERS), LinkBirth(clock(), FILE, rng.choice(PLACES), b"born")))
    for by in writers()[:1] if kind is Kind.FILE else ():
        replaces = (Dot(maker, birth.clock),) if rng.random() < 0.9 else ()
        via, strategy, now = LinkId(rng.choice((FILE, FILE, FILE, PLACES[1]))), rng.choice(list(Strategy)), clock()
        facts = (rng.choice(CONTENTS), rng.randrange(3), rng.randrange(3), via, replaces, strategy)
        records.append((by, Content(now, *facts, floor=now, age_ns=rng.choice((0, 1, 10**9, 1 << 62)))))
    records += [(by, Attributes(clock(), attributes())) for by in writers()]
    records += [(by, Xattrs(clock(), {b"user.a": (clock(), b"1")})) for by in writers()]
    records += [(by, Place(clock(), rng.choice(PLACES), rng.choice(PLACES))) for by in writers()]
    records += [(by, Name(clock(), rng.choice((b"a", b"b", b"c")))) for by in writers()]
    if rng.random() < 0.2:
        dot = Dot(rng.choice(WRITERS), clock())
        records.append((rng.choice(WRITERS), Overwritten(clock(), dot, CONTENTS[1], 1, 1, Why.OVERWRITTEN)))
    rng.shuffle(records)
    return records


def by_the_rules(records: list[Written]) -> Plain | None:
    """Derive the file as everything is derived; None where it has siblings."""
    of_inode = [one for one in records if isinstance(one[1], OF_INODE)]
    of_link = [one for one in records if not isinstance(one[1], OF_INODE)]
    linked_ns = max(ctime_of(body) for _, body in of_link)
    state = inode_state(of_inode, versions_of(FILE, of_inode), {LinkId(FILE): ()}, linked_ns)
    name = name_of(of_link)
    assert state is not None
    assert name is not None
    assert state.versions
    row, siblings = inode_rows(FILE, state)
    replaced = any(isinstance(body, Overwritten) for _, body in of_inode)
    linked = max(body.clock for _, body in of_link)
    return None if siblings else Plain(row, edges_of(of_link)[0].parent, name, linked, replaced)


@pytest.mark.parametrize("start", range(0, 4000, 1000))
def test_a_plain_file(start: int) -> None:
    plains = 0
    for seed in range(start, start + 1000):
        records = draw(random.Random(seed))
        found = plain(FILE, records, look=False)
        if found is not None:
            plains += 1
            assert found == by_the_rules(records), seed
    assert plains > 700, "what is plain must go the short way"
