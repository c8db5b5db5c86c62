"""The operations by the names under which the command line asks for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from base.errors import RefusedError
from control.server import Emit, Handler
from operations.configuration import config_apply, config_lost, config_set, config_show, config_text
from operations.conflicts import conflicts, conflicts_keep
from operations.evicting import evict, recover
from operations.finding import text_argument
from operations.freezing import drill, freeze, unfreeze
from operations.importing import import_files
from operations.invite import invite
from operations.leaving import destroy_check, down, leave
from operations.maintenance import maintenance
from operations.parts import Parts
from operations.pinning import pin, unpin
from operations.planning import plan
from operations.pods import pods
from operations.preparing import prepare
from operations.requests import approve, deny, requests
from operations.scrubbing import scrub
from operations.status import status
from operations.sync import sync
from operations.trash import trash_empty, trash_list, trash_restore
from operations.unplugging import safe_to_unplug
from operations.where import where
from operations.why import why

Quiet = Callable[[Parts, dict[str, object]], Awaitable[dict[str, object]]]
Telling = Callable[[Parts, dict[str, object], Emit], Awaitable[dict[str, object]]]


async def mount(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Mount the tree, on ``dir`` or where pod.toml says."""
    directory = text_argument(args, "dir")
    return {"mount": await parts.mounts.mount(None if directory is None else Path(directory))}


async def unmount(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Take the mount away; refused, naming the processes, while files are open there."""
    await parts.mounts.unmount(force=args.get("force") is True)
    return {"mount": parts.mounts.directory}


QUIET: dict[str, Quiet] = {
    "approve": approve,
    "config_apply": config_apply,
    "config_lost": config_lost,
    "config_set": config_set,
    "config_show": config_show,
    "config_text": config_text,
    "conflicts": conflicts,
    "conflicts_keep": conflicts_keep,
    "deny": deny,
    "destroy_check": destroy_check,
    "down": down,
    "evict": evict,
    "freeze": freeze,
    "invite": invite,
    "maintenance": maintenance,
    "mount": mount,
    "plan": plan,
    "pods": pods,
    "recover": recover,
    "requests": requests,
    "status": status,
    "trash_restore": trash_restore,
    "unfreeze": unfreeze,
    "unmount": unmount,
    "unpin": unpin,
    "where": where,
    "why": why,
}
TELLING: dict[str, Telling] = {
    "drill": drill,
    "import": import_files,
    "leave": leave,
    "pin": pin,
    "prepare": prepare,
    "safe_to_unplug": safe_to_unplug,
    "scrub": scrub,
    "sync": sync,
    "trash_empty": trash_empty,
    "trash_list": trash_list,
}


WRITES: Final = frozenset({"conflicts_keep", "import", "trash_restore"})
"""What waits until the cluster isn't frozen any more."""
NOT_STOPPED: Final = WRITES | {"pin", "scrub", "sync", "unpin", "where", "why", "conflicts", "trash_list"}
"""What waits besides until it isn't stopped any more: whatever neither says how it is nor cures."""


def check_held(parts: Parts, operation: str) -> None:
    """Raise `RefusedError` for what a reaction holds up."""
    crisis = parts.crisis
    if crisis.stopped and operation in NOT_STOPPED:
        raise RefusedError(
            f"The pod has stopped. {crisis.stopped}",
            "See `wormhole status`; solve it, or accept it with `wormhole unfreeze`.",
        )
    if crisis.frozen and operation in WRITES:
        raise RefusedError(
            f"Nothing is written now. {crisis.frozen}",
            "See `wormhole status`; solve it, or accept it with `wormhole unfreeze`.",
        )


def handlers(parts: Parts) -> dict[str, Handler]:
    """Return the handlers of a pod's control socket."""

    def quiet(name: str, operation: Quiet) -> Handler:
        async def handle(args: dict[str, object], _emit: Emit) -> dict[str, object]:
            check_held(parts, name)
            return await operation(parts, args)

        return handle

    def telling(name: str, operation: Telling) -> Handler:
        async def handle(args: dict[str, object], emit: Emit) -> dict[str, object]:
            check_held(parts, name)
            return await operation(parts, args, emit)

        return handle

    quiets = {name: quiet(name, one) for name, one in QUIET.items()}
    return quiets | {name: telling(name, one) for name, one in TELLING.items()}
