"""From what an inode's records say to the rows that the view keeps of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from base.ids import ContentId, Dot, InodeId, LinkId, WriterId
from crdt_meta.derive import InodeState, Version, Written, ctime_of, inode_state, sibling_inode
from crdt_meta.node import Kind
from crdt_meta.records import Attributes, Birth, Content, Strategy, Xattrs
from crdt_meta.rows import InodeRow, SiblingRow


def plain_row(
    inode: InodeId, birth: tuple[WriterId, Birth], content: tuple[WriterId, Content] | None, known: list[Written]
) -> InodeRow | None:
    """Return the row of an inode of one link and, at most, one content record; None where that is not all of it."""
    writer, born = birth
    latest: Birth | Content = born
    dot = Dot(writer, born.clock)
    if content is not None:
        by, latest = content
        if born.kind is not Kind.FILE or dot not in latest.replaces:
            return None
        dot = Dot(by, latest.clock)
    if any(isinstance(body, Attributes | Xattrs) for _, body in known):
        version = Version(dot, latest.content, latest.size, latest.mtime_ns, LinkId(inode), latest.strategy, None)
        of_inode = [one for one in known if isinstance(one[1], OF_INODE)]
        linked_ns = max(ctime_of(body) for _, body in known if not isinstance(body, OF_INODE))
        state = inode_state(of_inode, [version], {LinkId(inode): ()}, linked_ns)
        return None if state is None else _row(inode, state, state.versions)
    size = latest.size if born.kind is Kind.FILE else len(born.target)
    changed_ns = max(ctime_of(body) for _, body in known)
    return InodeRow(
        *(inode, born.kind, born.mode & 0o7777, born.uid, born.gid, latest.mtime_ns, changed_ns, size),
        *(latest.content, born.target, born.rdev, dot, (), latest.strategy),
    )


OF_INODE: Final = (Birth, Content, Attributes, Xattrs)
"""What plain inodes are derived from."""


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
