"""`wormhole mount` and `wormhole unmount`: the folder of a running pod."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.invocation import command, invocation, this_home
from commands.output import document, printable, say
from control.client import call

_MOUNT_S = 60.0


@command("mount", "wormhole mount", "wormhole mount /srv/shared")
def mount(
    directory: Annotated[
        str, typer.Argument(metavar="DIR", help="The mount point; without it the one of pod.toml.")
    ] = "",
) -> None:
    """Mount the tree as a folder."""
    args = {"dir": str(Path(directory).expanduser().absolute())} if directory else {}
    body = call(this_home(), "mount", args, timeout_s=_MOUNT_S)
    if invocation().json:
        document(body)
    else:
        say(f"Mounted on {printable(body.get('mount'))}.")


@command("unmount", "wormhole unmount")
def unmount(
    force: Annotated[bool, typer.Option("--force", help="Also while programs have files open there.")] = False,
) -> None:
    """Take the folder away; the pod goes on."""
    body = call(this_home(), "unmount", {"force": force}, timeout_s=_MOUNT_S)
    if invocation().json:
        document(body)
    else:
        say("Unmounted; `wormhole mount` brings it back.")
