"""`wormhole sync`: return once the data is where it should be."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import anyio

from base.errors import UnreachableError, UsageError, WormholeError
from base.ids import ContentId
from control.server import Emit
from operations.finding import files_below, number_argument, text_argument
from operations.parts import Parts

HURRY_AGAIN_S: Final = 2.0
"""Who should have copies is asked again so long after it was: it may not have been there."""
HURRY_REST: Final = 10.0
"""... and at least so many times as long as that took."""
LOOK_S: Final = 0.25


async def sync(parts: Parts, args: dict[str, object], emit: Emit) -> dict[str, object]:
    """Publish what is closed, make it durable, and wait until enough pods keep every file below ``path``."""
    path = text_argument(args, "path")
    copies = int(number_argument(args, "copies", 0))
    timeout_s = number_argument(args, "timeout_s", 60.0)
    if copies < 0 or timeout_s <= 0:
        raise UsageError("Copies and timeout must be positive.")
    await parts.mounts.settle()
    await parts.metadata.committer.durable()
    contents = {node.content for _, node in files_below(parts.metadata.tree, path)}

    news, reported = anyio.create_memory_object_stream[tuple[int, int]](1)

    def progress(done: int, total: int) -> None:
        with suppress(anyio.WouldBlock):
            news.send_nowait((done, total))

    async def report() -> None:
        async for done, total in reported:
            await emit({"done": done, "total": total})

    failure: WormholeError | None = None  # raised outside of the group, which would wrap it
    async with anyio.create_task_group() as group:
        group.start_soon(report)
        group.start_soon(_hurry, parts, list(contents), copies or None, timeout_s)
        with news:
            try:
                until = anyio.current_time() + timeout_s
                await parts.transfer.wait_copies(list(contents), copies or None, timeout_s, progress)
                if copies > 1:
                    await _keep_log(parts, copies, until)
            except WormholeError as error:
                failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return {"path": path or "/", "contents": len(contents), "copies": copies or None}


async def _hurry(parts: Parts, contents: list[ContentId], copies: int | None, timeout_s: float) -> None:
    """Have the pods that should keep contents do it now, until cancelled."""
    while True:
        started_at = anyio.current_time()
        await parts.barrier.hurry(contents, copies, timeout_s)
        await anyio.sleep(max(HURRY_AGAIN_S, HURRY_REST * (anyio.current_time() - started_at)))


async def _keep_log(parts: Parts, copies: int, until: float) -> None:
    """Return once so many pods have this pod's log. Raises `UnreachableError` when they haven't at that time."""
    while True:
        try:
            await parts.barrier.keep([], copies, until - anyio.current_time())
        except UnreachableError:
            if anyio.current_time() >= until:
                raise
        else:
            return
        await anyio.sleep(LOOK_S)
