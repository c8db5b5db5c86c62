"""`wormhole down`, `leave` and `destroy`: the three ways of a pod to go, none of which loses data."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
from anyio import lowlevel, to_thread

from base.errors import RefusedError
from base.ids import EMPTY_CONTENT, ContentId
from control.server import Emit
from mesh.api import Role, State
from operations.finding import number_of, text_of
from operations.parts import Parts
from operations.placing import LEAVING
from operations.staying import private_files
from policies.placement import has_room
from transfer.dropping import BATCH, may_drop

PAGE = 256
LOOK_EVERY_S = 0.25
ROOM_PATIENCE_S = 8.0
"""One that nobody has room for is given up after so long: what the others say of their room is a bit old."""
PATIENCE_S = 60.0
"""A drain that gets no further for so long is given up."""


async def down(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Publish everything, tell the others of the planned absence, unmount, end. The caller sees the process go."""
    await parts.mounts.unmount(force=True)
    await parts.metadata.committer.durable()
    parts.stop()
    return {"stopping": True}


async def leave(parts: Parts, args: dict[str, object], emit: Emit) -> dict[str, object]:
    """Hand over what only this pod keeps, then leave for good."""
    force = args.get("force") is True
    if parts.editor is not None:  # a client pod: it has nothing that others don't
        await parts.mounts.unmount(force=force)
    elif not force:
        others = [pod for pod in parts.catalogue.full_pods() if pod != parts.mesh.pod_id]
        if not others:
            raise RefusedError("This is the last full pod of the cluster.", "End the cluster with 'wormhole destroy'.")
        roster = parts.roster.roster
        if {pod for pod in roster.pods() if roster.is_admin(pod)} == {parts.mesh.pod_id}:
            raise RefusedError(
                "This is the last pod that administers the cluster.",
                "Name another one with 'wormhole config set cluster.administrators', or leave with --force.",
            )
        was_mounted = parts.mounts.directory
        await parts.mounts.unmount()
        await parts.metadata.committer.durable()
        try:
            await drain(parts, emit)
        except RefusedError:
            if was_mounted is not None:
                await parts.mounts.mount(Path(was_mounted))
            raise
    else:
        await parts.mounts.unmount(force=True)
        await parts.metadata.committer.durable()
    await parts.mesh.announce_leave()
    parts.stop()
    return {"left": True, "forced": force}


async def drain(parts: Parts, emit: Emit) -> None:
    """Wait until the other pods keep everything that is kept here; refuse when they can't."""
    parts.gossip({LEAVING: True})
    _hand_over(parts, on=True)
    try:
        total, total_bytes, best, since = -1, 0, -1, anyio.current_time()
        while True:
            left = [content async for content in unsafe_without_us(parts)]
            if not left:  # by what they said; now by what they have on their disks
                left = [content async for content in unverified(parts)]
            guests = 0 if left else await _guests(parts)
            left_bytes = _bytes(parts, left)
            total, total_bytes = max(total, len(left)), max(total_bytes, left_bytes)
            done_bytes = total_bytes - left_bytes
            await emit(
                {"done": total - len(left), "total": total, "done_bytes": done_bytes, "total_bytes": total_bytes}
            )
            if not left and not guests:
                return
            now = anyio.current_time()
            if best < 0 or len(left) < best:
                best, since = len(left), now
            if guests and now - since > ROOM_PATIENCE_S:
                raise RefusedError(
                    f"Other pods are writing {number_of(guests, 'file')} that this one holds a part of.",
                    "Wait until they are closed, or leave with --force.",
                )
            nobody = not parts.mesh.alive() and (now - since > ROOM_PATIENCE_S or not _may_come_back(parts))
            stuck = now - since > ROOM_PATIENCE_S and not any(_finds_room(parts, content) for content in left)
            if nobody or stuck or now - since > PATIENCE_S:
                why = ": no other pod has room for them" if stuck else ": no other pod answers" if nobody else ""
                raise RefusedError(
                    f"{len(left)} contents would have too few copies without this pod, such as "
                    f"{example(parts, left)}{why}.",
                    "Start the pods that are away or give them room, or leave with --force.",
                )
            await anyio.sleep(LOOK_EVERY_S)
    except BaseException:
        parts.gossip({LEAVING: False})
        _hand_over(parts, on=False)
        raise


