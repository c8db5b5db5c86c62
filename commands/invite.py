"""`wormhole invite`: print a one-time join code."""

from __future__ import annotations

from typing import Annotated

import typer

from commands.invocation import command, invocation, this_home
from commands.output import document, moment, note, say
from commands.quantities import seconds
from control.client import call


@command("invite", "wormhole invite", "wormhole invite --uses 20 --expires 8h --client")
def invite(
    uses: Annotated[int, typer.Option("--uses", metavar="N", min=1, help="How many pods may join with it.")] = 1,
    expires: Annotated[str, typer.Option("--expires", metavar="TIME", help="How long it is good.")] = "10m",
    client: Annotated[
        bool, typer.Option("--client", help="Who joins with it uses the files and keeps no copies.")
    ] = False,
) -> None:
    """Print a one-time join code, in the line to type elsewhere."""
    args = {"uses": uses, "expires_s": seconds(expires, "--expires"), "client": client}
    body = call(this_home(), "invite", args)
    if invocation().json:
        document(body)
        return
    say(f"wormhole join --code {body.get('code')}")
    until = body.get("expires")
    end = until if isinstance(until, str) else moment(until)
    note(f"Type this line on the next device. The code is good until {end}.")
