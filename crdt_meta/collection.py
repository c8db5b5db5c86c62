"""What is dead for good, and in which order its records go.

Every holder removes its own records, when everybody who counts has acknowledged a state in which they were of no use.
First births, names and places; when no birth of a node is left anywhere, what else is said of it; at last deletions and
what is settled. So no pod ever sees a content whose deletion it doesn't see, whatever of all this reaches it first.

A file is dead for good when no link of it lives and all of it was purged from the trash; a directory when nothing,
living or dead, is in it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from base.ids import ROOT_INODE, InodeId, LinkId, WriterId
from crdt_meta.derive import birth_of, edges_of, inode_of, settled_dots
from crdt_meta.node import Kind
from crdt_meta.records import Key, Overwritten
from crdt_meta.recordtable import Held
from crdt_meta.view import View

BIRTHS: Final = "il"
FIRST: Final = "ilpn"
LAST: Final = "ds"
DEPTH_LIMIT: Final = 4096
MarkedDead = Callable[[InodeId], bool]


def removable(view: View, node: bytes, writer: WriterId, may_come_back: MarkedDead) -> list[Key]:
    """Return the keys of a writer's records of a node that are of no use, as far as this pod knows."""
    held = [one for one in view.records.held(node) if one.key.kind != "k"]
    own = [one for one in held if one.holder == writer]
    if not own or node == ROOT_INODE:
        return []
    if any(one.key.kind in BIRTHS for one in held):
        gone = _unborn(view, node, may_come_back)
        return [one.key for one in own if one.key.kind in gone or _is_purged(view, one)]
    rest = [one for one in held if one.key.kind not in LAST]
    return [one.key for one in (_of(rest, writer) if rest else own)]


def _is_purged(view: View, held: Held) -> bool:
    """Tell whether a record is an overwritten content that the trash has no more; its file may live."""
    if not isinstance(held.body, Overwritten):
        return False
    return held.body.dot in settled_dots(view.records.of(held.key.node, "s"))


def _of(held: list[Held], writer: WriterId) -> list[Held]:
    return [one for one in held if one.holder == writer]


def _unborn(view: View, node: bytes, may_come_back: MarkedDead) -> str:
    """Return the kinds of records that go first, of a node that still has a birth; none while it is of use."""
    row = view.links.get(LinkId(node))
    if row is not None and row.alive:
        return ""
    as_link = inode_of(view.records.of(node, "l"))
    inode = InodeId(node) if as_link is None else as_link
    if may_come_back(inode):
        return ""
    if is_dead(view, inode):
        return FIRST
    lives = bool(view.links.living(inode))
    return "lpn" if lives and as_link is not None else ""


def is_dead(view: View, inode: InodeId) -> bool:
    """Tell whether an inode is dead for good, as far as this pod knows."""
    born = birth_of(view.records.of(inode, "i"))
    if born is None:
        return True
    if view.links.living(inode):
        return False
    if born[1].kind is Kind.DIRECTORY:
        used = view.links.anything_in(inode) or view.trash.anything_in(inode)
        return not used and not _is_in_a_cycle(view, inode)
    return born[1].kind is not Kind.FILE or not view.trash.of(inode)


def _is_in_a_cycle(view: View, inode: InodeId) -> bool:
    """Tell whether a directory stands elsewhere only because it would be in a cycle with this one."""
    return any(edge.parent == inode for one in view.demoted for edge in view.edges(one)[: view.chosen(one)])


def directories_above(view: View, link: LinkId, known: Collection[bytes] = ()) -> set[bytes]:
    """Return the directories above a link, living or not, up to one that is ``known``."""
    found: set[bytes] = set()
    edges = edges_of(view.records.of(link, "lp"))
    at = edges[0].parent if edges else ROOT_INODE
    for _ in range(DEPTH_LIMIT):
        if at == ROOT_INODE or at in known or at in found:
            break
        found.add(at)
        above = view.links.get(LinkId(at))
        if above is None:
            break
        at = above.parent
    return found
