"""`wormhole config` on a running pod: shows what is in force, and changes it for the cluster or for this pod."""

from __future__ import annotations

import time

import anyio

from base.errors import ConfigError, DamagedError, RefusedError, UsageError
from mesh.records import MAX_CONFIG_BYTES, record_id, seal
from operations.live import Lost
from operations.parts import Parts
from operations.rendering import replace_text
from operations.settings import pod_text
from policies import fitting
from policies.changing import changes, parse_level, set_key, warnings
from policies.config import ClusterConfig, PodConfig
from policies.document import ADVICE
from policies.edit import effective, render
from policies.schema import Level

CLUSTER_FILE = "cluster.toml"


def level_of(args: dict[str, object]) -> Level:
    """Return which configuration a command is about."""
    return "pod" if args.get("pod_level") is True else "cluster"


async def config_show(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Return the cluster's configuration, or with ``pod_level`` this pod's, defaults filled in."""
    level = level_of(args)
    config = parts.pod if level == "pod" else parts.cluster
    answer: dict[str, object] = {"level": level, "config": effective(config), "toml": render(config)}
    if level == "pod":
        return answer | {"file": str(parts.home.pod_toml), "warnings": []}
    version = parts.roster.roster.configuration().in_force
    return answer | {
        "id": version.id.hex() if version else "",
        "by": parts.live.name_of(version.signer) if version else "",
        "time": version.config.time_ns / 1e9 if version else None,
        "administers": parts.roster.roster.is_admin(parts.mesh.pod_id),
        "warnings": parts.live.warnings(),
    }


async def config_text(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Return the text in force as it was written, and which version it is; with ``change`` only to who may change it."""
    level = level_of(args)
    if args.get("change") is True and level == "cluster":
        check_rights(parts)
    return {"level": level, "toml": text_of(parts, level), "id": parts.roster.roster.config_id().hex()}


async def config_set(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Set one key."""
    level, key, value = level_of(args), args.get("key"), args.get("value")
    if not isinstance(key, str) or not isinstance(value, str):
        raise UsageError("A key and a value are needed.", "See `wormhole config set --help`.")
    async with parts.live.changing:
        if level == "cluster":
            check_rights(parts)
        text = text_of(parts, level)
        return await take(parts, level, text, set_key(text, level, key, value, file_of(parts, level)))


async def config_apply(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Put a whole text in force; with ``base`` only if that version is still the one in force.

    With ``dry`` nothing is changed, only told what would be.
    """
    level, text, base = level_of(args), args.get("toml"), args.get("base")
    file = args.get("file")
    if not isinstance(text, str):
        raise UsageError("A configuration is needed.", "See `wormhole config apply --help`.")
    async with parts.live.changing:
        if level == "cluster":
            check_rights(parts)
            if isinstance(base, str) and base != parts.roster.roster.config_id().hex():
                raise RefusedError(
                    "Somebody changed the configuration meanwhile.", "Look at it again, then repeat this."
                )
        before = text_of(parts, level)
        name = file if isinstance(file, str) else ""
        return await take(parts, level, before, text, name, dry=args.get("dry") is True)


async def config_lost(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Return the changes that lost against others made at the same time; with ``done`` they were seen."""
    found = [lost_row(parts, one) for one in parts.live.lost()]
    if args.get("done") is True:
        parts.live.settle_lost()
    return {"lost": found}


def lost_row(parts: Parts, one: Lost) -> dict[str, object]:
    """Return a version that lost."""
    return {
        "id": one.version.id.hex(),
        "by": parts.live.name_of(one.version.signer),
        "time": one.version.config.time_ns / 1e9,
        "won": parts.live.name_of(one.winner.signer),
        "changes": [change.to_json() for change in one.changes],
        "toml": one.version.config.toml,
    }


# -- what is in force


def text_of(parts: Parts, level: Level) -> str:
    """Return the text in force. Raises `ConfigError` when pod.toml can't be read."""
    return pod_text(parts.home) if level == "pod" else parts.roster.roster.config_toml()


def file_of(parts: Parts, level: Level) -> str:
    """Return how messages call the text in force."""
    return str(parts.home.pod_toml) if level == "pod" else CLUSTER_FILE


def check_rights(parts: Parts) -> None:
    """Raise `RefusedError` unless this pod administers."""
    roster = parts.roster.roster
    if roster.is_admin(parts.mesh.pod_id):
        return
    admins = sorted(entry.name for pod, entry in roster.pods().items() if roster.is_admin(pod))
    raise RefusedError(
        f"This pod, {parts.live.name_of(parts.mesh.pod_id)}, may not administer the cluster {roster.cluster_name}.",
        f"Type it on {' or '.join(admins[:5])}." if admins else "",
    )


# -- changes


async def take(
    parts: Parts, level: Level, before: str, after: str, file: str = "", *, dry: bool = False
) -> dict[str, object]:
    """Check a text and put it in force, unless ``dry``; return what that changed, and what a person should know of it.

    Raises `ConfigError` with all that is wrong, `RefusedError` when another change won.
    """
    file = file or file_of(parts, level)
    new = parse_level(after, level, file)
    notes: list[str] = []
    name = parts.live.name_of(parts.mesh.pod_id)
    if isinstance(new, ClusterConfig):
        old: ClusterConfig | PodConfig = parts.cluster
        fitting.check_cluster(after, new, file, parts.roster.roster.cluster_name)
        found = changes(old, new)
        if any(change.key == "cluster.administrators" for change in found):
            notes = fitting.unknown_administrators(new, *known_pods(parts))
        if after != before and not dry:
            await publish(parts, after, new)
    else:
        old = parts.pod
        fitting.check_pod(after, new, file, name)
        found = changes(old, new)
        if after != before and not dry:
            await anyio.to_thread.run_sync(replace_text, parts.home.pod_toml, after)
        if not dry:
            parts.live.take_pod(new, after)
    return {
        "level": level,
        "changed": after != before or new != old,
        "changes": [change.to_json() for change in found],
        "warnings": [*notes, *warnings(found)],
    }


async def publish(parts: Parts, text: str, config: ClusterConfig) -> None:
    """Sign a version that follows the one in force, and put it in force everywhere."""
    if len(text.encode()) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{CLUSTER_FILE}:1: syntax: is larger than {MAX_CONFIG_BYTES >> 10} KiB", ADVICE)
    roster, identity = parts.roster.roster, parts.identity
    try:
        payload = roster.next_config(text, config.cluster.administrators, time.time_ns())
        record = seal(payload, roster.cluster_id, identity.pod_id, identity.sign)
    except DamagedError:
        raise ConfigError(
            f"{CLUSTER_FILE}:1: syntax: with its administrators and what they did it is too large to be spread", ADVICE
        ) from None
    await parts.mesh.learn([record])
    parts.live.look()
    known = roster.configuration()
    if record_id(record) not in known:
        won = parts.live.name_of(known.chain[-1].signer) if known.chain else "another pod"
        raise RefusedError(
            f"Another change, by {won}, was made at the same time and won.", "Look at it, then repeat this one."
        )


def known_pods(parts: Parts) -> tuple[set[str], set[str], dict[str, str]]:
    """Return what names the full members, what the other pods ever admitted, and the names that don't do, with the ids."""
    full: set[str] = set()
    others: set[str] = set()
    open_: dict[str, str] = {}
    for pod, entry in parts.roster.roster.pods().items():
        if not parts.roster.roster.is_full_member(pod):
            others.update((entry.name, str(pod)))
        elif entry.trusted:
            full.update((entry.name, str(pod)))
        else:
            full.add(str(pod))
            open_[entry.name] = str(pod)
    return full, others - full, open_
