"""`wormhole import`: bring existing files in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from base.errors import NotFoundError, UsageError
from commands.invocation import command, invocation, this_home
from commands.output import Progress, count, document, note, printable, say, size
from commands.paths import of_running_pod
from control.client import call

_SILENCE_S = 300.0
_NAMES_SHOWN = 20


@command("import", "wormhole import ~/Pictures", "wormhole import /srv/projects /work/projects --move")
def import_files(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="The folder on this machine.")],
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="Where its files go in the tree; without it a folder of DIR's name.")
    ] = "",
    move: Annotated[
        bool, typer.Option("--move", help="Delete each source file once its copy is stored and verified.")
    ] = False,
) -> int:
    """Bring existing files in, with progress.

    Files that are there already are not sent again.

    The exit code is 1 when something was left out, or is there already with another content.
    """
    home = this_home()
    source = Path(directory).expanduser().absolute()
    if not source.is_dir():
        what = "is no folder" if source.exists() else "is not there"
        raise NotFoundError(f"{source} {what}.", "Name a folder of this machine.")
    name = source.resolve().name
    if not path and not name:
        raise UsageError("The folder has no name to take over.", "Name its place: `wormhole import DIR PATH`.")
    target = of_running_pod(home, path or f"tree:/{name}")
    with Progress(f"Importing {printable(name)}") as progress:

        def show(event: dict[str, object]) -> None:
            files, total_files, done, total = (
                _whole(event, key) for key in ("files", "total_files", "bytes", "total_bytes")
            )
            progress.update(done, total, f"{files:,} of {count(total_files, 'file')}")

        args = {"source": str(source), "path": target, "move": move}
        body = call(home, "import", args, show, timeout_s=_SILENCE_S)
    skipped, different = _names(body, "skipped"), _names(body, "different")
    if invocation().json:
        document(body)
    else:
        say(f"{count(_whole(body, 'files'), 'file')}, {size(body.get('bytes'))}, now at {printable(target)}")
    _list("left out", skipped)
    _list("there already with another content, left as it is", different)
    return 1 if skipped or different else 0


def _list(what: str, names: list[str]) -> None:
    for name in names[:_NAMES_SHOWN]:
        note(f"{what}: {printable(name)}")
    if len(names) > _NAMES_SHOWN:
        note(f"{what}: {len(names) - _NAMES_SHOWN:,} more (`--json` has all)")


def _names(body: dict[str, object], key: str) -> list[str]:
    value = body.get(key)
    return [str(name) for name in value] if isinstance(value, list) else []


def _whole(body: dict[str, object], key: str) -> int:
    value = body.get(key)
    return value if isinstance(value, int) else 0
