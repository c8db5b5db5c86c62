"""`wormhole safe-to-unplug`: may this machine go now?"""

from __future__ import annotations

from typing import Annotated

import typer

from base.errors import RefusedError
from commands.invocation import command, invocation, this_home
from commands.output import count, document, note, printable, say
from control.client import call

_SILENCE_S = 60.0


@command("safe-to-unplug", "wormhole safe-to-unplug", "wormhole safe-to-unplug nas && ssh nas poweroff")
def safe_to_unplug(
    pod: Annotated[str, typer.Argument(metavar="POD", help="Name or id of a pod; without it this one.")] = "",
) -> int:
    """Tell whether a pod may vanish now without loss.

    It may when every file has copies enough on other pods that answer. Enough is `continuity.least_copies`. Files being
    written and changes that no other pod has yet count as well.

    The exit code is 0 when it is safe, 4 when it isn't.
    """
    body = call(this_home(), "safe_to_unplug", {"pod": pod} if pod else {}, lambda _: None, timeout_s=_SILENCE_S)
    safe, name = body.get("safe") is True, printable(body.get("pod"))
    if invocation().json:
        document(body)
        return 0 if safe else RefusedError.exit_code
    if body.get("answers") is not True:
        note(f"{name} does not answer: what it has not told yet is not known here.")
    if safe:
        say(f"{name} can be unplugged: nothing falls below its floor.")
        return 0
    short = body.get("short")
    if isinstance(short, int) and short:
        say(f"{name} can't be unplugged: {count(short, 'file')} would have too few copies.")
    else:
        say(f"{name} can't be unplugged: no other pod has its newest changes yet.")
    unsaved = _names(body, "unsaved")
    for path in _names(body, "would_lose"):
        say(f"  {printable(path)}{' (being written)' if path in unsaved else ''}")
    for path in _names(body, "would_lose_in_trash"):
        say(f"  {printable(path)} (in the trash)")
    note("See that other pods are alive, then `wormhole sync`; or `wormhole leave`, which hands everything over.")
    return RefusedError.exit_code


def _names(body: dict[str, object], key: str) -> list[str]:
    value = body.get(key)
    return [str(name) for name in value] if isinstance(value, list) else []
