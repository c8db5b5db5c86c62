"""`wormhole pin` and `unpin`: keep files on this pod."""

from __future__ import annotations

from typing import Annotated

import typer

from commands.invocation import command, invocation, this_home
from commands.output import Progress, count, document, note, printable, say, size
from commands.paths import of_running_pod
from commands.quantities import seconds
from control.client import call

_GRACE_S = 30.0
_TIMED_OUT = 5


@command("pin", "wormhole pin ~/Wormhole/projects", "wormhole pin photos/2026 --timeout 2h --json")
def pin(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file or folder of the tree.")],
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="Wait so long for what isn't here (exit 5).")
    ] = "1h",
) -> int:
    """Keep a file, or everything in a folder, on this pod.

    Waits until all of it is here. What comes into a pinned folder later is kept as well. A pin is a rule in pod.toml;
    `wormhole unpin` takes it away.
    """
    home = this_home()
    timeout_s = seconds(timeout, "--timeout")
    with Progress("Fetching") as progress:

        def show(event: dict[str, object]) -> None:
            done, total, files, all_files = (
                _whole(event, key) for key in ("bytes", "total_bytes", "files", "total_files")
            )
            progress.update(done, total, f"{files:,} of {count(all_files, 'file')}")

        args = {"path": of_running_pod(home, path), "timeout_s": timeout_s}
        body = call(home, "pin", args, show, timeout_s=timeout_s + _GRACE_S)
    missing = _whole(body, "missing")
    if invocation().json:
        document(body)
    else:
        files = count(_whole(body, "files"), "file")
        say(f"{printable(body.get('path'))} is pinned: {files}, {size(body.get('bytes'))}.")
    if missing:
        note(
            f"{count(missing, 'file')} not here yet: fetched as soon as a pod that has them answers and there is room."
        )
    return _TIMED_OUT if missing else 0


@command("unpin", "wormhole unpin ~/Wormhole/projects")
def unpin(path: Annotated[str, typer.Argument(metavar="PATH", help="What was pinned.")]) -> None:
    """Take a pin away.

    Nothing is dropped at once, and never what no other pod keeps.
    """
    home = this_home()
    body = call(home, "unpin", {"path": of_running_pod(home, path)})
    if invocation().json:
        document(body)
    elif body.get("changed") is not True:
        say(f"{printable(body.get('path'))} was not pinned.")
    elif body.get("pinned") is True:
        say(f"{printable(body.get('path'))} has no pin of its own any more; another rule of pod.toml keeps it.")
    else:
        say(f"{printable(body.get('path'))} is not pinned any more.")


def _whole(body: dict[str, object], key: str) -> int:
    value = body.get(key)
    return value if isinstance(value, int) else 0
