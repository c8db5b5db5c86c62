"""Addresses as people write them: ``HOST:PORT``, an IPv6 host in brackets."""

from __future__ import annotations

import contextlib
import errno
import socket

from base.errors import UsageError


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT`` or ``[HOST]:PORT``. Raises `UsageError`."""
    host, separator, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        separator = ""
    if not separator or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{text!r} is no address.", "Write it as HOST:PORT, such as 192.168.1.5:7420.")
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """Return ``HOST:PORT``, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_wildcard(host: str) -> bool:
    """Tell whether a listening host means every interface."""
    return host in ("", "0.0.0.0", "::")  # noqa: S104


def is_loopback(host: str) -> bool:
    """Tell whether an address is of use on this machine only."""
    return host == "::1" or host.startswith("127.")


def is_link_local(host: str) -> bool:
    """Tell whether an IPv6 address is of use only together with an interface, which is another one on each machine."""
    return host.lower().startswith("fe80:")


def own_host() -> str:
    """Return the address of this machine on its network, the loopback one when there is none. Sends nothing."""
    for target in ("192.0.2.1", "224.0.0.251", "2001:db8::1"):  # documentation, mDNS: only the route is looked up
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            host = str(probe.getsockname()[0])
            if not is_wildcard(host):
                return host
    return "127.0.0.1"


def is_own(host: str) -> bool:
    """Tell whether an IP address is one of this machine's at the moment; where that can't be found out it is."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True
