"""What `new` and `join` have in common: look at the machine first, write pod.toml, start, tell."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from base.errors import MachineError, RefusedError, UsageError
from base.home import Home
from commands import autostart, daemon, leftovers, machine
from commands.invocation import is_home
from commands.leaving import delete, remove_if_empty
from control.client import call

MountOption = Annotated[str, typer.Option("--mount", metavar="DIR", help="Where the folder appears [~/Wormhole].")]
NoMountOption = Annotated[bool, typer.Option("--no-mount", help="Take part without a folder on this machine.")]
PodOption = Annotated[str, typer.Option("--pod", metavar="NAME", help="What this pod is called [the host's name].")]
ListenOption = Annotated[
    str, typer.Option("--listen", metavar="HOST:PORT", help="Where to listen; port 0: any free one [0.0.0.0:7420].")
]
AutostartOption = Annotated[bool, typer.Option("--autostart", help="Start with the machine, too (systemd).")]
ForegroundOption = Annotated[bool, typer.Option("--foreground", help="Stay, with the log here, until Ctrl-C.")]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the line says about the pod to come, checked against the machine."""

    mount: Path | None
    """None: the default, once the cluster's name is known."""
    no_mount: bool
    listen: str
    autostart: bool
    foreground: bool

    def mount_point(self, cluster: str) -> Path | None:
        """Return where to mount. Raises `MachineError` when the default places are taken."""
        if self.no_mount:
            return None
        return self.mount or machine.default_mount(cluster)


def check(mount: str, no_mount: bool, listen: str, autostart_: bool, foreground: bool) -> Wishes:
    """Look at everything that can be known to fail before anything is made.

    Raises `UsageError` or `MachineError`.
    """
    if mount and no_mount:
        raise UsageError("--mount and --no-mount don't go together.", "Leave one of them out.")
    directory = Path(mount).expanduser().absolute() if mount else None
    if directory is not None and not str(directory).isprintable():
        raise UsageError(
            f"--mount {mount!r} can't be written in pod.toml: it isn't printable UTF-8.", "Name another folder."
        )
    if not no_mount:
        machine.check_fuse()
        if directory is not None:
            machine.check_mount_point(directory)
    if autostart_:
        autostart.check_systemd()
    return Wishes(directory, no_mount, machine.listen_address(listen or None), autostart_, foreground)


def check_home(home: Home) -> None:
    """Raise `RefusedError` unless a new pod can be made in ``home``."""
    if is_home(home):
        raise RefusedError(
            f"There is a pod in {home.path} already.",
            "Start it with `wormhole up`, or make another one with `--home DIR`.",
        )
    if home.path.exists() and not (home.path.is_dir() and leftovers.is_only_leftovers(home.path)):
        raise RefusedError(
            f"{home.path} can't be a home: it is not an empty folder.", "Name another one: `--home DIR`."
        )


def write_pod_toml(home: Home, pod: str, mount: Path | None, listen: str, peers: Sequence[str] = ()) -> None:
    """Write pod.toml with what the line said, resolved. Raises `MachineError`."""
    from policies.edit import default_pod_toml, set_values

    text = default_pod_toml(pod, str(mount) if mount is not None else "", listen)
    if peers:
        text = set_values(text, {("pod", "peers"): list(peers)}, "pod.toml")
    try:
        home.pod_toml.write_text(text, encoding="utf-8")
    except (OSError, UnicodeEncodeError) as error:
        raise MachineError(f"{home.pod_toml} can't be written: {error}.", "Check the disk of the home.") from error


def finish(home: Home) -> None:
    """Write the pod.toml that a killed `new` or `join` did not get to, if this pod never ran, with the usual values.

    Raises `MachineError` or `DamagedError`.
    """
    if home.pod_toml.exists() or home.metadata_db.exists():
        return
    from mesh.identity import Identity
    from mesh.roster_store import RosterStore

    store = RosterStore(home.roster_db)
    try:
        pod = Identity.load(home.identity).pod_id
        entry = store.roster.entry(pod)
        if entry is not None and pod not in store.roster.writers().values():
            mount = machine.default_mount(store.roster.cluster_name)
            write_pod_toml(home, entry.name, mount, machine.listen_address(None))
    finally:
        store.close()


def start(home: Home, wishes: Wishes) -> tuple[dict[str, object], subprocess.Popen[bytes]]:
    """Start the pod, and with the machine if that was wished; return the keys ``cluster, pod, mount, address``."""
    _ready, process = daemon.start(home, foreground=wishes.foreground)
    try:
        if wishes.autostart:
            autostart.enable(home)
        status = call(home, "status")
    except BaseException:
        with suppress(Exception):
            autostart.disable(home)
        daemon.end(process)
        raise
    return {key: status.get(key) or None for key in ("cluster", "pod", "mount", "address")}, process


def undo(home: Home, mount: Path | None) -> None:
    """Leave nothing of a pod that could not be started."""
    with suppress(MachineError):
        delete(home)
    if mount is not None:
        remove_if_empty(mount)


def where(facts: Mapping[str, object]) -> str:
    """Return the end of a sentence: where the folder is."""
    return f", mounted on {facts['mount']}" if facts.get("mount") else ""