def _may_come_back(parts: Parts) -> bool:
    """Tell whether another full pod doesn't answer only since a moment ago."""
    return any(one.role is Role.FULL and one.state is State.SUSPECT for one in parts.mesh.members())


def _hand_over(parts: Parts, *, on: bool) -> None:
    """Have others rely on nothing here, or again."""
    for part in (parts.transfer.dropping, parts.transfer.lodging):
        if part is not None:
            part.says_no = on


async def _guests(parts: Parts) -> int:
    """Return how many files this pod holds a part of that others are writing still."""
    lodging = parts.transfer.lodging
    if lodging is None or not lodging.guests:
        return 0
    await lodging.look()
    return lodging.guests


def _bytes(parts: Parts, contents: list[ContentId]) -> int:
    infos = (parts.catalogue.info(content) for content in contents)
    return sum(info.size for info in infos if info is not None)


def _finds_room(parts: Parts, content: ContentId) -> bool:
    """Tell whether a pod that doesn't keep a content yet says that it has room for it."""
    info, kept = parts.catalogue.info(content), parts.transfer.holders(content).kept
    candidates = parts.catalogue.placing.pods().candidates
    return info is None or any(
        one.takes and pod not in kept and pod != parts.mesh.pod_id and has_room(one, info.size)
        for pod, one in candidates.items()
    )


async def unsafe_without_us(parts: Parts, copies: int | None = None) -> AsyncIterator[ContentId]:
    """Yield the contents with fewer kept copies on other pods that answer than they should have (or ``copies``)."""
    others = len([pod for pod in parts.catalogue.full_pods() if pod != parts.mesh.pod_id])
    after: ContentId | None = None
    while page := parts.catalogue.page(after, PAGE):
        for info in page:
            wanted = copies or min(info.copies, others)
            holders = parts.transfer.holders(info.content)
            if info.content != EMPTY_CONTENT and len(holders.kept - {parts.mesh.pod_id}) < wanted:
                yield info.content
        after = page[-1].content
        await lowlevel.checkpoint()


async def unverified(parts: Parts) -> AsyncIterator[ContentId]:
    """Yield the contents kept here that too few others keep, each of them asked now.

    One that is just dropping its copy, because this pod said that it keeps one, answers "no".
    """
    dropping = parts.transfer.dropping
    others = len([pod for pod in parts.catalogue.full_pods() if pod != parts.mesh.pod_id])
    after: ContentId | None = None
    while dropping is not None and (page := parts.catalogue.page(after, BATCH)):
        mine = [
            info
            for info in page
            if info.content != EMPTY_CONTENT and parts.transfer.local(info.content) in ("kept", "partial")
        ]
        said = await dropping.verified([info.content for info in mine])
        for info in mine:
            if not may_drop(said[info.content], parts.mesh.pod_id, min(info.copies, others)):
                yield info.content
        after = page[-1].content


async def destroy_check(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Refuse while this pod holds the only live copy of something; the last pod of a cluster may go."""
    others = [pod for pod in parts.catalogue.full_pods() if pod != parts.mesh.pod_id]
    await parts.mounts.settle()
    if files := await to_thread.run_sync(private_files, parts.home):
        raise RefusedError(
            f"This pod has {number_of(files, 'file')} that stay here, as a .wormholeignore says, and nobody else has.",
            f"Take what you need from {parts.home.private}, then destroy with --force.",
        )
    if parts.editor is not None:
        return {"safe": True, "last": False}
    if others:
        alone = [content async for content in unsafe_without_us(parts, 1) if parts.transfer.local(content) != "none"]
        if alone:
            raise RefusedError(
                f"This pod holds the only live copy of {len(alone)} contents, among them {example(parts, alone)}.",
                "Leave in order with 'wormhole leave', or destroy with --force.",
            )
    return {"safe": True, "last": not others}


def example(parts: Parts, contents: list[ContentId]) -> str:
    """Name one file of a list of contents."""
    for content in contents:
        for inode in parts.metadata.tree.references(content):
            path = parts.metadata.tree.path(inode)
            if path is not None:
                return f"'{text_of(path)}'"
            if entry := next(iter(parts.metadata.tree.trash_of_inode(inode)), None):
                return f"'{text_of(entry.path)}' in the trash"
    return "contents without a name"
