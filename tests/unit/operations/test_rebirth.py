from __future__ import annotations

from pathlib import Path

from crdt_meta.chronicle import Chronicle
from mesh.api import Role
from mesh.records import Retire, Writer, seal
from operations.rebirth import other_full_pods, writer_records
from tests.unit.crdt_meta.pods import mesh
from tests.unit.mesh.cluster import admit, found, revocation


def test_a_writer_that_was_taken_and_left_in_one_start_is_told_of(tmp_path: Path) -> None:
    """Its pod was forgotten, and its home is a copy, too: what the writer between has copies of is cared for by it."""
    home = found(tmp_path / "nas")

    def sealed(record: Writer | Retire) -> bytes:
        return seal(record, home.roster.cluster_id, home.pod, home.identity.sign)

    with mesh(tmp_path) as world:
        ann = world.pod("ann")
        home.store.add(writer_records(home.identity, home.roster, ann.meta))
        Chronicle(ann.meta, b"place", list)
        old = ann.meta.writer
        ann.save("/only here", "x")
        ann.tell()
        between = ann.meta.reborn(0, None)
        assert Chronicle(ann.meta, b"another place", list).is_copy
        assert len({old, between, ann.meta.writer}) == 3
        told = writer_records(home.identity, home.roster, ann.meta)
        home.store.add(told)
        assert set(home.roster.writers()) == {old, between, ann.meta.writer}
        home.store.add([sealed(Retire(writer, *copies)) for writer, copies in ann.meta.given_up().items()])
        assert home.roster.adoptions().keys() == {old}
        assert writer_records(home.identity, home.roster, ann.meta) == []


def test_who_may_adopt(tmp_path: Path) -> None:
    nas = found(tmp_path / "nas")
    laptop, gone = admit(nas, tmp_path / "laptop"), admit(nas, tmp_path / "gone")
    admit(nas, tmp_path / "phone", Role.CLIENT)
    nas.store.add([revocation(nas, gone.pod)])
    assert other_full_pods(nas.roster, nas.pod) == {laptop.pod}
