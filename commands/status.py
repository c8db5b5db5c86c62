"""`wormhole status`: how the cluster and this pod are, and why."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Annotated

import typer

from base.errors import UsageError
from base.home import Home
from commands.invocation import command, invocation, this_home
from commands.output import count, document, facts, note, painted, printable, say, size
from commands.paths import of_running_pod
from control.client import call

_WATCH_S = 2.0


@command(
    "status", "wormhole status", "wormhole status photos/2024", "wormhole status --watch", "wormhole status --json"
)
def status(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file or folder to look at, too.")] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every 2 seconds until Ctrl-C.")] = False,
) -> int:
    """Show the situation and its reason.

    And what is missing or short of copies, transfers, warnings; with PATH also that file or folder.

    The exit code is 0 when the situation is favourable and 1 otherwise.
    """
    home = this_home()
    if watch and invocation().json:
        raise UsageError("--watch and --json don't go together.", "Call `wormhole status --json` as often as needed.")
    args = {"path": of_running_pod(home, path)} if path else {}
    if watch:
        _watch(home, args)
    body = call(home, "status", args)
    if invocation().json:
        document(body)
    else:
        _show(body)
    return 0 if body.get("situation") == "favourable" else 1


def _watch(home: Home, args: Mapping[str, object]) -> None:
    """Show it until the interrupt."""
    while True:
        body = call(home, "status", args)
        if sys.stdout.isatty():
            sys.stdout.write("\x1b[H\x1b[2J")
        _show(body)
        if not sys.stdout.isatty():
            say("")
        time.sleep(_WATCH_S)


def _show(body: Mapping[str, object]) -> None:
    pods, files, room, transfers = (_part(body, key) for key in ("pods", "files", "bytes", "transfers"))
    short = [
        f"{files[key]:,} {text}"
        for key, text in (("short_of_copies", "short of copies"), ("pending", "pending"), ("missing", "missing"))
        if isinstance(files.get(key), int) and files[key]
    ]
    total = files.get("total", 0)
    limit = room.get("limit")
    facts(
        {
            "cluster": body.get("cluster", ""),
            "pod": body.get("pod", ""),
            "situation": body.get("situation", ""),
            "reason": body.get("reason") or "-",
            "mount": body.get("mount") or "not mounted",
            "address": body.get("address") or "-",
            "connected": ("yes" if body.get("connected") else "no") + (", frozen" if body.get("frozen") else ""),
            "pods": f"{pods.get('alive', 0)} of {pods.get('total', 0)} alive",
            "files": ", ".join([count(total if isinstance(total, int) else 0, "file"), *short]),
            "room": f"{size(room.get('used'))} used" + (f" of {size(limit)}" if limit is not None else ""),
            "transfers": f"{transfers.get('in', 0)} in, {transfers.get('out', 0)} out",
        }
    )
    if "path" in body:
        say("")
        facts(
            {
                "path": body["path"],
                "kind": body.get("kind", ""),
                "size": size(body.get("size")),
                "content": body.get("content") or "-",
                "copies wanted": body.get("copies_wanted", "-"),
                "kept": _kept(body.get("kept")),
            }
        )
    warnings = body.get("warnings")
    for warning in warnings if isinstance(warnings, list) else []:
        note(painted("warning: ", "yellow") + printable(warning))


def _kept(kept: object) -> str:
    if isinstance(kept, list):
        return ", ".join(map(str, kept)) or "nobody"
    return "-" if kept is None else str(kept)


def _part(body: Mapping[str, object], key: str) -> Mapping[str, object]:
    part = body.get(key)
    return part if isinstance(part, dict) else {}
