"""`wormhole trash`: list, restore, empty."""

from __future__ import annotations

from typing import Annotated

import typer

from commands.ask import confirm
from commands.invocation import command, invocation, this_home
from commands.output import count, document, moment, note, printable, say, size, table
from commands.paths import of_running_pod
from control.client import call

_PATH_HELP = "Only what was at or below this path."


@command("trash list", "wormhole trash list", "wormhole trash photos", "wormhole trash --json")
def trash_list(path: Annotated[str, typer.Argument(metavar="PATH", help=_PATH_HELP)] = "") -> None:
    """List what can be restored: deleted, overwritten, or lost in a conflict."""
    home = this_home()
    found: list[dict[str, object]] = []

    def gather(event: dict[str, object]) -> None:
        page = event.get("trash")
        found.extend(page if isinstance(page, list) else [])

    body = call(home, "trash_list", _below(path), gather)
    if invocation().json:
        document({"trash": found})
        return
    if not found:
        note("The trash is empty." if not path else f"The trash has nothing of {printable(path)}.")
        return
    rows = [
        (
            one.get("path", ""),
            one.get("reason", ""),
            moment(one.get("time")),
            size(one.get("size")),
            one.get("pod") or "-",
            one.get("id", ""),
        )
        for one in found
    ]
    table(("path", "reason", "time", "size", "by", "id"), rows, right=frozenset({"size"}))
    note(f"{count(len(found), 'entry', 'entries')}, {size(body.get('bytes'))}.")


@command(
    "trash restore",
    "wormhole trash restore photos/cat.jpg",
    "wormhole trash restore notes.txt --version 2027-01-15",
    "wormhole trash restore notes.txt --version 1f0c9a77e2d4",
)
def trash_restore(
    path: Annotated[str, typer.Argument(metavar="PATH", help="The path that it had.")],
    version: Annotated[
        str,
        typer.Option(
            "--version", metavar="ID_OR_TIME", help="Not the latest: an id, a time, or a content's beginning."
        ),
    ] = "",
) -> None:
    """Bring a deleted file back, or an older version of one."""
    home = this_home()
    body = call(home, "trash_restore", {"path": of_running_pod(home, path), "version": version or None})
    if invocation().json:
        document(body)
    else:
        say(printable(f"Restored as {body.get('restored_as')}."))


@command("trash empty", "wormhole trash empty", "wormhole trash empty photos --yes")
def trash_empty(path: Annotated[str, typer.Argument(metavar="PATH", help=_PATH_HELP)] = "") -> None:
    """Remove for good, on all pods, what is in the trash."""
    home = this_home()
    below = _below(path)
    there = call(home, "trash_list", below)
    entries = there.get("entries")
    if isinstance(entries, int) and entries:
        what = f"{count(entries, 'entry', 'entries')}, {size(there.get('bytes'))}"
        confirm(f"Remove what is in the trash for good, on all pods: {what}?")
    body = call(home, "trash_empty", below, timeout_s=None)
    if invocation().json:
        document(body)
    else:
        removed = body.get("entries")
        say(f"Removed {count(removed if isinstance(removed, int) else 0, 'entry', 'entries')}.")


def _below(path: str) -> dict[str, object]:
    return {"path": of_running_pod(this_home(), path)} if path else {}
