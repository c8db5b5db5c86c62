"""`wormhole prepare`: a folder for a journey."""

from __future__ import annotations

from typing import Annotated

import typer

from base.errors import UsageError
from commands.invocation import command, invocation, this_home
from commands.output import Progress, count, document, note, printable, say, size
from commands.paths import of_running_pod
from commands.quantities import seconds
from control.client import call

_GRACE_S = 30.0
_NAMED = 20
_CHANGES = {"yes": "can be changed", "read-only": "can be read, not changed", "no": "can't be used"}


@command(
    "prepare", "wormhole prepare ~/Wormhole/projects --for offline", "wormhole prepare projects --for offline --json"
)
def prepare(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="A folder or file of the tree.")],
    purpose: Annotated[str, typer.Option("--for", metavar="offline", help="What it is prepared for: `offline`.")] = "",
    timeout: Annotated[str, typer.Option("--timeout", metavar="TIME", help="Wait so long for what isn't here.")] = "1h",
) -> int:
    """Pin a folder, fetch it, and say exactly what works offline.

    The exit code is 0 only if all of it will work.
    """
    if purpose != "offline":
        raise UsageError(
            "What it is prepared for isn't said." if not purpose else f"Nothing is known of {purpose!r}.",
            "Say `--for offline`.",
        )
    home = this_home()
    timeout_s = seconds(timeout, "--timeout")
    with Progress("Fetching") as progress:

        def show(event: dict[str, object]) -> None:
            done, total, files, all_files = (
                _whole(event, key) for key in ("bytes", "total_bytes", "files", "total_files")
            )
            progress.update(done, total, f"{files:,} of {count(all_files, 'file')}")

        args = {"path": of_running_pod(home, directory), "for": purpose, "timeout_s": timeout_s}
        body = call(home, "prepare", args, show, timeout_s=timeout_s + _GRACE_S)
    if invocation().json:
        document(body)
    else:
        _tell(body)
    return 0 if body.get("works") is True else 1


def _tell(body: dict[str, object]) -> None:
    path, files, missing = printable(body.get("path")), _whole(body, "files"), _whole(body, "missing_files")
    ready = body.get("ready")
    ready_files, ready_bytes = (_whole(ready, key) if isinstance(ready, dict) else 0 for key in ("files", "bytes"))
    if missing:
        say(f"{path}: {ready_files:,} of {count(files, 'file')} will work without a network ({size(ready_bytes)}).")
    else:
        say(f"{path}: everything will work without a network: {count(files, 'file')}, {size(ready_bytes)}.")
    say(f"What is here {_CHANGES.get(str(body.get('changes')), '')}: {printable(body.get('changes_reason'))}.")
    rows = body.get("missing")
    for row in rows[:_NAMED] if isinstance(rows, list) else []:
        say(f"  {printable(row.get('path'))} ({size(row.get('size'))}): {printable(row.get('reason'))}")
    if missing > _NAMED:
        note(f"{missing - _NAMED:,} more files are missing (`--json` has the first 1,000)")
    warnings = body.get("warnings")
    for warning in warnings if isinstance(warnings, list) else []:
        note(printable(warning))


def _whole(body: dict[str, object], key: str) -> int:
    value = body.get(key)
    return value if isinstance(value, int) else 0
