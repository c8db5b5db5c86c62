"""Links by name agree with a plain list, however they lie in the file and in memory."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from base.ids import InodeId, LinkId
from crdt_meta.links import OFTEN, LinkRow, Links
from crdt_meta.node import Kind
from crdt_meta.store import Store

DIRECTORIES = [InodeId(bytes([number]) * 16) for number in range(3)]


def row(link: LinkId, parent: InodeId, name: bytes) -> LinkRow:
    return LinkRow(link, InodeId(link), Kind.FILE, parent, name, 1, 0)


@pytest.mark.parametrize("seed", range(30))
def test_what_is_asked_often_is_found_while_links_come_move_and_go(tmp_path: Path, seed: int) -> None:
    rng, living = random.Random(seed), dict[LinkId, LinkRow]()
    store = Store(tmp_path / "metadata.db")
    links = Links(store)
    for turn in range(40 * OFTEN):
        match rng.randrange(20):
            case 0:
                store.commit()
            case 1:
                store.flush()
            case 2 | 3 if living:
                gone = rng.choice(sorted(living))
                links.put(gone, None, links.get(gone))
                del living[gone]
            case 4 | 5 if living:
                link = rng.choice(sorted(living))
                living[link] = row(link, rng.choice(DIRECTORIES), b"moved %d" % turn)
                links.put(link, living[link], links.get(link))
            case 6 | 7 | 8:
                link = LinkId(rng.randbytes(16))
                living[link] = row(link, rng.choice(DIRECTORIES), b"%d" % rng.randrange(50))
                links.put(link, living[link], links.get(link))
            case _:
                parent = rng.choice(DIRECTORIES)
                taken = [one.name for one in living.values()]
                name = rng.choice([*taken, b"none", b"%d" % rng.randrange(50)])
                if rng.random() < 0.5:
                    links.expect([(parent, name)])
                found = sorted(one.id for one in links.named(parent, name))
                wanted = [one.id for one in living.values() if (one.parent, one.name) == (parent, name)]
                assert found == sorted(wanted), turn
    for parent in DIRECTORIES:
        assert sorted(links.names(parent)) == sorted(one.name for one in living.values() if one.parent == parent)
    store.close()
