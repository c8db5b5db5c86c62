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
from commands.output import count, document, facts, note, painted, printable, say, size, table
from commands.paths import of_running_pod
from control.client import call

_WATCH_S = 2.0
_NAMED = 5
_IDLE_BYTES_PER_S = 1000
"""Less than this is what small changes leave behind, and no transfer."""
_TIMEOUT_S = 120.0


@command(
    "status", "wormhole status", "wormhole status photos/2024", "wormhole status --watch", "wormhole status --json"
)
def status(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file or folder to look at, too.")] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every 2 seconds until Ctrl-C.")] = False,
) -> int:
    """Show the situation, its reason and what is done about it.

    And who has how much room, what is missing or short of copies, transfers, conflicts, warnings with the command that
    helps; with PATH also that file or folder.

    The exit code is 0 when the situation is favourable and 1 otherwise.
    """
    home = this_home()
    if watch and invocation().json:
        raise UsageError("--watch and --json don't go together.", "Call `wormhole status --json` as often as needed.")
    args = {"path": of_running_pod(home, path)} if path else {}
    if watch:
        _watch(home, args)
    body = call(home, "status", args, timeout_s=_TIMEOUT_S)
    if invocation().json:
        document(body)
    else:
        _show(body)
    return 0 if body.get("situation") == "favourable" else 1


def _watch(home: Home, args: Mapping[str, object]) -> None:
    """Show it until the interrupt."""
    while True:
        body = call(home, "status", args, timeout_s=_TIMEOUT_S)
        if sys.stdout.isatty():
            sys.stdout.write("\x1b[H\x1b[2J")
        _show(body)
        if not sys.stdout.isatty():
            say("")
        time.sleep(_WATCH_S)


def _show(body: Mapping[str, object]) -> None:
    _headline(body)
    say("")
    _members(body.get("members"))
    say("")
    facts(_facts(body))
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
    warnings = _list(body.get("warnings"))
    if warnings:
        note("")
    for warning in warnings:
        note(painted("warning: ", "yellow") + printable(warning))


def _headline(body: Mapping[str, object]) -> None:
    """Show in words how it stands, why, and what is done about it."""
    situation = str(body.get("situation", ""))
    where = f"{printable(body.get('cluster', ''))} on {printable(body.get('pod', ''))}"
    say(f"{painted(where, 'bold')}: {painted(situation, _COLOURS.get(situation, ''))}")
    say(f"  {printable(body.get('reason') or '-')}")
    if body.get("connected") is False:
        say(f"  {painted('cut off', 'red')}: `[disconnected]` of pod.toml says what this pod does.")
    for one in _list(body.get("doing")):
        if isinstance(one, dict):
            done = _DONE.get(str(one.get("reaction")), printable(one.get("reaction")))
            why = "" if one.get("cause") == "situation" else f" {printable(one.get('reason'))}"
            say(f"  {painted(done, 'yellow')} ({printable(one.get('cause'))}).{why}")
    for one in _list(body.get("repair")):
        if isinstance(one, dict):
            say(f"  What {printable(one.get('pod'))} keeps is copied to others: {_when(one.get('in_s'))}.")
    if body.get("accepted"):
        say(f"  Accepted on {printable(body['accepted'])} with `wormhole unfreeze`: only a new loss is reacted to.")


def _when(left_s: object) -> str:
    if not isinstance(left_s, int) or left_s <= 0:
        return "under way"
    text = f"{left_s} s" if left_s < _MINUTE_S else f"{-(-left_s // _MINUTE_S)} min"
    return f"in {text}, if it stays away"


_MINUTE_S = 60
_COLOURS = {"favourable": "green", "degraded": "yellow", "critical": "red"}
_DONE = {
    "freeze": "Frozen: nothing is written; reading, removing and repair go on",
    "stop": "Stopped: the mounts refuse everything",
    "throttle": "Traffic between pods is slowed down",
    "fewer-copies": "Fewer copies are kept, so that there is room",
}
_CELLS = 20


def _members(members: object) -> None:
    """Show each pod, and how far its room is filled."""
    rows = []
    for one in _list(members):
        if not isinstance(one, dict):
            continue
        used, limit = one.get("bytes_used"), one.get("bytes_limit")
        of = f"{size(used)} of {size(limit)}" if limit is not None else size(used)
        state = "down" if one.get("announced") is True and one.get("state") == "absent" else one.get("state", "")
        doing = ", ".join(map(printable, _list(one.get("doing")))) or "-"
        rows.append((one.get("name", ""), one.get("role", ""), state, bar(used, limit), of, doing))
    if rows:
        table(("pod", "role", "state", "filled", "used", "does"), rows)


def bar(used: object, limit: object) -> str:
    """Return how full something is, as a bar on a terminal and in percent elsewhere."""
    if not isinstance(used, int) or not isinstance(limit, int) or limit <= 0:
        return "-"
    share = min(1.0, used / limit)
    if not sys.stdout.isatty() or "UTF" not in (sys.stdout.encoding or "").upper():
        return f"{share:.0%}"
    cells = round(share * _CELLS)
    return "█" * cells + "░" * (_CELLS - cells) + f" {share:.0%}"


def _facts(body: Mapping[str, object]) -> dict[str, object]:
    pods, files, room, transfers = (_part(body, key) for key in ("pods", "files", "bytes", "transfers"))
    short = [
        f"{files[key]:,} {text}"
        for key, text in (("short_of_copies", "short of copies"), ("pending", "pending"), ("missing", "missing"))
        if isinstance(files.get(key), int) and files[key]
    ]
    total, limit = files.get("total", 0), room.get("limit")
    named: dict[str, object] = {
        text: ", ".join(map(printable, paths[:_NAMED])) + (" ..." if len(paths) > _NAMED else "")
        for text, paths in (
            ("can't be read", _list(body.get("missing"))),
            ("waits for a pod", _list(body.get("pending"))),
        )
        if paths
    }
    conflicts = body.get("conflicts")
    return {
        "pods": f"{pods.get('alive', 0)} of {pods.get('total', 0)} alive",
        "files": ", ".join([count(total if isinstance(total, int) else 0, "file"), *short]),
        **named,
        "conflicts": f"{conflicts}: see `wormhole conflicts`" if conflicts else "none",
        "room here": f"{size(room.get('used'))} used" + (f" of {size(limit)}" if limit is not None else ""),
        "transfers": _transfers(transfers),
        "mount": body.get("mount") or "not mounted",
        "address": body.get("address") or "-",
    }


def _transfers(transfers: Mapping[str, object]) -> str:
    limits = transfers.get("limit_bytes_per_s")

    def way(name: str) -> str:
        pieces, rate = transfers.get(name), transfers.get(f"{name}_bytes_per_s")
        is_idle = not pieces and (not isinstance(rate, int) or rate < _IDLE_BYTES_PER_S)
        limit = limits.get(name) if isinstance(limits, dict) else None
        at_most = f" (at most {size(limit)}/s)" if limit is not None else ""
        return f"nothing {name}{at_most}" if is_idle else f"{pieces} {name}, {size(rate)}/s{at_most}"

    ways = [way("in"), way("out")]
    return "none" if ways == ["nothing in", "nothing out"] else "; ".join(ways)


def _kept(kept: object) -> str:
    if isinstance(kept, list):
        return ", ".join(map(str, kept)) or "nobody"
    return "-" if kept is None else str(kept)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _part(body: Mapping[str, object], key: str) -> Mapping[str, object]:
    part = body.get(key)
    return part if isinstance(part, dict) else {}
