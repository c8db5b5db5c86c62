"""What a `new` or `join` that was killed half way leaves behind: taken away, or brought to its end, by the next command.

A `join` that was not given a home works in ``.joining-PID`` until it knows the cluster's name.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from base.errors import MachineError, WormholeError
from base.home import Home, state_directory

_JOINING = ".joining-"
_DRAFT = ".draft-"
"""As in `discovery.draft`."""


def joining_home() -> Home:
    """Return where this process joins while it doesn't know the cluster yet."""
    return Home(state_directory() / f"{_JOINING}{os.getpid()}")


def is_only_leftovers(folder: Path) -> bool:
    """Return whether a folder is empty but for what a killed attempt to make a pod left there."""
    roster = Home(folder).roster_db.name
    return all(entry.name.startswith((_DRAFT, roster)) for entry in folder.iterdir())


def settle(draft: Home, cluster: str, cluster_id: str) -> Home:
    """Move a home to its place, called after the cluster; the second of one name has its id, too.

    Raises `MachineError` when both places are taken.
    """
    for name in (cluster, f"{cluster}-{cluster_id[:8]}"):
        home = Home(state_directory() / name)
        if not home.path.exists():
            draft.path.rename(home.path)
            return home
    raise MachineError(f"{home.path} is taken.", "Name another home: `--home DIR`.")


def sweep() -> None:
    """Settle the pods of killed joins that had been let in, and delete what the others left."""
    for path in state_directory().glob(f"{_JOINING}*"):
        if Path("/proc", path.name.removeprefix(_JOINING)).exists():
            continue
        with suppress(WormholeError, OSError):
            if Home(path).identity.is_dir():
                _settle(Home(path))
            else:
                shutil.rmtree(path)


def _settle(draft: Home) -> None:
    from mesh.roster_store import RosterStore

    store = RosterStore(draft.roster_db)
    try:
        name, cluster_id = store.roster.cluster_name, store.roster.cluster_id
    finally:
        store.close()
    settle(draft, name, cluster_id)
