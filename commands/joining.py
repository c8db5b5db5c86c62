"""`wormhole join`: the one command of a new device."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from base.errors import NotFoundError, RefusedError, WormholeError
from base.home import Home
from commands import daemon, leftovers, settling
from commands.ask import answer, at_terminal
from commands.invocation import command, homes, invocation, named_home
from commands.loop import run_async
from commands.machine import join_address, parse_address
from commands.output import document, note, printable, say, step
from control.lock import holder
from discovery.fingerprint import ID_SHOWN, fingerprint
from discovery.names import checked_name

if TYPE_CHECKING:
    from discovery.joining import Joined
    from discovery.nearby import Cluster

_LOOK_AROUND_S = 3.0


@command(
    "join",
    "wormhole join",
    "wormhole join --code k7mq-4f-x3v9-t2hd-8wr5",
    "wormhole join home --code k7mq-4f-x3v9-t2hd-8wr5 --peer 192.168.1.5:7420 --mount /srv/home",
)
def join(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The cluster's name, or its id.")] = "",
    code: Annotated[str, typer.Option("--code", metavar="CODE", help="What `wormhole invite` printed there.")] = "",
    peer: Annotated[str, typer.Option("--peer", metavar="HOST:PORT", help="A pod to ask; no multicast needed.")] = "",
    client: Annotated[
        bool, typer.Option("--client", help="Use the files through the others, and keep no copies.")
    ] = False,
    mount: settling.MountOption = "",
    no_mount: settling.NoMountOption = False,
    pod: settling.PodOption = "",
    listen: settling.ListenOption = "",
    autostart: settling.AutostartOption = False,
    foreground: settling.ForegroundOption = False,
) -> int:
    """Find clusters nearby, join one, start, mount."""
    wanted = name or invocation().cluster or None
    if pod:
        checked_name(pod, "pod")
    if peer:
        peer = join_address(*parse_address(peer, "--peer"))
    _check_not_joined(wanted, code)
    wishes = settling.check(mount, no_mount, listen, autostart, foreground)
    if wishes.mount is None:
        wishes.mount_point(wanted or "cluster")  # better to fail now than after the code was used
    if not code and at_terminal():
        code = _ask_for_code(wanted, peer)
    with _home_to_come() as draft:
        joined = _join(draft, wanted, code, peer, pod, client)
        home = draft if named_home() is not None else leftovers.settle(draft, joined.cluster, joined.cluster_id)
    try:
        mount_point = wishes.mount_point(joined.cluster)
        settling.write_pod_toml(home, joined.pod_name, mount_point, wishes.listen, [peer] if peer else [])
        facts, process = settling.start(home, wishes)
    except WormholeError as error:
        advice = f"{error.advice} The pod has joined and is in {home.path}: `wormhole up` tries again.".strip()
        raise type(error)(error.message, advice) from error
    if foreground:
        return daemon.follow(process, lambda: _tell(joined, facts))
    _tell(joined, facts)
    return 0


def _tell(joined: Joined, facts: dict[str, object]) -> None:
    if invocation().json:
        document(facts)
    else:
        say(printable(f"This is {joined.pod_name} of the cluster {joined.cluster} now{settling.where(facts)}."))


def _join(draft: Home, wanted: str | None, code: str, peer: str, pod: str, client: bool) -> Joined:
    from discovery.joining import join as run_join

    return run_async(
        lambda: run_join(
            draft,
            name=wanted,
            code=code or None,
            peer=peer or None,
            pod_name=pod or None,
            client=client,
            progress=lambda text: step(printable(text)),
            check=_check_not_in,
            awaited=_say_what_is_awaited,
        )
    )


def _say_what_is_awaited(pod: str) -> None:
    note(f"This pod waits to be approved, for 5 minutes: `wormhole approve {pod[:ID_SHOWN]}` on an administering pod.")
    note(f"Its fingerprint there must be {fingerprint(pod)}.")


def _ask_for_code(wanted: str | None, peer: str) -> str:
    """Show which clusters there are and ask for a code; empty where none is needed. Raises `NotFoundError`."""
    if not peer:
        from discovery.nearby import nearby

        note("Looking for clusters on the network")
        found = run_async(lambda: nearby(_LOOK_AROUND_S))
        meant = [cluster for cluster in found if wanted is None or wanted in {cluster.name, cluster.id}]
        if not meant:
            raise NotFoundError(
                f"No cluster{f' called {wanted}' if wanted else ''} is seen on this network.",
                "Check that a pod of it is up, or name one with `wormhole join --peer HOST:PORT`.",
            )
        if len(meant) == 1 and meant[0].admission in ("open", "approve"):
            return ""
        for cluster in meant:
            note(f"  {printable(_line(cluster))}")
    return answer(
        "Code (`wormhole invite` on one of its pods prints one):",
        "Joining takes a code.",
        "Run `wormhole invite` on a pod of the cluster and type `wormhole join --code CODE` here.",
    )


def _line(cluster: Cluster) -> str:
    return f"{cluster.name}  {cluster.id}  {cluster.address}"


def _check_not_joined(wanted: str | None, code: str) -> None:
    """Raise `RefusedError` when this machine, or the home that was named, is in the cluster already."""
    leftovers.sweep()
    named = named_home()
    if named is not None:
        if named.identity.exists():
            raise _already(named)
        settling.check_home(named)
        return
    for home in homes():
        if _is_in(home, wanted, code):
            raise _already(home)


def _already(home: Home) -> RefusedError:
    state = "is running" if holder(home) is not None else "is down"
    return RefusedError(
        f"This machine has joined already: its pod in {home.path} {state}.",
        "`wormhole up` starts it; for a second pod name another `--home DIR`.",
    )


def _check_not_in(cluster: str) -> None:
    """Raise `RefusedError` when a pod of this machine is in the cluster that was found, unless a home is named."""
    for home in homes() if named_home() is None else []:
        if _is_in(home, cluster, ""):
            raise _already(home)


def _is_in(home: Home, wanted: str | None, code: str) -> bool:
    """Return whether the pod in ``home`` belongs to the cluster that the line means: the code's, else the one named.

    Two clusters may have one name: with a code its issuer decides.
    """
    from discovery.code import issuer_tag, parse_code
    from mesh.roster_store import RosterStore

    tag = parse_code(code).tag if code else None
    if (tag is None and wanted is None) or not home.roster_db.exists():
        return False
    try:
        store = RosterStore(home.roster_db)
    except WormholeError:  # that pod will say so itself when it is started
        return tag is None and wanted == home.path.name
    try:
        roster = store.roster
        if tag is not None:
            return any(issuer_tag(roster.cluster_id, pod) == tag for pod in roster.pods())
        return wanted in {roster.cluster_name, roster.cluster_id, home.path.name}
    finally:
        store.close()


@contextmanager
def _home_to_come() -> Iterator[Home]:
    """Yield the home to join in: the named one, or a temporary one, while the cluster's name isn't known yet."""
    named = named_home()
    if named is not None:
        yield named
        return
    temporary = leftovers.joining_home()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary.path, ignore_errors=True)
