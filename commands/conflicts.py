"""`wormhole conflicts`: list, and keep one of the versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from commands.invocation import command, invocation, this_home
from commands.output import count, document, moment, note, printable, say, size, table
from commands.paths import of_running_pod
from control.client import call


@command("conflicts list", "wormhole conflicts list", "wormhole conflicts --json")
def conflicts_list() -> None:
    """List files that were changed on two pods at the same time."""
    body = call(this_home(), "conflicts")
    if invocation().json:
        document(body)
        return
    found = body.get("conflicts")
    rows = []
    for conflict in found if isinstance(found, list) else []:
        for index, version in enumerate(conflict.get("versions", [])):
            rows.append((conflict.get("path", "") if not index else "", *_version(version)))
    if not rows:
        note("There are no conflicts.")
        return
    table(("path", "shown as", "pod", "time", "size", "content"), rows, right=frozenset({"size"}))


def _version(version: Mapping[str, object]) -> tuple[object, ...]:
    name = str(version.get("shown_as", "")).rpartition("/")[2]
    return (
        name,
        version.get("pod") or "-",
        moment(version.get("time")),
        size(version.get("size")),
        str(version.get("content", ""))[:12],
    )


@command(
    "conflicts keep",
    "wormhole conflicts keep notes.txt laptop",
    "wormhole conflicts keep notes.txt notes.conflict-laptop-20270115-080000.txt",
)
def conflicts_keep(
    path: Annotated[str, typer.Argument(metavar="PATH", help="The file.")],
    version: Annotated[
        str,
        typer.Argument(
            metavar="VERSION",
            help="A pod's name, a time, the beginning of a content's id, or the name that it is shown by.",
        ),
    ],
) -> None:
    """Give one version the name; the others go to the trash."""
    home = this_home()
    body = call(home, "conflicts_keep", {"path": of_running_pod(home, path), "version": version})
    if invocation().json:
        document(body)
        return
    trashed = body.get("trashed")
    others = count(len(trashed) if isinstance(trashed, list) else 0, "other version")
    say(printable(f"Kept; {others} of {body.get('path')} went to the trash."))
