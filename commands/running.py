"""`wormhole up` and `wormhole down`: start and stop this pod."""

from __future__ import annotations

from typing import Annotated

import typer

from commands import daemon, settling
from commands.invocation import command, invocation, this_home
from commands.output import document, printable, say
from control.lock import holder


@command("up", "wormhole up", "wormhole up --foreground")
def up(
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay, and write the log here, until Ctrl-C.")
    ] = False,
) -> None:
    """Start this pod.

    Returns once it serves and its mount answers; it goes on in the background.
    """
    home = this_home()
    pid = holder(home)
    if pid is None:
        settling.finish(home)
        if foreground:
            daemon.replace_by_pod(home)
        ready, _process = daemon.start(home)
        text = "The pod is up" + (f", mounted on {ready['mount']}." if ready.get("mount") else ".")
    else:
        ready, text = {"pid": pid}, f"The pod is up already (process {pid})."
    if invocation().json:
        document({**ready, "running": True})
    else:
        say(printable(text))


@command("down", "wormhole down")
def down() -> None:
    """Stop this pod: an announced absence that loses nothing."""
    home = this_home()
    was_running = daemon.stop(home)
    if invocation().json:
        document({"home": str(home.path), "running": False})
    else:
        say("The pod is down; `wormhole up` starts it again." if was_running else "The pod was not running.")
