"""What this machine has to offer a pod, looked at before anything is made: FUSE, a mount point, a port."""

from __future__ import annotations

import os
import re
import shutil
import socket
from pathlib import Path

from base.errors import MachineError, UsageError
from base.home import Home
from commands.invocation import homes
from vfs import mountpoint

DEFAULT_HOST = "0.0.0.0"  # noqa: S104 (every link is TLS with both sides verified)
DEFAULT_PORT = 7420
_PORTS_TRIED = 100


def check_fuse() -> None:
    """Raise `MachineError` when this machine can't mount."""
    without = "Or go without a mount: `--no-mount`."
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise MachineError("This machine has no /dev/fuse.", f"Load it with `modprobe fuse`. {without}") from None
    except OSError as error:
        raise MachineError(
            f"/dev/fuse can't be opened: {error.strerror}.", f"Give this user the right to it. {without}"
        ) from None
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise MachineError("fusermount3 is missing.", f"Install the package fuse3. {without}")


def check_mount_point(directory: Path) -> None:
    """Raise `MachineError` unless ``directory`` is empty, or can be made."""
    reason = _why_taken(directory)
    if reason:
        raise MachineError(
            f"{directory} can't be the mount point: {reason}.", "Name an empty folder with `--mount DIR`."
        )


def clear_stale_mount(directory: Path) -> None:
    """Take off what a killed pod left mounted. Raises `MachineError` when something that answers is mounted there."""
    if mountpoint.mounted_at(directory) is not None:
        mountpoint.clean(directory)


def default_mount(cluster: str) -> Path:
    """Return ``~/Wormhole``, or ``~/Wormhole-<cluster>`` if that is taken. Raises `MachineError` if both are."""
    usual = Path.home() / "Wormhole"
    own = Path.home() / f"Wormhole-{cluster}"
    configured = _configured_mounts()
    for candidate in (usual, own):
        if candidate not in configured and not _why_taken(candidate):
            return candidate
    raise MachineError(f"{usual} and {own} are taken.", "Name an empty folder with `--mount DIR`.")


def _why_taken(directory: Path) -> str:
    """Return why a pod can't be mounted there; empty when it can."""
    try:
        kind = mountpoint.mounted_at(directory)
        if kind is not None:
            stale = kind.startswith("fuse") and not mountpoint.answers(directory)
            return "" if stale else "something is mounted there"  # the pod takes a killed pod's mount off
        if directory.is_symlink() and not directory.exists():
            return "it is a broken link"
        if directory.exists():
            if not directory.is_dir():
                return "it is no folder"
            if any(directory.iterdir()):
                return "it is not empty"
            return "" if os.access(directory, os.W_OK | os.X_OK) else "this user may not write to it"
        parent = next(parent for parent in directory.parents if parent.exists())
    except OSError as error:
        return f"it can't be looked at ({error.strerror})"
    if not parent.is_dir():
        return f"{parent} is no folder"
    return "" if os.access(parent, os.W_OK | os.X_OK) else f"this user may not write to {parent}"


def _configured_mounts() -> set[Path]:
    """Return the mount points of the other pods on this machine, running or not."""
    mounts = {configured_mount(home) for home in homes()}
    return {mount for mount in mounts if mount is not None}


def configured_mount(home: Home) -> Path | None:
    """Return the mount point of pod.toml, absolute; None when it names none or can't be read."""
    import tomllib

    try:
        mount = tomllib.loads(home.pod_toml.read_text()).get("pod", {}).get("mount")
    except (OSError, ValueError, AttributeError):
        return None
    return Path(mount).expanduser() if isinstance(mount, str) and mount else None


def listen_address(given: str | None) -> str:
    """Return ``HOST:PORT`` to listen on: what was asked for, or the first free port from the usual one on.

    Raises `UsageError` for what is no address, `MachineError` when the one asked for is in use.
    """
    if given is None:
        for port in range(DEFAULT_PORT, DEFAULT_PORT + _PORTS_TRIED):
            if _why_not(DEFAULT_HOST, port) is None:
                return f"{DEFAULT_HOST}:{port}"
        raise MachineError(f"Ports {DEFAULT_PORT} and following are in use.", "Name a free one: `--listen HOST:PORT`.")
    host, port = parse_address(given, "--listen", default_host=DEFAULT_HOST, least_port=0)
    reason = _why_not(host, port)
    if reason is not None:
        raise MachineError(
            f"This machine can't listen on {given}: {reason}.", "Name another address: `--listen HOST:PORT`."
        )
    return join_address(host, port)


def parse_address(text: str, option: str, *, default_host: str = "", least_port: int = 1) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT`` or ``[HOST]:PORT``. Raises `UsageError`."""
    match = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^\[\]:]*)):(\d{1,5})", text)
    host = (match[1] or match[2] or default_host) if match else ""
    if match is None or not host or not least_port <= int(match[3]) <= 65535:
        raise UsageError(f"{text!r} is no address for {option}.", "Write HOST:PORT, for example 192.168.1.5:7420.")
    return host, int(match[3])


def join_address(host: str, port: int) -> str:
    """Return ``HOST:PORT``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _why_not(host: str, port: int) -> str | None:
    """Return why nothing can listen there; None when it can."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _name, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except socket.gaierror:
        return "the host is not known"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None
