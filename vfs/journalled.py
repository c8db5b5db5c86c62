"""Publishes what fsync had made durable for files that were open when the pod was killed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from base.errors import WormholeError

if TYPE_CHECKING:
    from base.ids import ContentId
    from crdt_meta.committer import Committer
    from crdt_meta.node import JournalEntry
    from crdt_meta.tree import Tree
    from transfer.service import Transfer

log = logging.getLogger(__name__)


async def _with_writes(
    entry: JournalEntry, writes: list[tuple[int, bytes]], transfer: Transfer
) -> tuple[ContentId, int]:
    """Return the content that a journalled one becomes with the writes on top of it; it is on the disk."""
    if not writes:
        return entry.content, entry.size
    draft = transfer.draft(entry.content, entry.size)
    for offset, data in writes:
        await draft.write(offset, data)
    sealed = await draft.seal()
    await transfer.sync()
    draft.discard()
    return sealed


async def publish_journalled(tree: Tree, committer: Committer, transfer: Transfer) -> int:
    """Publish the drafts that fsync had made durable before a crash; return how many. Call once, before mounting."""
    count = 0
    for entry in tree.journalled():
        try:
            content, size = await _with_writes(entry, tree.journalled_writes(entry.inode), transfer)
            tree.publish(entry.inode, entry.link, content, size, entry.mtime_ns, entry.replaces)
        except (WormholeError, OSError) as error:
            log.error("A file that was open at the crash can't be published: %s", error)
        else:
            transfer.published(content)
            count += 1
        tree.forget_journal(entry.inode)
    if count:
        committer.request()
        await committer.durable()
        log.info("Published %d files that were open when the pod was killed", count)
    return count
