"""`wormhole evict` and `wormhole recover`: who is no member any more, and who administers when nobody is left to."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator

from anyio import lowlevel, to_thread

from base.errors import NotFoundError, RefusedError, UsageError
from base.ids import EMPTY_CONTENT, ContentId, PodId
from mesh.eviction import revocations
from mesh.identity import Identity
from mesh.records import RecordId, seal
from mesh.recovery import RecoveryKey
from mesh.roster import PodEntry, Roster
from mesh.roster_store import RosterStore
from operations.configuration import check_rights, text_of
from operations.finding import number_argument, number_of, text_argument
from operations.leaving import PAGE, example
from operations.parts import Parts
from policies.changing import set_key

NAMED = 5
"""So many files are named when an eviction would lose more."""

logger = logging.getLogger(__name__)


async def evict(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Remove and revoke a pod.

    Raises `NotFoundError` and `UsageError` for a name that nobody or several have, `RefusedError` without the right to,
    for this pod itself, and without ``force`` where the last live copy of something would be lost.
    """
    key = _recovery(parts, args)
    if key is None:
        check_rights(parts)
    roster, me = parts.roster.roster, parts.mesh.pod_id
    entry = who(roster, text_argument(args, "pod") or "")
    if entry.pod == me:
        raise RefusedError("A pod can't evict itself.", "`wormhole leave` is the way to go.")
    if entry.revoked:
        return _answer(roster, entry, [], already=True)
    if args.get("force") is not True:
        lost = [content async for content in only_at(parts, entry.pod)]
        if lost:
            names = ", ".join(example(parts, [content]) for content in lost[:NAMED])
            more = ", ..." if len(lost) > NAMED else ""
            raise RefusedError(
                f"Without {entry.name} the last copy of {number_of(len(lost), 'content')} is lost: {names}{more}.",
                "Let it hand over by `wormhole leave` there, or say `--force`.",
            )
    before = roster.pods()
    since_s = number_argument(args, "since_s", 0.0)
    doubtful = await to_thread.run_sync(_doubtful, parts.roster, entry.pod, since_s)
    await parts.mesh.learn(_sealed(roster, parts.identity, key, entry.pod, doubtful))
    if not roster.is_revoked(entry.pod):
        raise RefusedError(
            f"The eviction of {entry.name} doesn't count: it was admitted earlier and has evicted this pod, or its rights.",
            "Evict it with the recovery key: `wormhole evict POD --recovery-key FILE`.",
        )
    return _answer(roster, entry, _gone(before, roster))


def evict_offline(
    store: RosterStore, identity: Identity, pod: str, key: RecoveryKey, since_s: float
) -> dict[str, object]:
    """Evict with the recovery key in a home whose pod isn't running, such as one that was evicted by a thief."""
    roster = store.roster
    key.check(roster.recovery_key)
    entry = who(roster, pod)
    if entry.pod == identity.pod_id:
        raise RefusedError("A pod can't evict itself.", "`wormhole destroy` deletes it.")
    before = roster.pods()
    store.add(_sealed(roster, identity, key, entry.pod, _doubtful(store, entry.pod, since_s)))
    return _answer(roster, entry, _gone(before, roster)) | {"member": roster.is_member(identity.pod_id)}


async def recover(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Make this pod an administrator by the recovery key."""
    key = _recovery(parts, args)
    if key is None:
        raise UsageError("This takes the recovery key.", "Name its file.")
    roster, me = parts.roster.roster, parts.mesh.pod_id
    if not roster.is_full_member(me):
        raise RefusedError("Only a full pod can administer.", "Do this on a full pod of the cluster.")
    if not roster.is_admin(me):
        kept = [one for one in parts.cluster.cluster.administrators if one != "*"]
        listed = [*dict.fromkeys([*kept, str(me)])]
        quoted = ", ".join(f'"{one}"' for one in listed)
        text = set_key(text_of(parts, "cluster"), "cluster", "cluster.administrators", f"[{quoted}]", "cluster.toml")
        payload = roster.next_config(text, listed, time.time_ns())
        await parts.mesh.learn([seal(payload, roster.cluster_id, key.id, key.sign)])
        parts.live.look()
    return {"administers": roster.is_admin(me), "administrators": list(parts.cluster.cluster.administrators)}


def who(roster: Roster, name: str) -> PodEntry:
    """Return the pod that a person means by a name or an id; members before those who were evicted.

    Raises `NotFoundError`, `RefusedError` for one that left, `UsageError` for a name of several.
    """
    found = [entry for pod, entry in roster.pods().items() if name in (pod, entry.name)]
    members = [entry for entry in found if roster.is_member(entry.pod)]
    gone = [entry for entry in found if entry.revoked]
    if not found:
        raise NotFoundError(f"There is no pod called {name}.", "`wormhole pods` lists them.")
    if len(members) > 1:
        ids = ", ".join(entry.pod for entry in members)
        raise UsageError(f"{len(members)} pods are called {name}: {ids}.", "Name one by its id.")
    if not members and not gone:
        raise RefusedError(f"The pod {name} has left the cluster already.", "It is no member; nothing is to be done.")
    return (members or gone)[0]


async def only_at(parts: Parts, pod: PodId) -> AsyncIterator[ContentId]:
    """Yield the contents of which a pod has the last live copy; if it is away, the last copy that may come back."""
    after: ContentId | None = None
    away = pod not in parts.mesh.alive()
    while page := parts.catalogue.page(after, PAGE):
        for info in page:
            holders = parts.transfer.holders(info.content)
            live = holders.kept | holders.cached
            others = (live | holders.absent if away else live) - {pod}
            has_it = pod in live | holders.absent or (not live | holders.absent and info.author == pod)
            if has_it and not others and info.content != EMPTY_CONTENT:
                yield info.content
        after = page[-1].content
        await lowlevel.checkpoint()


def _recovery(parts: Parts, args: dict[str, object]) -> RecoveryKey | None:
    text = text_argument(args, "recovery_key")
    if text is None:
        return None
    key = RecoveryKey.read(text)
    key.check(parts.roster.roster.recovery_key)
    return key


def _doubtful(store: RosterStore, pod: PodId, since_s: float) -> set[RecordId]:
    """Return what a pod signed of what came here within the last ``since_s``."""
    return store.heard_since(time.time() - since_s) & store.roster.signed_by(pod) if since_s else set()


def _sealed(
    roster: Roster, identity: Identity, key: RecoveryKey | None, pod: PodId, doubtful: set[RecordId]
) -> list[bytes]:
    signer, sign = (identity.pod_id, identity.sign) if key is None else (key.id, key.sign)
    found = revocations(roster, signer, pod, time.time_ns(), doubtful=doubtful, me=identity.pod_id)
    return [seal(one, roster.cluster_id, signer, sign) for one in found]


def _gone(before: dict[PodId, PodEntry], roster: Roster) -> list[str]:
    after = roster.pods()
    return sorted(entry.name for pod, entry in before.items() if not entry.revoked and after[pod].revoked)


def _answer(roster: Roster, entry: PodEntry, gone: list[str], *, already: bool = False) -> dict[str, object]:
    stayed = [one.name for pod, one in roster.pods().items() if one.by == entry.pod != pod and roster.is_member(pod)]
    return {"name": entry.name, "id": entry.pod, "already": already, "evicted": gone, "stayed": sorted(stayed)}
