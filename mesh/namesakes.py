"""Two processes with one pod's key: a home was copied, and both copies run. The one that started later must stop.

Whoever is linked with one of them and greets the other asks the first whether it still lives, and judges by how long
each has run, which no wall clock can falsify.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from base.errors import NamesakeError, UnreachableError, WormholeError
from mesh.wire import Tag

if TYPE_CHECKING:
    from mesh.link import Link

ANSWER_S: Final = 2.0
"""A linked process that doesn't answer within this has died: its place is free."""
UNKNOWN_AGE: Final = -1


def steady_ms() -> int:
    """Return milliseconds of a clock that nobody sets and that goes on while the machine sleeps."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1_000_000


def namesake(witness: str = "") -> NamesakeError:
    """Return what the later one is told; ``witness``: the pod that is linked with the earlier one."""
    by = f", and {witness} is linked with it" if witness else ""
    return NamesakeError(
        f"Another process runs with this pod's key, from a copy of its home{by}.",
        "Stop that one to use this home; for a pod more, join from a new home with `wormhole join`.",
    )


async def turned_away(link: Link | None, process: bytes, age_ms: int, witness: str) -> NamesakeError | None:
    """Judge a newcomer, process ``process``, of a pod with which there is a ``link`` already.

    Returns what it is to be told when the linked process lives and has run for longer. When the newcomer has, the link
    is closed with that error instead. ``witness`` names this pod.
    """
    if link is None or link.peer.process == process or not link.usable:
        return None
    try:
        await link.request(Tag.CLOCK, None, ANSWER_S)
    except UnreachableError:
        return None
    except WormholeError:
        pass  # a refusal is an answer, too
    linked_ms = link.peer.age_ms + steady_ms() - link.since_ms
    if link.peer.age_ms != UNKNOWN_AGE and age_ms > linked_ms:
        link.close(namesake(witness))
        await link.closed.wait()
        return None
    return namesake(witness)
