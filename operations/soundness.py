"""Is a home whole? What would let a pod take itself for a new and empty one keeps it from starting instead."""

from __future__ import annotations

import logging
import sqlite3

from base.birth import born_ns
from base.errors import DamagedError, MachineError, RefusedError, WormholeError
from base.home import Home
from base.ids import PodId
from mesh.identity import POD_KEY
from mesh.roster import Roster

ADVICE = "Put it back if it was moved; else give this pod up with `wormhole destroy --force` and join anew."

logger = logging.getLogger(__name__)


def check_complete(home: Home, roster: Roster, pod: PodId) -> None:
    """Raise `DamagedError` when the cluster's records are gone or not this pod's, or the metadata of one that wrote.

    Raises `RefusedError` for a pod that is no member any more.
    """
    try:
        roster.cluster_id  # noqa: B018 (asked for its error)
    except RefusedError:
        raise DamagedError(f"{home.roster_db} has lost the records of the cluster.", ADVICE) from None
    entry = roster.entry(pod)
    if entry is None:
        raise DamagedError(f"{home.identity} and {home.roster_db} don't belong together.", ADVICE)
    if not roster.is_member(pod):
        raise no_member(home, roster, pod)
    gone = not home.metadata_db.exists() or home.metadata_db.stat().st_size == 0
    if gone and pod in roster.writers().values():
        raise DamagedError(f"{home.metadata_db} has vanished, and with it this pod's list of the files.", ADVICE)


def no_member(home: Home, roster: Roster, pod: PodId) -> RefusedError:
    """Return what a pod says that is no member any more."""
    how = "was evicted from" if roster.is_revoked(pod) else "has left"
    return RefusedError(
        f"This pod {how} the cluster {roster.cluster_name}.",
        f"What it kept, and had not sent, is still in {home.path}; `wormhole destroy --force` deletes that, "
        "and then this machine can join anew.",
    )


def place_of(home: Home) -> bytes:
    """Return what tells this home from every copy of it: when the file of its key was made on this disk.

    Where no such time is recorded it is that of the last change of its inode; there a change of rights or owner looks
    like a copy, which costs a writer id and no more. The image of a whole disk can't be told from it.
    """
    key = home.identity / POD_KEY
    try:
        born, changed = born_ns(key), key.stat().st_ctime_ns
    except OSError as error:
        raise DamagedError(f"{home.identity} can't be read: {error.strerror}.", ADVICE) from error
    return f"changed {changed}".encode() if born is None else f"born {born}".encode()


def damage(home: Home, error: BaseException) -> WormholeError | None:
    """Return what SQLite's complaint about one of the home's files means for people; None for other errors."""
    if not isinstance(error, sqlite3.DatabaseError):
        return None
    logger.error("a database failed", exc_info=error)
    if isinstance(error, sqlite3.OperationalError):
        return MachineError(
            f"A database in {home.path} can't be used: {error}.", "Check the disk and the rights of it."
        )
    return DamagedError(
        f"A database in {home.path} is damaged: {error}.",
        f"Its log, {home.log}, tells which; if need be give the pod up with `wormhole destroy --force` and join anew.",
    )
