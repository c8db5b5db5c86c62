"""`wormhole requests`, `approve`, `deny`: pods that wait to be let in."""

from __future__ import annotations

from typing import Annotated

import typer

from commands.invocation import command, invocation, this_home
from commands.output import document, printable, say, table
from control.client import call
from discovery.fingerprint import ID_SHOWN

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="What `wormhole requests` shows: its id, or its name.")]


@command("requests", "wormhole requests", "wormhole requests --json")
def requests() -> None:
    """List the pods that wait for approval.

    Pods do where the cluster's admission is "approve". Compare the fingerprint with the one that the new device
    shows; its name anybody can choose.
    """
    body = call(this_home(), "requests")
    if invocation().json:
        document(body)
        return
    found = body.get("requests")
    rows = [
        (
            str(one.get("id", ""))[:ID_SHOWN],
            printable(str(one.get("name", ""))),
            one.get("role", ""),
            printable(str(one.get("address", ""))),
            f"{one.get('age_s', 0):.0f} s",
            one.get("fingerprint", ""),
        )
        for one in (found if isinstance(found, list) else [])
    ]
    if rows:
        table(("id", "name", "role", "address", "waiting", "fingerprint"), rows, right=frozenset({"waiting"}))
    else:
        say("No pod waits for approval.")


@command("approve", "wormhole approve 3f0c3fd5", "wormhole approve phone")
def approve(pod: IdArgument) -> None:
    """Let a waiting pod into the cluster."""
    body = call(this_home(), "approve", {"id": pod})
    if invocation().json:
        document(body)
    else:
        say(f"{printable(str(body.get('name')))} is approved; it joins within seconds.")


@command("deny", "wormhole deny 3f0c3fd5")
def deny(pod: IdArgument) -> None:
    """Turn a waiting pod away."""
    body = call(this_home(), "deny", {"id": pod})
    if invocation().json:
        document(body)
    else:
        say(f"{printable(str(body.get('name')))} is denied.")
