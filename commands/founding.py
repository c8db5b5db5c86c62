"""`wormhole new`: create a cluster and its first pod."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Annotated

import typer

from base.errors import RefusedError
from base.home import Home
from commands import daemon, settling
from commands.invocation import command, invocation, new_home
from commands.output import document, note, painted, printable, say
from control.client import call
from discovery.names import checked_name, name_from_host

_INVITE = {"uses": 1, "expires_s": 600.0}


@command(
    "new",
    "wormhole new home",
    "wormhole new lab --from lab.toml --mount /srv/lab --pod store1",
    "wormhole new office --no-mount --listen 192.168.1.5:7420 --autostart",
)
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the cluster is called.")],
    mount: settling.MountOption = "",
    no_mount: settling.NoMountOption = False,
    pod: settling.PodOption = "",
    listen: settling.ListenOption = "",
    source: Annotated[str, typer.Option("--from", metavar="FILE.toml", help="Take this cluster.toml.")] = "",
    autostart: settling.AutostartOption = False,
    foreground: settling.ForegroundOption = False,
) -> int:
    """Create a cluster and its first pod, start it, mount it.

    Prints the line to type on the next device.
    """
    cluster = checked_name(name, "cluster")
    pod_name = checked_name(pod, "pod") if pod else name_from_host(socket.gethostname())
    home = new_home(cluster)
    settling.check_home(home)
    text = _cluster_toml(cluster, source)
    wishes = settling.check(mount, no_mount, listen, autostart, foreground)
    mount_point = wishes.mount_point(cluster)
    mount_was_there = mount_point is not None and mount_point.exists()
    try:
        recovery_key = _found(home, cluster, pod_name, text)
        settling.write_pod_toml(home, pod_name, mount_point, wishes.listen)
        facts, process = settling.start(home, wishes)
        try:
            code = _invite(home)
        except BaseException:
            daemon.end(process)
            raise
    except BaseException:
        settling.undo(home, None if mount_was_there else mount_point)
        raise
    if foreground:
        return daemon.follow(process, lambda: _tell(cluster, facts, code, recovery_key))
    _tell(cluster, facts, code, recovery_key)
    return 0


def _tell(cluster: str, facts: dict[str, object], code: str | None, recovery_key: Path) -> None:
    if invocation().json:
        document({**facts, "code": code, "recovery_key": str(recovery_key)})
        return
    line = f"wormhole join --code {code}" if code else f"wormhole join {cluster}"
    say(printable(f"The cluster {cluster} is there{settling.where(facts)}."))
    say(f"On the next device type:\n\n  {painted(line, 'bold')}\n")
    if code:
        say("The code is good once, for 10 minutes; `wormhole invite` prints another.")
    say(
        printable(
            f"Move the recovery key, {recovery_key}, to a safe place off this machine: `wormhole recover --help`."
        )
    )


def _cluster_toml(cluster: str, source: str) -> str:
    """Return the new cluster's configuration, checked; that of a file stays as it is but for another name.

    Raises `ConfigError`, `NotFoundError`.
    """
    from commands.config import read_text
    from policies.config import parse_cluster
    from policies.edit import default_cluster_toml, set_values

    if not source:
        text = default_cluster_toml(cluster)
        parse_cluster(text)
        return text
    text = read_text(Path(source).expanduser())
    named = parse_cluster(text, source).cluster.name
    if named not in {"", cluster}:
        text = set_values(text, {("cluster", "name"): cluster}, source)
        parse_cluster(text, source)
    return text


def _found(home: Home, cluster: str, pod_name: str, text: str) -> Path:
    from discovery.founding import found
    from policies.config import parse_cluster

    administrators = parse_cluster(text).cluster.administrators
    if not {"*", pod_name} & set(administrators):
        names = " or ".join(administrators[:5])
        note(printable(f"{pod_name} is no administrator of the cluster: it acts as one until {names} joins."))
    founded = found(home, cluster, pod_name, text, time.time(), administrators)
    return founded.recovery_key


def _invite(home: Home) -> str | None:
    """Return a first code; None where none is needed, or none is given (the cluster's admission says so)."""
    try:
        return str(call(home, "invite", _INVITE)["code"])
    except RefusedError:
        return None
