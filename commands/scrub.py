"""`wormhole scrub`: verify what lies on this pod's disk."""

from __future__ import annotations

from base.errors import DamagedError
from commands.invocation import command, invocation, this_home
from commands.output import Progress, count, document, note, printable, say, size
from control.client import call

_SILENCE_S = 600.0
_NAMES_SHOWN = 20


@command("scrub", "wormhole scrub", "wormhole scrub --json")
def scrub() -> int:
    """Verify every local chunk, repair from peers.

    Reads everything that this pod stores, slowly enough that work on the mount isn't held up. What is damaged comes
    back from other pods.

    The exit code is 8 when something could not be repaired; another scrub tries again.
    """
    home = this_home()
    with Progress("Verifying") as progress:

        def show(event: dict[str, object]) -> None:
            damaged = _whole(event, "damaged")
            more = f", {damaged:,} damaged" if damaged else ""
            progress.update(
                _whole(event, "bytes"), _whole(event, "total"), f"{count(_whole(event, 'checked'), 'piece')}{more}"
            )

        body = call(home, "scrub", {}, show, timeout_s=_SILENCE_S)
    lost, trash = _names(body, "lost"), _names(body, "lost_in_trash")
    damaged, repaired = _whole(body, "damaged"), _whole(body, "repaired")
    if invocation().json:
        document(body)
    else:
        checked = f"{count(_whole(body, 'checked'), 'piece')} verified, {size(body.get('bytes'))}"
        say(f"{checked}: {f'{damaged:,} damaged, {repaired:,} repaired' if damaged else 'all is well'}.")
    away = body.get("absent_holders")
    for path in lost[:_NAMES_SHOWN]:
        holders = away.get(path) if isinstance(away, dict) else None
        where = f"only pods that are away have it: {', '.join(map(str, holders))}" if holders else "no other pod has it"
        note(f"not repaired: {printable(path)} ({where})")
    for path in trash[:_NAMES_SHOWN]:
        note(f"not repaired, in the trash: {printable(path)}")
    if (more := max(0, len(lost) - _NAMES_SHOWN) + max(0, len(trash) - _NAMES_SHOWN)) > 0:
        note(f"not repaired: {more:,} more (`--json` has all)")
    return DamagedError.exit_code if lost or trash else 0


def _names(body: dict[str, object], key: str) -> list[str]:
    value = body.get(key)
    return [str(name) for name in value] if isinstance(value, list) else []


def _whole(body: dict[str, object], key: str) -> int:
    value = body.get(key)
    return value if isinstance(value, int) else 0
