"""A crash at any point: what was told is there, nothing is torn, and the pod goes on."""

from __future__ import annotations

import os
import shutil

import pytest

from base.ids import EMPTY_CONTENT, ROOT_INODE
from crdt_meta.log import Committed
from crdt_meta.node import JournalEntry, Kind
from tests.unit.crdt_meta.pods import Mesh, Pod, content, exchange


def crashed(pod: Pod) -> Pod:
    """Return the pod as it opens from what lies on the disk at this moment."""
    pod.mesh.folder.joinpath("copy").mkdir()
    for file in pod.folder.iterdir():
        shutil.copy(file, pod.mesh.folder / "copy" / file.name)
    pod.close()
    shutil.rmtree(pod.folder)
    (pod.mesh.folder / "copy").rename(pod.folder)
    return pod.mesh.pod(pod.name)


def test_what_was_told_survives_and_the_rest_is_gone_without_a_trace(ann: Pod, bob: Pod) -> None:
    ann.save("/told", "told")
    told = ann.tell()
    bob.hear(told)
    ann.save("/untold", "untold")
    ann.mkdir("/d")
    ann = crashed(ann)
    assert ann.files() == {"/told": content("told")}
    assert ann.log.read(ann.writer, 0, 1 << 30) == told
    ann.save("/next", "next")
    exchange(ann, bob)
    assert bob.files() == {"/told": content("told"), "/next": content("next")}


@pytest.mark.parametrize("steps", range(9))
def test_a_crash_after_any_step(ann: Pod, bob: Pod, steps: int) -> None:
    """Each step leaves a state in which log and view agree."""
    bob.save("/of-bob", "bob")

    def work(pod: Pod) -> list[object]:
        return [
            lambda: pod.save("/f", "one"),
            pod.log.seal,
            pod.log.commit,
            lambda: pod.hear(bob.tell()),
            lambda: pod.rename("/f", "/g"),
            pod.log.commit,
            pod.meta.store.sync,
            lambda: pod.log.durable(Committed(pod.writer, pod.log.table.received[pod.writer])),
        ]

    for step in work(ann)[:steps]:
        step()  # type: ignore[operator]
    ann = crashed(ann)
    shape = ann.shape()
    ann.meta.view.rebuild()
    ann.tree._nodes.clear()
    assert ann.shape() == shape
    ann.save("/after", "after")
    exchange(ann, bob)
    assert "/after" in bob.files()
    assert ("/g" in bob.files()) == (steps >= 6)


def test_opening_syncs_what_a_killed_process_had_committed(ann: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    ann.save("/f", "one")
    ann.log.commit()
    synced: list[str] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    ann = crashed(ann)
    assert [os.path.basename(path) for path in synced] == ["metadata.db-wal"]
    assert ann.log.vector() == {ann.writer: 1}


def test_a_power_cut_during_the_commit_leaves_the_state_before(ann: Pod) -> None:
    ann.save("/one", "one")
    ann.tell()
    wal = ann.folder / "metadata.db-wal"
    before = wal.stat().st_size
    ann.save("/two", "two")
    ann.tell()
    after = wal.stat().st_size
    assert after > before
    ann = crashed(ann)
    kept = wal.read_bytes()
    for cut in range(before, after, max(1, (after - before) // 12)):
        ann.close()
        for file in ann.folder.iterdir():
            file.unlink() if file.name != "metadata.db" else None
        wal.write_bytes(kept[:cut])
        ann = ann.mesh.pod("ann")
        assert ann.ls() in ([], ["one"], ["one", "two"])
        ann.meta.view.rebuild()


def test_a_clock_that_was_set_back_does_not_repeat_itself(ann: Pod, bob: Pod) -> None:
    ann.save("/f", "one")
    before = max(ann.at("/f").shown)
    ann.tell()
    ann.close()
    ann.mesh.now_s -= 3600
    ann = ann.mesh.pod("ann")
    ann.save("/f", "two")
    assert max(ann.at("/f").shown) > before
    exchange(ann, bob)
    assert bob.files() == {"/f": content("two")}


def test_a_torn_log_is_never_told(ann: Pod, bob: Pod) -> None:
    """A pod tells nothing that isn't on the disk."""
    ann.save("/one", "one")
    ann.log.commit()
    assert ann.log.vector() == {}
    assert ann.log.read(ann.writer, 0, 1 << 20) == []
    assert len(ann.log.durable(Committed(ann.writer, 1))) == 1
    assert ann.log.vector() == {ann.writer: 1}
    assert len(ann.log.read(ann.writer, 0, 1 << 20)) == 1


def test_the_journal_survives(world: Mesh, ann: Pod) -> None:
    node = ann.save("/f", "one")
    ann.tree.journal(node.inode, node.link, content("draft"), 5, 7, node.shown)
    ann.log.commit()
    ann = crashed(ann)
    (kept,) = ann.tree.journalled()
    assert kept == JournalEntry(node.inode, node.link, content("draft"), 5, 7, node.shown)
    ann.tree.forget_journal(node.inode)
    assert ann.tree.journalled() == []


def test_a_journal_without_dots(ann: Pod) -> None:
    node = ann.tree.create(ROOT_INODE, b"f", Kind.FILE, mode=0, uid=0, gid=0, mtime_ns=0)
    ann.tree.journal(node.inode, node.link, EMPTY_CONTENT, 0, 7, ())
    assert ann.tree.journalled()[0].replaces == ()


def test_many_segments_open_again(ann: Pod, bob: Pod) -> None:
    for index in range(1300):
        ann.make(f"/{index:04}")
        if index % 400 == 0:
            ann.tell()
    exchange(ann, bob)
    ann = crashed(ann)
    ann.rename("/0000", "/x")
    ann.rename("/1299", "/y")
    exchange(ann, bob)
    assert len(bob.ls()) == 1300
    assert {"x", "y"} <= set(bob.ls())
