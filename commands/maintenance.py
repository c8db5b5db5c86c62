"""`wormhole maintenance`: a planned absence."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from commands.invocation import command, invocation, this_home
from commands.output import document, say
from control.client import call


@command("maintenance", "wormhole maintenance on", "wormhole maintenance off")
def maintenance(
    state: Annotated[Literal["on", "off"], typer.Argument(metavar="on|off", help="Whether this pod is maintained.")],
) -> None:
    """Announce a planned absence of this pod, or its end.

    No copies are made elsewhere in its place. All pods show it as `maintenance` until it says `off`, however often
    anything is restarted meanwhile.
    """
    body = call(this_home(), "maintenance", {"on": state == "on"})
    if invocation().json:
        document(body)
    elif body.get("changed") is not True:
        say(f"Maintenance is {state} already.")
    elif state == "on":
        say("This pod is in maintenance: stop it as you like. `wormhole maintenance off` ends that.")
    else:
        say("Maintenance has ended.")
