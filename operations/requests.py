"""`wormhole requests`, `approve` and `deny`: who waits to be let in where admission is "approve".

A joiner asks one pod; all administering pods ask each other, so it is listed, approved and denied on any of them. Who
was approved is a signed record like any other: the pod that was asked finds it in its roster and answers the joiner.
"""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from base.errors import DamagedError, NotFoundError, RefusedError, UsageError, WormholeError
from base.ids import PodId
from discovery.admission import Admissions
from discovery.fingerprint import ID_SHOWN, fingerprint
from discovery.join_messages import Request
from discovery.waiting import MAX_WAITING
from mesh.node import MeshNode
from mesh.wire import Tag
from operations.configuration import check_rights
from operations.finding import text_argument
from operations.parts import Parts

ASK_S = 3.0
MAX_HOST_CHARACTERS = 64
SHORTEST_ID = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """A joiner that waits at some pod."""

    request: Request
    host: str
    age_s: float
    at: PodId


def serve_requests(mesh: MeshNode, admissions: Admissions) -> None:
    """Let the other administering pods see who waits here, and turn them away."""

    async def answer(sender: PodId, body: object) -> object:
        if not mesh.roster.is_admin(sender):
            raise RefusedError("Only who administers the cluster may ask that.")
        await anyio.lowlevel.checkpoint()
        match body:
            case {"deny": str(pod)}:
                admissions.deny(PodId(pod))
        now_s = anyio.current_time()
        return [[one.request.pack(), one.host, now_s - one.since_s] for one in admissions.waiting()]

    mesh.handle(Tag.JOIN_REQUESTS, answer)


async def requests(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """List who waits, on whichever pod, the longest first."""
    check_rights(parts)
    return {"requests": [_row(parts, one) for one in await _everywhere(parts)]}


async def approve(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Let one in."""
    check_rights(parts)
    found = _chosen(await _everywhere(parts), text_argument(args, "id") or "")
    name = await parts.admissions.approve(found.request)
    return {"id": found.request.pod, "name": name, "role": found.request.role.value, "approved": True}


async def deny(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Turn one away, on all pods that answer."""
    check_rights(parts)
    found = _chosen(await _everywhere(parts), text_argument(args, "id") or "")
    await _everywhere(parts, found.request.pod)
    return {"id": found.request.pod, "name": found.request.pod_name, "denied": True}


def _row(parts: Parts, one: Asked) -> dict[str, object]:
    return {
        "id": one.request.pod,
        "name": one.request.pod_name,
        "role": one.request.role.value,
        "address": one.host,
        "age_s": round(one.age_s, 1),
        "fingerprint": fingerprint(one.request.pod),
        "asked": parts.live.name_of(one.at),
    }


def _chosen(waiting: list[Asked], wanted: str) -> Asked:
    """Return the one that a person means by its id, the beginning of that, or its name."""
    found = [
        one
        for one in waiting
        if one.request.pod_name == wanted or (len(wanted) >= SHORTEST_ID and one.request.pod.startswith(wanted))
    ]
    if not found:
        raise NotFoundError(f"No pod {wanted} waits for approval.", "`wormhole requests` lists those that do.")
    if len(found) > 1:
        ids = ", ".join(one.request.pod[:ID_SHOWN] for one in found)
        raise UsageError(f"{len(found)} waiting pods are called so: {ids}.", "Name one by its id.")
    return found[0]


async def _everywhere(parts: Parts, deny: PodId | None = None) -> list[Asked]:
    """Return who waits at which administering pod that answers; ``deny`` turns one away there first."""
    body: object = None if deny is None else {"deny": deny}
    found: dict[PodId, Asked] = {}

    async def ask(pod: PodId) -> None:
        try:
            for one in _read(await parts.mesh.call(pod, Tag.JOIN_REQUESTS, body, timeout_s=ASK_S), pod):
                known = found.get(one.request.pod)
                if known is None or known.age_s < one.age_s:
                    found[one.request.pod] = one
        except WormholeError:
            return  # it is away, refuses, or talks nonsense: the others have their say

    roster = parts.roster.roster
    async with anyio.create_task_group() as group:
        for pod in [parts.mesh.pod_id, *parts.mesh.alive()]:
            if roster.is_admin(pod):
                group.start_soon(ask, pod)
    members = roster.pods().keys()
    return sorted(
        (one for pod, one in found.items() if pod not in members), key=lambda one: (-one.age_s, one.request.pod)
    )


def _read(answer: object, at: PodId) -> list[Asked]:
    if not isinstance(answer, list) or len(answer) > MAX_WAITING:
        raise DamagedError("A pod's list of those who wait for approval can't be read.")
    found = []
    for one in answer:
        match one:
            case [bytes(packed), str(host), int() | float() as age_s] if len(host) <= MAX_HOST_CHARACTERS:
                found.append(Asked(Request.unpack(packed), host, float(age_s), at))
            case _:
                raise DamagedError("A pod's list of those who wait for approval can't be read.")
    return found
