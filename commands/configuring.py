"""`wormhole config check` and `wormhole config show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from base.errors import WormholeError
from commands.invocation import command, invocation, this_home
from commands.output import document, note, printable, say
from control.client import call
from control.lock import holder


@command("config check", "wormhole config check cluster.toml", "wormhole config check ~/pod.toml --json")
def check(file: Annotated[str, typer.Argument(metavar="FILE", help="A cluster.toml or a pod.toml.")]) -> int:
    """Check a configuration file: all errors at once (exit 6), and which keys are not active yet (exit 1)."""
    from commands.config import check as run_check

    result = run_check(Path(file).expanduser())
    if invocation().json:
        document(result.to_json())
    for line in (*result.errors, *result.warnings):
        note(printable(line))
    if not invocation().json and result.exit_code == 0:
        say(printable(f"{file} is a good configuration of a {result.level}."))
    return result.exit_code


@command("config show", "wormhole config show", "wormhole config show --pod-level")
def show(
    pod_level: Annotated[bool, typer.Option("--pod-level", help="This pod's own, not the cluster's.")] = False,
) -> None:
    """Show the configuration in force, with all defaults."""
    home = this_home()
    if pod_level and holder(home) is None:
        from commands.config import show_pod

        result = show_pod(home.pod_toml)
        body: dict[str, object] = {**result.to_json(), "toml": result.text}
    else:
        body = call(home, "config_show", {"pod_level": pod_level})
    text = body.pop("toml", None)
    if invocation().json:
        document(body)
        return
    if not isinstance(text, str):
        raise WormholeError("The running pod shows no text.", "Restart it with the version of this command.")
    say(text.rstrip("\n"))
    warnings = body.get("warnings")
    for line in warnings if isinstance(warnings, list) else []:
        note(printable(line))
