"""`wormhole evict` and `wormhole recover`: lost and stolen pods, and clusters without an administrator."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from base.home import Home
from commands.ask import confirm
from commands.invocation import command, invocation, this_home
from commands.output import document, note, printable, say
from commands.quantities import seconds
from control.client import call
from control.lock import acquire, holder

if TYPE_CHECKING:
    from mesh.recovery import RecoveryKey

KeyOption = Annotated[
    str, typer.Option("--recovery-key", metavar="FILE", help="Decide by the recovery key; it outranks every pod.")
]


@command(
    "evict",
    "wormhole evict laptop",
    "wormhole evict laptop --since 2d",
    "wormhole evict 3f0c3fd55ecdbe19bf49c6cd5a9c9cc1 --recovery-key /media/stick/recovery.key",
)
def evict(
    pod: Annotated[str, typer.Argument(metavar="POD", help="Its name or id, see `wormhole pods`.")],
    since: Annotated[
        str,
        typer.Option(
            "--since", metavar="TIME", help="Since when it is in other hands: whom it admitted then goes, too."
        ),
    ] = "",
    recovery_key: KeyOption = "",
    force: Annotated[bool, typer.Option("--force", help="Even if it has the last live copy of something.")] = False,
) -> None:
    """Throw out an absent or stolen pod.

    No pod of the cluster talks to it any more. Refused where it has the last live copy of something. Whom it let in
    stays, but for `--since`. Of two pods that evict each other the earlier admitted wins; the recovery key, which
    `wormhole new` wrote, wins against all.
    """
    home = this_home()
    since_s = seconds(since, "--since") if since else 0.0
    key = _key(recovery_key)
    args: dict[str, object] = {"pod": pod, "since_s": since_s, "force": force}
    if key is not None and holder(home) is None:
        body = _offline(home, pod, key, since_s)
    else:
        body = call(home, "evict", args | ({} if key is None else {"recovery_key": key.text()}))
    if invocation().json:
        document(body)
        return
    name = printable(str(body.get("name")))
    if body.get("already") is True:
        say(f"{name} was evicted already.")
        return
    say(f"{name} is evicted.")
    others = [one for one in _names(body, "evicted") if one != name]
    if others:
        note(f"With it went whom it had let in: {', '.join(others)}.")
    if stayed := _names(body, "stayed"):
        note(f"Members that it had let in stay: {', '.join(stayed)}. Evict those that you don't know.")
    if body.get("member") is True:
        note("This pod is a member; `wormhole up` starts it.")


@command("recover", "wormhole recover /media/stick/recovery.key")
def recover(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The recovery key, which `wormhole new` wrote.")],
) -> None:
    """Make this pod an administrator by the recovery key.

    For when none is left. The key is made with the cluster, in the home of its first pod: move it to a place where
    no machine of the cluster can reach it. With `wormhole evict POD --recovery-key FILE` it also evicts whomever
    nobody else may or can.
    """
    home = this_home()
    key = _key(file)
    assert key is not None
    confirm("Change the cluster's administrators by the recovery key?")
    body = call(home, "recover", {"recovery_key": key.text()})
    if invocation().json:
        document(body)
    else:
        say("This pod is an administrator.")


def _names(body: dict[str, object], key: str) -> list[str]:
    found = body.get(key)
    return [printable(str(one)) for one in found] if isinstance(found, list) else []


def _key(file: str) -> RecoveryKey | None:
    """Read a recovery key. Raises `NotFoundError` or `UsageError`."""
    from mesh.recovery import RecoveryKey

    return RecoveryKey.load(Path(file).expanduser()) if file else None


def _offline(home: Home, pod: str, key: RecoveryKey, since_s: float) -> dict[str, object]:
    """Evict in a home whose pod isn't running."""
    from mesh.identity import Identity
    from mesh.roster_store import RosterStore
    from operations.evicting import evict_offline

    lock = acquire(home)
    store = RosterStore(home.roster_db)
    try:
        return evict_offline(store, Identity.load(home.identity), pod, key, since_s)
    finally:
        store.close()
        os.close(lock)
