"""From what an inode's records say to the rows that the view keeps of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from base.ids import ContentId, Dot, InodeId, WriterId
from crdt_meta.derive import InodeState, Version, Written, ctime_of, sibling_inode
from crdt_meta.hlc import nanoseconds
from crdt_meta.node import Kind
from crdt_meta.records import (
    Attributes,
    Birth,
    Content,
    LinkBirth,
    Name,
    Overwritten,
    Place,
    Strategy,
    Xattrs,
)
from crdt_meta.rows import InodeRow, SiblingRow


class Plain(NamedTuple):
    """What a file with one link, which nobody deleted, and one content shows."""

    row: InodeRow
    parent: InodeId
    name: bytes
    linked: int
    """The latest clock of what its link says."""
    replaced: bool
    """Whether something that it replaced may be in the trash."""


def plain(inode: InodeId, records: Iterable[Written], look: bool) -> Plain | None:
    """Derive an inode from its own records and those of the link of the same id, in one pass.

    Returns None where it is no `Plain`, or other records of overwritten contents came than are there (``look``): then the
    rules of `derive` apply, which say the same of all others, but take several times as long.
    """
    birth: tuple[WriterId, Birth] | None = None
    content: tuple[WriterId, Content] | None = None
    attributes: list[tuple[WriterId, Attributes]] = []
    of_link: list[Written] = []
    replaced, changed = False, 0
    for one in records:
        by, body = one
        if isinstance(body, Birth):
            if birth is not None or body.kind is Kind.DIRECTORY or body.origin is not None:
                return None
            birth = by, body
        elif isinstance(body, OF_LINK):
            of_link.append(one)
        elif isinstance(body, Content):
            if content is not None or bytes(body.via) != bytes(inode):
                return None
            content = by, body
            continue  # its ctime isn't that of its clock
        elif isinstance(body, Attributes):
            attributes.append((by, body))
        elif isinstance(body, Overwritten) and not look:
            replaced = True
            continue
        elif not isinstance(body, Xattrs):
            return None
        if body.clock > changed:
            changed = body.clock
    place = _plain_place(inode, of_link)
    row = None if birth is None else _plain_row(inode, birth, content, attributes, changed)
    return None if row is None or place is None else Plain(row, *place, replaced)


OF_LINK: Final = (LinkBirth, Place, Name)


def _plain_place(inode: InodeId, records: Sequence[Written]) -> tuple[InodeId, bytes, int] | None:
    """Return directory, name and latest clock of a link that nobody deleted; None unless it has one birth, of this inode."""
    if len(records) == 1 and isinstance(body := records[0][1], LinkBirth):
        return (body.parent, body.name, body.clock) if body.inode == inode else None
    births = [(body, by) for by, body in records if isinstance(body, LinkBirth)]
    if len(births) != 1 or births[0][0].inode != inode:
        return None
    born, maker = births[0]
    places = [(body.clock, by, body.parent) for by, body in records if isinstance(body, Place)]
    placed, _, parent = max(places) if places else (0, b"", born.parent)
    names = [(body.clock, by, body.name) for by, body in records if isinstance(body, Name)]
    named, _, name = max([(born.clock, maker, born.name), *names])
    return parent, name, max(named, placed)


def _plain_row(
    inode: InodeId,
    birth: tuple[WriterId, Birth],
    content: tuple[WriterId, Content] | None,
    attributes: Iterable[tuple[WriterId, Attributes]],
    changed: int,
) -> InodeRow | None:
    maker, born = birth
    dot, changed_ns = Dot(maker, born.clock), nanoseconds(changed)
    latest: Birth | Content = born
    if content is not None:
        if born.kind is not Kind.FILE or dot not in content[1].replaces:
            return None
        latest, dot = content[1], Dot(content[0], content[1].clock)
        if dot in latest.replaces:
            return None  # no honest writer replaces what it writes
        changed_ns = max(changed_ns, ctime_of(latest))
    mode, uid, gid, mtime_ns = born.mode, born.uid, born.gid, latest.mtime_ns
    if attributes:
        since = born.clock, maker
        stamps = {"mode": (*since, mode), "uid": (*since, uid), "gid": (*since, gid)}
        stamps["mtime_ns"] = dot.clock, dot.writer, mtime_ns
        for by, body in attributes:
            for key, (clock, value) in body.values.items():
                if (said := (clock, by, value)) > stamps[key]:
                    stamps[key] = said
        mode, uid, gid, mtime_ns = [value for _, _, value in stamps.values()]
    size = latest.size if born.kind is Kind.FILE else len(born.target)
    shown = latest.content, born.target, born.rdev, dot, (), latest.strategy
    return InodeRow._make((inode, born.kind, mode & 0o7777, uid, gid, mtime_ns, changed_ns, size, *shown))


def inode_rows(inode: InodeId, state: InodeState) -> tuple[InodeRow, list[SiblingRow]]:
    """Return the row of an inode that lives and, under ``keep-both``, those of its siblings."""
    latest = state.versions[0]
    if len(state.versions) == 1:
        return _row(inode, state, state.versions), []
    groups: dict[ContentId, list[Version]] = {}
    if state.kind is Kind.FILE and latest.strategy is Strategy.KEEP_BOTH:
        for version in state.versions:
            groups.setdefault(version.content, []).append(version)
    else:
        groups[latest.content] = list(state.versions)
    first, *others = groups.values()
    siblings = []
    for group in others:
        top = group[0]
        shown_as = sibling_inode(inode, top.dot)
        siblings.append(SiblingRow(inode, top.dot, shown_as, top.content, top.size, top.mtime_ns, more_dots(group)))
    return _row(inode, state, first), siblings


def _row(inode: InodeId, state: InodeState, shown: Sequence[Version]) -> InodeRow:
    latest = state.versions[0]
    size = latest.size if state.kind is Kind.FILE else len(state.target)
    return InodeRow(
        *(inode, *state[:6], size, latest.content, state.target, state.rdev),
        *(latest.dot, more_dots(shown), latest.strategy),
    )


def more_dots(versions: Sequence[Version]) -> tuple[Dot, ...]:
    """Return the dots of versions shown as one, without the first one's, with what they were before."""
    if len(versions) == 1 and versions[0].origin is None:
        return ()
    dots = [version.dot for version in versions[1:]]
    return tuple(dots + [version.origin for version in versions if version.origin is not None])
