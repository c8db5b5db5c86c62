"""The durability barrier: a change is on the disks of so many full pods, bytes and record, before somebody goes on.

Whoever waits asks full pods one by one to *keep* the contents now, whatever the placement and the pace of replication
say; those that should have them anyway are asked first. A request is ``[marks, contents]``: log entries, as [writer,
sequence], and contents. A pod answers when both are on its disk, or after `TURN_S` with what it has by then; then it is
asked again, as long as anything moves.

Must never: count a pod that only said so before its disk did; wait for pods that aren't there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

import anyio
import anyio.lowlevel

from base.errors import DamagedError, RefusedError, UnreachableError, WormholeError
from base.ids import EMPTY_CONTENT, ContentId, PodId, WriterId
from mesh.wire import Tag
from operations.parts import Parts

SLICE: Final = 200
TURN_S: Final = 2.0
"""So long a pod that is asked waits at most before it answers."""
ANSWER_S: Final = 3.0
"""... and if it doesn't answer so long behind that another one is asked, or the same again where there is no other."""
AGAIN_S: Final = 0.25
MARKS_LIMIT: Final = 4096
CONTENTS_LIMIT: Final = 1024
UNDER_WAY_LIMIT: Final = 256
"""Requests that a pod answers at the same time."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Answer:
    """What a pod has on its disk."""

    contents: frozenset[ContentId]
    log: bool
    """Whether all log entries asked for are among it."""


def parse_request(body: object) -> tuple[dict[WriterId, int], list[ContentId]]:
    """Return the log entries and contents that a request names. Raises `DamagedError`."""
    match body:
        case [list(marks), list(contents)] if len(marks) <= MARKS_LIMIT and len(contents) <= CONTENTS_LIMIT:
            found: dict[WriterId, int] = {}
            for mark in marks:
                match mark:
                    case [bytes(writer), int(sequence)] if len(writer) == 8 and sequence >= 0:
                        found[WriterId(writer)] = sequence
                    case _:
                        raise DamagedError("A pod asked to keep something in a way that can't be read.")
            if all(isinstance(one, bytes) and len(one) == 32 for one in contents):
                return found, [ContentId(one) for one in contents]
    raise DamagedError("A pod asked to keep something in a way that can't be read.")


def parse_answer(body: object) -> Answer:
    """Return what an answer says. Raises `DamagedError`."""
    match body:
        case [bool(log), list(contents)] if all(isinstance(one, bytes) for one in contents):
            return Answer(frozenset(ContentId(one) for one in contents), log)
    raise DamagedError("A pod said in a way that can't be read what it keeps.")


class Barrier:
    """Both sides of it. Registers itself with the mesh; the mount asks by `vfs.openfiles.Barrier`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._under_way = 0
        parts.mesh.handle(Tag.KEEP, self.handle)

    # -- who is asked

    async def handle(self, sender: PodId, body: object) -> object:
        """Keep what another pod asks for, and answer once it is on the disk."""
        parts = self._parts
        marks, contents = parse_request(body)
        if parts.editor is not None:
            raise RefusedError("A client pod keeps nothing for others.")
        if self._under_way >= UNDER_WAY_LIMIT:
            raise RefusedError("This pod has too many requests of this kind.", "Ask again later.")
        self._under_way += 1
        try:
            until = anyio.current_time() + TURN_S
            with anyio.move_on_at(until):
                for writer, sequence in marks.items():
                    if self._vector().get(writer, 0) < sequence:
                        await parts.mesh.fetch_log(sender, writer, sequence)
            kept = await parts.transfer.hold(contents, max(0.0, until - anyio.current_time()))
            has_log = all(self._vector().get(writer, 0) >= sequence for writer, sequence in marks.items())
            await parts.metadata.committer.durable()
            return [has_log, kept]
        finally:
            self._under_way -= 1

    def _vector(self) -> dict[WriterId, int]:
        return dict(self._parts.metadata.log.vector())

    # -- who asks

    @property
    def needed(self) -> bool:
        """Whether fsync has to wait for other pods (``redundancy.acknowledge``)."""
        return self._parts.cluster.redundancy.acknowledge > 1

    async def reached(self, contents: Collection[ContentId]) -> None:
        """Return once as many full pods as fsync waits for have what is published of these contents.

        What this pod has is durable already. Raises `UnreachableError` (EIO): at once when too few pods are alive.
        """
        await self.keep(contents, self._parts.cluster.redundancy.acknowledge, self._parts.pod.network.deadline_s)

    async def keep(self, contents: Collection[ContentId], copies: int, deadline_s: float) -> None:
        """Return once so many full pods, this one included if it is one, have contents and log on their disks.

        Raises `UnreachableError` when too few pods are alive, or nothing has moved for the deadline (s).
        """
        parts = self._parts
        wanted = frozenset(one for one in contents if one != EMPTY_CONTENT)
        if parts.editor is None:
            await self._here(wanted, deadline_s)
            copies -= all(parts.transfer.host_of(content) is None for content in wanted)
        if copies <= 0:
            return
        candidates = self._candidates(wanted, copies)
        if len(candidates) < copies:
            raise _too_few(copies - len(candidates))
        marks, done, ended = self._marks(), 0, anyio.Event()

        async def ask() -> None:
            nonlocal done
            while candidates:
                if await self._ask(candidates.pop(0), marks, wanted, deadline_s, lambda: bool(candidates)):
                    done += 1
                    if done == copies:
                        ended.set()
                    return
            ended.set()  # nobody is left to be asked instead

        async with anyio.create_task_group() as group:
            for _ in range(copies):
                group.start_soon(ask)
            await ended.wait()
            group.cancel_scope.cancel()
        if done < copies:
            raise _too_few(copies - done)

    async def hurry(self, contents: Sequence[ContentId], copies: int | None, deadline_s: float) -> None:
        """Have the pods that should keep contents (``copies`` None: as configured) do it now; failures are left alone.

        Who can't be reached isn't asked: say it again as long as copies are missing.
        """
        targets: dict[PodId, list[ContentId]] = {}
        for count, content in enumerate(contents, start=1):
            info = self._parts.catalogue.info(content)
            if info is not None:
                info = info if copies is None else replace(info, copies=copies)
                holders = self._parts.transfer.holders(content).kept
                for pod in self._parts.catalogue.place(info):
                    if pod not in holders and pod in self._parts.mesh.alive():
                        targets.setdefault(pod, []).append(content)
            if count % SLICE == 0:
                await anyio.lowlevel.checkpoint()
        marks = self._marks()
        async with anyio.create_task_group() as group:
            for pod, some in targets.items():
                group.start_soon(self._ask, pod, marks, some, deadline_s)

    def _marks(self) -> dict[WriterId, int]:
        """Return the log entries that others must have: this pod's own; of a client, which has none, all."""
        vector = self._vector()
        if self._parts.editor is not None:
            return dict(sorted(vector.items())[:MARKS_LIMIT])
        writer = self._parts.metadata.writer
        return {writer: vector.get(writer, 0)}

    async def _here(self, contents: Collection[ContentId], deadline_s: float) -> None:
        """Return once this pod keeps what it has published. Raises `UnreachableError`."""
        transfer = self._parts.transfer
        for content in contents:
            if transfer.host_of(content) is not None:
                continue  # there was no room for it; another pod has it, and is asked
            if transfer.local(content) == "kept" or await transfer.hold([content], deadline_s):
                continue
            if self._parts.catalogue.info(content) is not None:
                raise UnreachableError("This pod doesn't have all of the file.", "Try again.")

    def _candidates(self, contents: Collection[ContentId], copies: int) -> list[PodId]:
        """Return the other full pods that are alive, those first that should have the contents anyway."""
        parts = self._parts
        others = {pod for pod in parts.catalogue.full_pods() if pod in parts.mesh.alive() and pod != parts.mesh.pod_id}
        order: dict[PodId, None] = {}
        for content in contents:
            info = parts.catalogue.info(content)
            if info is not None:
                holders = parts.transfer.holders(content).kept
                wanted = parts.catalogue.place(replace(info, copies=max(info.copies, copies + 1)))
                order |= dict.fromkeys([*sorted(holders), *wanted])
        return [*(pod for pod in order if pod in others), *sorted(others - order.keys())]

    async def _ask(
        self,
        pod: PodId,
        marks: dict[WriterId, int],
        contents: Collection[ContentId],
        deadline_s: float,
        others: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Ask one pod until it has everything; False when it can't be asked, or nothing moves for the deadline.

        ``others``: whether another one could be asked instead when it doesn't answer for some seconds.
        """
        parts = self._parts
        left, log = list(contents), False
        seen, since = self._progress(left, log), anyio.current_time()
        while left or not log:
            some = left[:CONTENTS_LIMIT]
            body = [[] if log else [list(mark) for mark in marks.items()], some]
            try:
                answer = parse_answer(await parts.mesh.call(pod, Tag.KEEP, body, timeout_s=TURN_S + ANSWER_S))
            except WormholeError as error:
                is_slow = isinstance(error, UnreachableError) and pod in parts.mesh.alive()
                if is_slow and not others() and anyio.current_time() - since < deadline_s:
                    await anyio.sleep(AGAIN_S)
                    continue
                logger.info("a pod doesn't keep what it was asked to: %s", error)
                return False
            log = log or answer.log
            # What was written anew meanwhile has a successor, which is another fsync's.
            left = [one for one in left if one not in answer.contents and parts.catalogue.info(one) is not None]
            now, moved = anyio.current_time(), self._progress(left, log)
            if moved != seen:
                seen, since = moved, now
            elif now - since >= deadline_s:
                return False
        return True

    def _progress(self, left: Sequence[ContentId], log: bool) -> object:
        return len(left), log, self._parts.transfer.bytes_moved()[1]


def _too_few(missing: int) -> UnreachableError:
    pods = "One more full pod" if missing == 1 else f"{missing} more full pods"
    return UnreachableError(
        f"{pods} would have to be there for so many copies; what was written is on this pod.",
        "Bring them up, or ask for fewer copies.",
    )
