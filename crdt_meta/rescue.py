"""What a removal must not take away: the file of a content that this pod wrote and that lives.

Births are collected only after every pod that counts has seen them dead. If one of a living file with a content of this
pod's goes, this pod did not count: it was forgotten, and wrote before it heard what others had collected meanwhile. Then
it adopts all that there is of the file, its links and the directories above, and the edit keeps its file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from base.ids import InodeId, LinkId, WriterId
from crdt_meta.collection import directories_above
from crdt_meta.records import Body, Content, Key, LinkBirth
from crdt_meta.view import View

Record = tuple[Key, bytes, Body | None]


def bases(view: View, wanted: dict[InodeId, set[LinkId]]) -> Iterator[bytes]:
    """Yield the nodes that files consist of, given with links that are known of them: these, and the directories above."""
    seen: set[bytes] = set()
    for inode, named in wanted.items():
        links = {*view.links.to(inode), *named}
        nodes: set[bytes] = {inode, *links}
        for link in links:
            nodes |= directories_above(view, link, seen)
        yield from sorted(nodes - seen)
        seen |= nodes


def copies(view: View, nodes: Iterable[bytes]) -> Iterator[tuple[WriterId, Key, Record]]:
    """Yield (holder, key there, copy to be adopted) of all records of nodes."""
    for node in nodes:
        for held, value in view.records.values(node):
            if held.key.kind != "k":
                yield held.holder, held.key, (held.key._replace(author=held.author), value, held.body)


def rescued(view: View, removed: Iterable[Key], holder: WriterId, writer: WriterId) -> list[Record]:
    """Return what ``writer`` has to adopt before a holder's records with these keys go; nothing nearly always."""
    wanted: dict[InodeId, set[LinkId]] = {}
    for key in removed:
        if key.kind not in "il":
            continue
        if any(one.key.kind == key.kind and one.holder != holder for one in view.records.held(key.node)):
            continue  # somebody else has it still
        births = [body for _, body in view.records.of(key.node, "l") if isinstance(body, LinkBirth)]
        inode = births[0].inode if births else InodeId(key.node)
        mine = any(by == writer and isinstance(body, Content) for by, body in view.records.of(inode, "c"))
        if mine and view.links.living(inode):
            wanted[inode] = set()
    if not wanted:
        return []
    return [copy for holder, _, copy in copies(view, bases(view, wanted)) if holder != writer]
