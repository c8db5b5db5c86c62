"""`wormhole where`: which pods hold a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from commands.invocation import command, invocation, this_home
from commands.output import document, facts, size
from commands.paths import of_running_pod
from control.client import call


@command("where", "wormhole where photos/cat.jpg", "wormhole where ~/Wormhole/photos/cat.jpg --json")
def where(path: Annotated[str, typer.Argument(metavar="PATH", help="A file of the tree.")]) -> None:
    """Show which pods hold a file, and the copies wanted."""
    home = this_home()
    body = call(home, "where", {"path": of_running_pod(home, path)})
    if invocation().json:
        document(body)
        return
    chunks = body.get("chunks")
    facts(
        {
            "path": body.get("path", ""),
            "size": size(body.get("size")),
            "content": body.get("content") or "-",
            "copies wanted": body.get("copies_wanted", "-"),
            "kept by": _names(body, "kept"),
            "cached by": _names(body, "cached"),
            "absent holders": _names(body, "absent_holders"),
            "on this pod": body.get("local", "-"),
            "chunks": len(chunks) if isinstance(chunks, list) else "-" if chunks is None else chunks,
        }
    )


def _names(body: Mapping[str, object], key: str) -> str:
    names = body.get(key)
    return ", ".join(map(str, names)) if isinstance(names, list) and names else "nobody"
