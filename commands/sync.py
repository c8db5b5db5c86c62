"""`wormhole sync`: wait until enough copies are kept."""

from __future__ import annotations

from typing import Annotated

import typer

from commands.invocation import command, invocation, this_home
from commands.output import Progress, count, document, note
from commands.paths import of_running_pod
from commands.quantities import seconds
from control.client import call

_GRACE_S = 30.0
"""How long the pod may be silent beyond the timeout that it keeps itself."""


@command("sync", "wormhole sync", "wormhole sync photos --copies 3 --timeout 10m")
def sync(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file or folder; without it the whole tree.")] = "",
    copies: Annotated[
        int | None,
        typer.Option("--copies", metavar="N", min=1, help="So many kept copies instead of those configured."),
    ] = None,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="Give up (exit 5) after this long.")
    ] = "60s",
) -> None:
    """Wait until everything has its copies on disks.

    With PATH: everything at and below it.
    """
    home = this_home()
    timeout_s = seconds(timeout, "--timeout")
    args: dict[str, object] = {"timeout_s": timeout_s}
    if path:
        args["path"] = of_running_pod(home, path)
    if copies is not None:
        args["copies"] = copies
    with Progress("Waiting for copies") as progress:

        def show(event: dict[str, object]) -> None:
            done, total = event.get("done", 0), event.get("total", 0)
            if isinstance(done, int) and isinstance(total, int):
                progress.update(0, 0, f"{done:,} of {count(total, 'file')}")

        body = call(home, "sync", args, show, timeout_s=timeout_s + _GRACE_S)
    if invocation().json:
        document(body)
    else:
        note("Everything has its copies.")
