"""What every command knows about the line it was called with, and which pod's home that means."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from base.errors import NotRunningError, UsageError
from base.home import HOME_VARIABLE, Home, state_directory


@dataclass(frozen=True, slots=True)
class Invocation:
    """The global options."""

    home: Path | None = None
    cluster: str | None = None
    json: bool = False
    yes: bool = False


_NONE = Invocation()
_current: ContextVar[Invocation] = ContextVar("invocation", default=_NONE)


def begin(invocation: Invocation) -> None:
    """Remember the global options of this call."""
    _current.set(invocation)


def invocation() -> Invocation:
    """Return the global options of this call."""
    return _current.get()


@dataclass(frozen=True, slots=True)
class Command:
    """One command as `cli` registers it."""

    name: str
    function: Callable[..., int | None]
    examples: tuple[str, ...]


COMMANDS: list[Command] = []
"""In the order in which the modules were imported."""


_Function = TypeVar("_Function", bound=Callable[..., int | None])


def command(name: str, *examples: str) -> Callable[[_Function], _Function]:
    """Register a function as a command; it returns the exit code (None: 0)."""

    def register(function: _Function) -> _Function:
        COMMANDS.append(Command(name, function, examples))
        return function

    return register


def is_home(home: Home) -> bool:
    """Return whether a pod lives there."""
    return home.pod_toml.is_file() or home.identity.is_dir()


def homes() -> list[Home]:
    """Return the homes below the platform's state folder, sorted by cluster name."""
    root = state_directory()
    found = sorted(root.iterdir()) if root.is_dir() else []
    return [home for path in found if not path.name.startswith(".") and is_home(home := Home(path))]


def named_home() -> Home | None:
    """Return the home that the line or the environment names, there or not."""
    given = invocation().home or os.environ.get(HOME_VARIABLE)
    return Home(Path(given).expanduser().absolute()) if given else None


def new_home(cluster: str) -> Home:
    """Return where a new pod of ``cluster`` goes."""
    return named_home() or Home(state_directory() / cluster)


def this_home() -> Home:
    """Return the home of the pod that the line means.

    Raises `NotRunningError` when there is none, `UsageError` when there are several and none is named.
    """
    named = named_home()
    cluster = invocation().cluster
    if named is not None:
        if not is_home(named):
            raise NotRunningError(
                f"There is no pod in {named.path}.", "Make one with `wormhole new` or `wormhole join`."
            )
        if cluster is not None and named.path != state_directory() / cluster:
            _check_cluster(named, cluster)
        return named
    found = homes()
    if cluster is not None:
        found = [home for home in found if home.path.name == cluster]
        if not found:
            raise NotRunningError(
                f"This machine has no pod of a cluster {cluster!r}.", f"Join it with `wormhole join {cluster}`."
            )
    if not found:
        raise NotRunningError(
            "There is no pod on this machine.",
            "Make a cluster with `wormhole new NAME`, or join one with `wormhole join`.",
        )
    if len(found) > 1:
        names = ", ".join(home.path.name for home in found)
        raise UsageError(f"This machine has pods of several clusters: {names}.", "Say which one with `--cluster NAME`.")
    return found[0]


def _check_cluster(home: Home, cluster: str) -> None:
    """Both a home and a cluster are named: they have to fit, or the wrong pod would be stopped or destroyed."""
    from mesh.roster_store import RosterStore

    store = RosterStore(home.roster_db)
    try:
        actual = store.roster.cluster_name
    finally:
        store.close()
    if actual != cluster:
        raise UsageError(
            f"The pod in {home.path} belongs to the cluster {actual!r}, not to {cluster!r}.",
            "Name one of the two, `--home` or `--cluster`.",
        )
