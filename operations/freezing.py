"""`wormhole freeze`, `unfreeze`, `drill`: what a person says to the whole cluster, as signed records that every pod has.

An `unfreeze` names what it accepts: the pods that are lost now, and the missing contents that none of them has. Only what
is lost later fires a reaction again. A drill's record carries its end, so it ends also when its pod dies.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import anyio

from base.errors import RefusedError, UsageError
from base.ids import PodId
from control.server import Emit
from mesh.api import Member, Role, State
from mesh.records import MAX_ACCEPTED, MAX_ORDERED_PODS, Order, seal
from operations.crisis import effects_of
from operations.finding import number_argument, text_argument
from operations.parts import Parts
from operations.tally import Found
from policies.reactions import Cause, Effect, Reacting, reaction_to
from policies.situation import NAME_BYTES, Grade, Situation

TOLD_S: Final = 5.0
"""So long a command waits until the pods that can be reached do as they were told."""
LONGEST_DRILL_S: Final = 86_400.0
TELL_EVERY_S: Final = 1.0
LOOK_S: Final = 0.1


async def freeze(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Freeze the whole cluster. Raises `RefusedError` where this pod doesn't administer it."""
    changed = parts.roster.roster.orders().freeze is None
    if changed:
        await _give(parts, "freeze")
    await _until(lambda: not _without(parts, Effect.FREEZE))
    return {"frozen": True, "changed": changed, "waiting": _without(parts, Effect.FREEZE)}


async def unfreeze(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Lift a freeze by hand, end a drill, and accept the situation as it is. Raises `RefusedError`."""
    parts.crisis.said.check_rights()
    orders, crisis = parts.roster.roster.orders(), parts.crisis
    drilling = crisis.said.drill_ends_at(anyio.current_time()) is not None
    found: Found | None = None
    if parts.editor is None and crisis.is_informed() and not crisis.contact.is_cut:
        found = await parts.tallies.look(parts, crisis.said.acceptance())
    accepts = found is not None and found.verdict.open is not Grade.WELL
    changed = orders.freeze is not None or drilling or accepts
    if changed:
        await _give(parts, "unfreeze", found=found)
        crisis.stir()
    await _until(lambda: not _lifted_late(crisis.stances))
    verdict = None if found is None else found.verdict
    left = [{"reaction": one.effect.value, "cause": one.cause.value, "reason": one.reason} for one in crisis.stances]
    return {
        "frozen": bool(crisis.frozen or crisis.stopped),
        "changed": changed,
        "accepted": {
            "situation": Situation.FAVOURABLE.value if verdict is None else verdict.situation.value,
            "missing": 0 if verdict is None else verdict.tally.missing,
            "short_of_copies": 0 if verdict is None else verdict.tally.short,
            "pods": [] if verdict is None else sorted(map(parts.live.name_of, verdict.lost)),
        },
        "left": left,
    }


def _lifted_late(stances: tuple[Reacting, ...]) -> bool:
    return any(one.cause in (Cause.BY_HAND, Cause.DRILL, Cause.SITUATION) for one in stances)


async def drill(parts: Parts, args: dict[str, object], emit: Emit) -> dict[str, object]:
    """Rehearse the reaction to a situation on all pods; return when it is over."""
    named = text_argument(args, "situation")
    situation = next((one for one in Situation if one.value == named), None)
    if situation is None:
        raise UsageError(f"There is no situation {named!r}.", "It is favourable, degraded or critical.")
    for_s = number_argument(args, "for_s", 30.0)
    if not 0 < for_s <= LONGEST_DRILL_S:
        raise UsageError("A drill takes from a moment to a day.", "Say how long with `--for 30s`.")
    reaction = reaction_to(situation, parts.cluster.continuity)
    answer: dict[str, object] = {"situation": situation.value, "reaction": reaction, "for_s": for_s}
    if reaction == "continue":
        parts.crisis.said.check_rights()
        return answer | {"took_part": [], "did_not": [], "reverted": True}
    if parts.crisis.said.drill_ends_at(anyio.current_time()) is not None:
        raise RefusedError("A drill is on already.", "Wait until it is over, or end it with `wormhole unfreeze`.")
    effect = Effect(reaction)
    await _give(parts, "drill", situation=situation, for_s=for_s)
    number, ends_at = parts.roster.roster.orders().number, anyio.current_time() + for_s
    took_part: set[str] = set()
    while (left_s := ends_at - anyio.current_time()) > 0 and _is_on(parts, number):
        took_part |= {one.name for one in _full(parts) if effect in effects_of(one)}
        await emit({"left_s": left_s, "reaction": reaction, "took_part": sorted(took_part)})
        await anyio.sleep(min(TELL_EVERY_S, max(LOOK_S, left_s)))
    others = [one for one in parts.crisis.stances if one.effect is effect and one.cause is not Cause.DRILL]
    await _until(lambda: bool(others) or not any(effect in effects_of(one) for one in _full(parts)))
    still = [one.name for one in _full(parts) if effect in effects_of(one)]
    missing = sorted({one.name for one in _full(parts)} - took_part)
    return answer | {"took_part": sorted(took_part), "did_not": missing, "reverted": not still}


async def _until(done: Callable[[], bool]) -> None:
    """Wait until other pods have said so, but not for long."""
    with anyio.move_on_after(TOLD_S):
        while not done():  # noqa: ASYNC110 - gossip tells of many things, a command comes rarely
            await anyio.sleep(LOOK_S)


def _is_on(parts: Parts, number: int) -> bool:
    said = parts.roster.roster.orders().drill
    return said is not None and said[1].number == number


async def _give(
    parts: Parts, what: str, *, found: Found | None = None, situation: Situation | None = None, for_s: float = 0.0
) -> None:
    """Sign an order and spread it. Raises `RefusedError` where this pod doesn't administer the cluster."""
    parts.crisis.said.check_rights()
    roster, identity = parts.roster.roster, parts.identity
    named, pods, contents = "" if situation is None else situation.value, list[PodId](), list[bytes]()
    if found is not None:
        verdict = found.verdict
        stands = [("critical", verdict.tally.missing), ("degraded", verdict.tally.stuck)]
        named = "+".join(one for one, number in stands if number)
        pods = sorted(verdict.lost)[:MAX_ORDERED_PODS]
        contents = sorted({content[:NAME_BYTES] for content in verdict.orphans})[:MAX_ACCEPTED]
    order = Order(
        number=roster.orders().number + 1,
        what=what,
        config=roster.config_id(),
        time_ns=time.time_ns(),
        situation=named,
        for_ms=round(for_s * 1000),
        pods=tuple(pods),
        contents=tuple(contents),
    )
    await parts.mesh.learn([seal(order, roster.cluster_id, identity.pod_id, identity.sign)])


def _full(parts: Parts) -> list[Member]:
    return [one for one in parts.mesh.members() if one.role is Role.FULL and one.state is State.ALIVE]


def _without(parts: Parts, effect: Effect) -> list[str]:
    """Return the full pods that can be reached and don't do it yet."""
    return [one.name for one in _full(parts) if effect not in effects_of(one)]
