"""Pods whose clock is a year ahead, or starts in 1970: what somebody does after seeing their changes counts."""

from __future__ import annotations

import pytest

from base.ids import ROOT_INODE
from crdt_meta.node import Kind
from crdt_meta.records import Strategy
from tests.unit.crdt_meta.pods import START_S, Mesh, Pod, content, exchange

YEAR_S = 31_536_000.0
SKEWS = pytest.mark.parametrize("skew_s", [YEAR_S, -START_S, 3600.0, -3600.0])


def meet(ann: Pod, bob: Pod) -> None:
    exchange(ann, bob)
    assert ann.shape() == bob.shape()


@SKEWS
@pytest.mark.parametrize("broken", ["ann", "bob"])
@pytest.mark.parametrize("strategy", list(Strategy))
def test_every_edit_wins_over_what_it_saw(
    world: Mesh, ann: Pod, bob: Pod, skew_s: float, broken: str, strategy: Strategy
) -> None:
    """In turn, so that the broken clock is seen by the sound one, and the other way round."""
    world.strategy = strategy
    {"ann": ann, "bob": bob}[broken].skew_s = skew_s
    ann.save("/f", "0")
    ann.mkdir("/d0")
    path, directory = "/f", "/d0"
    for turn, (pod, other) in enumerate([(bob, ann), (ann, bob)] * 3, start=1):
        meet(ann, bob)
        world.now_s += 1
        inode = pod.at(path).inode
        pod.save(path, f"{turn}")
        pod.tree.set_attributes(inode, mode=0o600 + turn, uid=turn, gid=turn, mtime_ns=turn)
        pod.tree.set_xattr(inode, b"user.a", b"%d" % turn)
        pod.rename(directory, f"/d{turn}")
        pod.rename(path.replace(directory, f"/d{turn}"), f"/d{turn}/f{turn}")
        path, directory = f"/d{turn}/f{turn}", f"/d{turn}"
        pod.tree.set_attributes(pod.at(directory).inode, mode=0o700 + turn, mtime_ns=1000 + turn)
        pod.tree.set_attributes(ROOT_INODE, mode=0o710 + turn, mtime_ns=2000 + turn)
        meet(ann, bob)
        for one in (pod, other):
            assert one.ls("") == [f"d{turn}"]
            assert one.files() == {path: content(f"{turn}")}
            node, above, root = one.at(path), one.at(directory), one.at("")
            assert (node.mode, node.uid, node.gid, node.mtime_ns) == (0o600 + turn, turn, turn, turn)
            assert one.tree.xattrs(inode) == {b"user.a": b"%d" % turn}
            assert (above.mode, above.mtime_ns) == (0o700 + turn, 1000 + turn)
            assert (root.mode, root.mtime_ns) == (0o710 + turn, 2000 + turn)
            assert one.tree.conflicts() == []


@SKEWS
def test_a_save_shows_its_own_time_after_a_broken_clock_set_another(ann: Pod, bob: Pod, skew_s: float) -> None:
    ann.skew_s = skew_s
    ann.save("/f", "first")
    ann.tree.set_attributes(ann.at("/f").inode, mtime_ns=77)
    meet(ann, bob)
    node = bob.at("/f")
    bob.tree.publish(node.inode, node.link, content("second"), 6, 99, node.shown)
    meet(ann, bob)
    assert [pod.at("/f").mtime_ns for pod in (ann, bob)] == [99, 99]
    assert bob.at("/f").ctime_ns > node.ctime_ns


@SKEWS
def test_the_time_of_a_directory_moves_on(world: Mesh, ann: Pod, bob: Pod, skew_s: float) -> None:
    ann.skew_s = skew_s
    ann.mkdir("/d")
    ann.save("/d/one", "1")
    ann.save("/top", "1")
    meet(ann, bob)
    times: list[tuple[int, int]] = []

    def note() -> None:
        meet(ann, bob)
        world.now_s += 1
        times.append((bob.at("/d").mtime_ns, bob.at("").mtime_ns))
        assert times[-1] == (ann.at("/d").mtime_ns, ann.at("").mtime_ns)

    note()
    bob.save("/d/two", "2")
    note()
    bob.unlink("/d/two")
    note()
    bob.link("/d/one", "/d/three")
    note()
    bob.rename("/d/three", "/d/four")
    note()
    assert len({one for one, _ in times}) == len(times)
    bob.rename("/d/four", "/four")
    bob.make("/fifo", Kind.FIFO)
    note()
    assert times[-1][0] != times[-2][0]
    assert times[-1][1] != times[-2][1]
    if skew_s > 0:
        assert abs(bob.at("/d").mtime_ns / 1e9 - world.now_s) < 60, "told by the clock that is right"
        assert abs(bob.at("/fifo").ctime_ns / 1e9 - world.now_s) < 60, "what is new doesn't take the broken one over"


@SKEWS
def test_deletions_and_new_files_of_a_name_count(ann: Pod, bob: Pod, skew_s: float) -> None:
    ann.skew_s = skew_s
    ann.save("/f", "of ann")
    ann.mkdir("/d")
    ann.save("/d/g", "of ann")
    meet(ann, bob)
    bob.unlink("/f")
    bob.unlink("/d/g")
    bob.rmdir("/d")
    meet(ann, bob)
    assert ann.ls() == []
    bob.save("/f", "of bob")
    meet(ann, bob)
    ann.unlink("/f")
    ann.save("/f", "again")
    meet(ann, bob)
    assert bob.files() == {"/f": content("again")}
    bob.save("/new", "x")
    bob.rename("/new", "/f")
    meet(ann, bob)
    assert ann.files() == {"/f": content("x")}


@SKEWS
def test_both_edits_of_a_conflict_are_kept_and_settled(ann: Pod, bob: Pod, skew_s: float) -> None:
    ann.save("/f", "0")
    meet(ann, bob)
    ann.skew_s = skew_s
    ann.save("/f", "of ann")
    bob.save("/f", "of bob")
    meet(ann, bob)
    assert set(ann.files().values()) == {content("of ann"), content("of bob")}
    for pod in (bob, ann):
        shown = pod.at("/f")
        pod.save("/f", f"settled by {pod.name}", over=shown)
        meet(ann, bob)
        assert bob.files()["/f"] == content(f"settled by {pod.name}")
        assert len(bob.files()) == 2


def test_a_clock_that_was_set_right_goes_on_behind_what_it_told(world: Mesh, ann: Pod, bob: Pod) -> None:
    ann.skew_s = YEAR_S
    ann.save("/f", "ahead")
    meet(ann, bob)
    ann.close()
    ann = world.pod("ann")
    ann.save("/f", "right")
    meet(ann, bob)
    bob.save("/f", "of bob")
    meet(ann, bob)
    ann.save("/f", "again")
    meet(ann, bob)
    assert bob.files() == {"/f": content("again")}
