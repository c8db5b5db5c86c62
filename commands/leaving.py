"""`wormhole leave` and `wormhole destroy`: the end of this pod."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from base.errors import MachineError, RefusedError, UnreachableError
from base.home import Home, state_directory
from commands import autostart, daemon, leftovers
from commands.ask import confirm
from commands.invocation import command, invocation, this_home
from commands.machine import clear_stale_mount, configured_mount
from commands.output import Progress, count, document, note, printable, say
from control.client import call, not_running
from control.lock import holder

_DRAIN_SILENCE_S = 600.0


@command("leave", "wormhole leave", "wormhole leave --force")
def leave(
    force: Annotated[
        bool, typer.Option("--force", help="Go even where files lose copies that they should have.")
    ] = False,
) -> None:
    """Hand over what only this pod keeps, then leave.

    Refused with the reason where integrity would break. The home is deleted afterwards, unless it was forced: then it
    stays for `wormhole destroy --force`.
    """
    home = this_home()
    pid = holder(home)
    if pid is None:
        raise not_running(home)
    mount = configured_mount(home)
    with Progress("Handing over") as progress:

        def show(event: dict[str, object]) -> None:
            match event:
                case {"done": int(done), "total": int(total), "done_bytes": int(moved), "total_bytes": int(all_bytes)}:
                    progress.update(moved, all_bytes, f"{done:,} of {count(total, 'file')}")

        body = call(home, "leave", {"force": force}, show, timeout_s=_DRAIN_SILENCE_S)
    daemon.wait_until_gone(home, pid)
    autostart.disable(home)
    if not force:
        _save_recovery_key(home)
        _save_private_files(home)
        delete(home)
        if mount is not None:
            remove_if_empty(mount)
    if invocation().json:
        document(body)
    elif force:
        say(
            f"This pod has left; what it kept is still in {printable(home.path)}. `wormhole destroy --force` deletes it."
        )
    else:
        say("This pod has left the cluster.")


@command("destroy", "wormhole destroy", "wormhole destroy --yes --force")
def destroy(
    force: Annotated[bool, typer.Option("--force", help="Even if it holds the only live copy of something.")] = False,
) -> None:
    """Unmount, stop, delete this pod's home and autostart.

    Refused while it holds the only live copy of something.
    """
    home = this_home()
    running = holder(home) is not None
    if not force:
        if not running:
            raise RefusedError(
                "The pod is not running, so nobody can say whether it holds the only copy of something.",
                "Start it with `wormhole up` first, or say `--force`.",
            )
        call(home, "destroy_check", {"force": False})
    confirm(f"Delete the pod in {home.path} with everything that it stores?")
    mount = configured_mount(home)
    if running:
        _stop(home, force)
    autostart.disable(home)
    if mount is not None:
        clear_stale_mount(mount)
    delete(home)
    if mount is not None:
        remove_if_empty(mount)
    if invocation().json:
        document({"home": str(home.path), "destroyed": True})
    else:
        say("Nothing of this pod is left.")


def _save_recovery_key(home: Home) -> None:
    """Keep the cluster's recovery key, which nobody has taken away yet: the cluster goes on. Raises `MachineError`."""
    key = home.identity / "recovery.key"
    kept = home.path.with_name(f"{home.path.name}-recovery.key")
    try:
        key.rename(kept)
    except FileNotFoundError:
        return
    except OSError as error:
        raise MachineError(f"The recovery key can't be moved to {kept}: {error.strerror}.", f"Move {key}.") from error
    note(f"The cluster's recovery key is in {printable(kept)} now: move it to a safe place.")


def _save_private_files(home: Home) -> None:
    """Keep the files that were on this pod only. Raises `MachineError`."""
    kept = home.path.with_name(f"{home.path.name}-private")
    if not home.private.is_dir() or not any(home.private.iterdir()):
        return
    try:
        home.private.rename(kept)
    except OSError as error:
        raise MachineError(f"{home.private} can't be moved to {kept}: {error.strerror}.", "Move it by hand.") from error
    note(f"The files that a .wormholeignore kept on this pod are in {printable(kept)} now.")


def _stop(home: Home, force: bool) -> None:
    pid = holder(home)
    try:
        daemon.stop(home)
    except UnreachableError:
        if not force or pid is None:
            raise
        daemon.kill(home, pid)


def delete(home: Home) -> None:
    """Delete a home whose pod has ended. Raises `MachineError`."""
    try:
        shutil.rmtree(home.path)
    except OSError as error:
        raise MachineError(
            f"{error.filename} can't be deleted: {error.strerror}.", f"Delete {home.path} by hand."
        ) from error
    if home.path.parent == state_directory():
        leftovers.sweep()
        remove_if_empty(home.path.parent)


def remove_if_empty(directory: Path) -> None:
    """Remove a folder, such as a mount point, that nobody put anything into."""
    with suppress(OSError):  # in use, not empty, or not ours: it stays
        directory.rmdir()
