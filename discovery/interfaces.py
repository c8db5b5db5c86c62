"""Which network addresses this machine has at the moment, for multicast. Reads the system, remembers nothing.

IPv4 only: mDNS over IPv6 finds nobody that IPv4 would not, on the networks this is for; a network without IPv4 needs
``--peer`` or ``peers``.
"""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from typing import Final, NamedTuple

import ifaddr

MAX_INTERFACES: Final = 16
"""Linux joins a socket to at most 20 multicast groups (net.ipv4.igmp_max_memberships)."""

_SIOCGIFFLAGS: Final = 0x8913
_IFF_UP: Final = 0x1
_IFF_RUNNING: Final = 0x40


class Interface(NamedTuple):
    """One IPv4 address of a network interface that is up."""

    name: str
    number: int
    """The kernel's index; another one after it was unplugged and came back."""
    address: str
    running: bool
    """Whether the cable is in (or the radio associated)."""


def interfaces(only: str | None = None) -> tuple[Interface, ...]:
    """Return the addresses to use, sorted; all of this machine, or ``only`` that one. Never raises `OSError`."""
    found: list[Interface] = []
    try:
        adapters = list(ifaddr.get_adapters())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            for adapter in adapters:
                flags = _flags(probe, adapter.name)
                if not flags & _IFF_UP:
                    continue
                found.extend(
                    Interface(adapter.name, adapter.index or 0, str(ip.ip), bool(flags & _IFF_RUNNING))
                    for ip in adapter.ips
                    if ip.is_IPv4 and only in (None, ip.ip)
                )
    except OSError:
        return ()
    found.sort(key=lambda entry: (is_loopback(entry.address), entry))
    return tuple(found[:MAX_INTERFACES])


def announced_addresses(present: tuple[Interface, ...]) -> tuple[str, ...]:
    """Return the addresses to tell others: the loopback only when there is nothing else."""
    outside = tuple(entry.address for entry in present if not is_loopback(entry.address))
    return outside or tuple(entry.address for entry in present)


def multicast_scope(listen_host: str) -> str | None:
    """Return the one address that multicast is limited to when a pod listens on ``listen_host``, None for all."""
    try:
        address = ipaddress.ip_address(listen_host)
    except ValueError:
        return "127.0.0.1" if listen_host == "localhost" else None
    if address.is_unspecified:
        return None
    if address.version == 6:
        return "127.0.0.1" if address.is_loopback else None
    return str(address)


def is_loopback(address: str) -> bool:
    """Return whether an IPv4 address is this machine's own."""
    return address.startswith("127.")


def _flags(probe: socket.socket, name: str) -> int:
    """Return the flags of an interface (netdevice(7)), 0 when it has just gone."""
    try:
        answer = fcntl.ioctl(probe, _SIOCGIFFLAGS, struct.pack("16sh14x", name.encode()[:15], 0))
    except OSError:
        return 0
    flags: int = struct.unpack("16sH14x", answer)[1]
    return flags
