"""Which files have wishes of their own: told by the view, on every pod, after a restart, and derived anew."""

from __future__ import annotations

from crdt_meta.marks import OWN_XATTRS
from tests.unit.crdt_meta.pods import Mesh, Pod, content, exchange

COPIES = OWN_XATTRS + b"copies"


def marks(pod: Pod, path: str) -> dict[bytes, bytes]:
    return pod.tree.marks(pod.at(path).inode)


def test_they_are_told_wherever_the_file_goes(world: Mesh, ann: Pod, bob: Pod) -> None:
    ann.save("/f", "f")
    ann.save("/g", "g")
    inode = ann.at("/f").inode
    ann.tree.set_xattr(ann.at("/g").inode, b"user.other", b"1")
    exchange(ann, bob)
    bob.deltas.clear()
    ann.tree.set_xattr(inode, COPIES, b"3")
    exchange(ann, bob)
    assert marks(bob, "/f") == {COPIES: b"3"}
    assert content("f") in set().union(*(delta.contents for delta in bob.deltas)), "so that it is judged anew"
    ann.rename("/f", "/h")
    ann.save("/h", "other")
    exchange(ann, bob)
    assert (marks(bob, "/h"), marks(bob, "/g")) == ({COPIES: b"3"}, {})
    bob.tree.view.rebuild()
    assert marks(bob, "/h") == {COPIES: b"3"}
    bob.close()
    again = world.pod("bob")
    assert (marks(again, "/h"), len(again.tree.view.marks)) == ({COPIES: b"3"}, 1)
    again.deltas.clear()
    ann.tree.set_xattr(inode, COPIES, None)
    exchange(ann, again)
    assert (marks(again, "/h"), len(again.tree.view.marks)) == ({}, 0)
    assert content("other") in set().union(*(delta.contents for delta in again.deltas))


def test_of_two_set_at_the_same_time_the_later_counts_everywhere(ann: Pod, bob: Pod) -> None:
    ann.save("/f", "f")
    exchange(ann, bob)
    ann.tree.set_xattr(ann.at("/f").inode, COPIES, b"1")
    ann.mesh.now_s += 1
    bob.tree.set_xattr(bob.at("/f").inode, COPIES, b"4")
    exchange(ann, bob)
    assert marks(ann, "/f") == marks(bob, "/f") == {COPIES: b"4"}
