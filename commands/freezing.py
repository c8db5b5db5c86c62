"""`wormhole freeze`, `unfreeze` and `drill`: stopping the cluster's writes by hand, going on, and trying that out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import typer

from commands.invocation import command, invocation, this_home
from commands.output import count, document, note, printable, say, step
from commands.quantities import seconds
from control.client import call

_TIMEOUT_S = 600.0
_LONGER_S = 60.0


@command("freeze", "wormhole freeze", "wormhole freeze --json")
def freeze() -> None:
    """Freeze the cluster: no mount takes a change.

    It lasts until `wormhole unfreeze`. Reading goes on, and so do removing files, emptying the trash, making copies,
    joining, evicting and configuring. Programs that write get the error "Read-only file system".

    Needs a pod that administers.
    """
    body = call(this_home(), "freeze")
    if invocation().json:
        document(body)
        return
    say("The cluster is frozen." if body.get("changed") is True else "The cluster was frozen already.")
    _tell_waiting(body)


def _tell_waiting(body: Mapping[str, object]) -> None:
    waiting = body.get("waiting")
    for name in waiting if isinstance(waiting, list) else []:
        note(f"{printable(name)} hasn't said yet that it does so.")


@command("unfreeze", "wormhole unfreeze", "wormhole unfreeze --json")
def unfreeze() -> int:
    """Lift a freeze, and accept the situation as it is.

    A drill that is on ends, too. What is missing now counts as known from then on, and only a new loss fires the reaction
    to a situation again. Nothing is given up by that: what comes back is there again. Needs a pod that administers.

    The exit code is 0 when this pod takes changes again and 1 when something still holds it up.
    """
    body = call(this_home(), "unfreeze", timeout_s=_TIMEOUT_S)
    if invocation().json:
        document(body)
        return 1 if body.get("frozen") is True else 0
    if body.get("changed") is not True:
        say("There was nothing to lift or to accept.")
    else:
        say("The cluster goes on." if body.get("frozen") is not True else "It is lifted.")
        accepted = body.get("accepted")
        if isinstance(accepted, dict) and accepted.get("pods"):
            names = ", ".join(map(printable, accepted["pods"]))
            missing = accepted.get("missing")
            files = f" and {count(missing, 'missing file')}" if isinstance(missing, int) and missing else ""
            say(f"Accepted: the loss of {names}{files}.")
    left = body.get("left")
    for one in left if isinstance(left, list) else []:
        note(f"still {printable(one.get('reaction'))}: {printable(one.get('reason'))}")
    return 1 if body.get("frozen") is True else 0


@command("drill", "wormhole drill critical --for 30s", "wormhole drill degraded --for 5m --json")
def drill(
    situation: Annotated[
        Literal["favourable", "degraded", "critical"], typer.Argument(metavar="SITUATION", help="What to rehearse.")
    ],
    for_: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long.")] = "30s",
) -> int:
    """Rehearse a reaction on all pods, then revert it.

    Waits until it is over. Does what `[continuity]` names for the situation (favourable, degraded or critical) as if it
    had come, but drops no copies. It ends by itself everywhere, also when this command or this pod doesn't live so long;
    `wormhole unfreeze` ends it earlier.

    The exit code is 0 when every pod took part and went back, 1 otherwise.
    """
    for_s = seconds(for_, "--for")
    told = False

    def progress(event: Mapping[str, object]) -> None:
        nonlocal told
        if not told:
            told = True
            step(f"Rehearsing {printable(event.get('reaction'))} for {for_}; `wormhole unfreeze` ends it.")

    body = call(
        this_home(),
        "drill",
        {"situation": situation, "for_s": for_s},
        on_event=progress,
        timeout_s=for_s + _LONGER_S,
    )
    missed = body.get("did_not")
    failed = bool(missed) or body.get("reverted") is not True
    if invocation().json:
        document(body)
        return int(failed)
    if body.get("reaction") == "continue":
        say(f'Nothing is done when it is {situation}: `continuity.{situation}` is "continue".')
        return 0
    took = body.get("took_part")
    names = [printable(one) for one in took] if isinstance(took, list) else []
    say(f"{printable(body.get('reaction'))} was rehearsed by {', '.join(names) or 'nobody'}.")
    for name in missed if isinstance(missed, list) else []:
        note(f"{printable(name)} didn't take part.")
    if body.get("reverted") is not True:
        note("Some pods still do it for another reason: see `wormhole status`.")
    return int(failed)
