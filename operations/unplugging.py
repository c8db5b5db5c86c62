"""`wormhole safe-to-unplug`: what would be lost, or be below its floor, if a pod vanished at this moment.

A pod that answers is asked itself: only it knows what is open, closed but not yet published, or not yet told to others.
Of one that doesn't, this pod says what it knows.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import anyio
from anyio import lowlevel

from base.errors import DamagedError, RefusedError, WormholeError
from base.ids import EMPTY_CONTENT, ContentId, PodId
from control.server import Emit
from mesh.wire import Tag
from operations.evicting import who
from operations.finding import text_argument, text_of
from operations.parts import Parts
from operations.scrubbing import names_of
from policies.unplugging import endangers, floor

PAGE: Final = 256
NAMED: Final = 20
ASK_S: Final = 600.0
TOLD_S: Final = 5.0
"""So long somebody else may take to have the newest changes."""
TELL_EVERY_S: Final = 5.0


class Danger(NamedTuple):
    """What unplugging a pod would harm."""

    files: int
    """Files and versions in the trash, those in ``unsaved`` not counted."""
    names: list[str]
    """Paths of the first of the files."""
    trash: list[str]
    """Paths of the first of the versions in the trash."""
    unsaved: list[str]
    """Files with changes that no close has published."""
    untold: bool
    """Changes of names, attributes and so on that no other pod has yet, or parts of files that others are writing."""


def serve_unplugging(parts: Parts) -> None:
    """Answer other pods."""

    async def answer(sender: PodId, body: object) -> object:
        return list(await _of_this_pod(parts))

    parts.mesh.handle(Tag.UNPLUG_ASK, answer)


async def safe_to_unplug(parts: Parts, args: dict[str, object], emit: Emit) -> dict[str, object]:
    """Tell whether a pod, this one by default, can be unplugged; raises `NotFoundError` for a pod that there isn't."""
    roster = parts.roster.roster
    entry = who(roster, text_argument(args, "pod") or str(parts.mesh.pod_id))
    if entry.revoked:
        raise RefusedError(f"{entry.name} was evicted.", "Nothing depends on it any more.")
    found, failure, answers = None, None, True
    async with anyio.create_task_group() as group:
        group.start_soon(_tell, emit)
        try:
            if entry.pod == parts.mesh.pod_id:
                found = await _of_this_pod(parts)
            elif entry.pod in parts.mesh.alive() or roster.is_client(entry.pod):
                found = _read(await parts.mesh.call(entry.pod, Tag.UNPLUG_ASK, None, timeout_s=ASK_S))
        except WormholeError as error:
            failure = error
        group.cancel_scope.cancel()
    if found is None:
        if failure is not None and entry.pod in parts.mesh.alive():
            raise failure
        answers, found = False, await _danger(parts, entry.pod)
    short = found.files + len(found.unsaved)
    return {
        "safe": short == 0 and not found.untold,
        "pod": entry.name,
        "short": short,
        "would_lose": [*found.unsaved, *found.names][:NAMED],
        "would_lose_in_trash": found.trash,
        "unsaved": found.unsaved,
        "untold": found.untold,
        "answers": answers,
    }


async def _tell(emit: Emit) -> None:
    """Show whoever waits that something is going on."""
    while True:
        await anyio.sleep(TELL_EVERY_S)
        await emit({})


async def _of_this_pod(parts: Parts) -> Danger:
    await parts.mounts.settle()
    await parts.metadata.committer.durable()
    unsaved = _paths(parts, set(parts.mounts.unsaved()))
    if parts.editor is not None:  # a client pod has nothing but what is open
        return Danger(0, [], [], unsaved, untold=False)
    found = await _danger(parts, parts.mesh.pod_id)
    guests = 0 if parts.transfer.lodging is None else parts.transfer.lodging.guests
    tree = parts.metadata.tree
    journalled = {entry.inode for entry in tree.journalled() if not tree.references(entry.content)}
    unsaved = sorted({*unsaved, *_paths(parts, journalled)})[:NAMED]
    return found._replace(unsaved=unsaved, untold=bool(guests) or not await _is_told(parts))


def _paths(parts: Parts, inodes: set[Any]) -> list[str]:
    paths = (parts.metadata.tree.path(inode) for inode in inodes)
    return sorted(text_of(path) for path in paths if path is not None)[:NAMED]


async def _danger(parts: Parts, pod: PodId) -> Danger:
    """Look at every content, in slices."""
    least = floor(
        parts.cluster.continuity.least_copies, len([one for one in parts.catalogue.full_pods() if one != pod])
    )
    files, names, trash = 0, list[str](), list[str]()
    after: ContentId | None = None
    while page := parts.catalogue.page(after, PAGE):
        for info in page:
            holders = parts.transfer.holders(info.content)
            if info.content == EMPTY_CONTENT or not endangers(
                pod,
                kept=holders.kept,
                cached=holders.cached,
                absent=holders.absent,
                author=info.author,
                least=least,
            ):
                continue
            shown, versions = names_of(parts, info.content)
            files += max(1, len(shown) + len(versions))
            names += shown[: NAMED - len(names)]
            trash += versions[: NAMED - len(trash)]
        after = page[-1].content
        await lowlevel.checkpoint()
    return Danger(files, sorted(names), sorted(trash), [], untold=False)


async def _is_told(parts: Parts) -> bool:
    """Tell whether another full pod has everything that this pod has written into its log."""
    writer = parts.metadata.writer
    last = parts.metadata.log.vector().get(writer, 0)
    if last == 0:
        return True
    with anyio.move_on_after(TOLD_S):
        while True:
            full = set(parts.catalogue.full_pods()) & parts.mesh.alive()
            for pod in sorted(full - {parts.mesh.pod_id}):
                try:
                    if await parts.mesh.call(pod, Tag.LOG_SINCE, [writer, last - 1, 1], timeout_s=TOLD_S):
                        return True
                except WormholeError:
                    continue
            if not full - {parts.mesh.pod_id}:
                return False
            await anyio.sleep(0.1)
    return False


def _read(answer: object) -> Danger:
    match answer:
        case [int(files), list(names), list(trash), list(unsaved), bool(untold)] if files >= 0 and all(
            isinstance(one, str) for one in [*names, *trash, *unsaved]
        ):
            return Danger(files, names[:NAMED], trash[:NAMED], unsaved[:NAMED], untold)
    raise DamagedError("A pod sent an answer about unplugging it that can't be read.")
