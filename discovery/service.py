"""What a pod announces on the local network, and how an announcement is read. Pure.

Announcements are not signed: whoever is on the network can make any. So they are only hints where to connect to, each
value is checked and bounded, and one that is odd in any way is ignored as a whole.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from base.ids import ClusterId, PodId
from discovery.code import issuer_tag
from discovery.names import is_name
from mesh.address import format_address
from mesh.records import is_id
from mesh.wire import PROTOCOL_VERSION

SERVICE_TYPE: Final = "_wormhole._tcp.local."
ADMISSIONS: Final = ("open", "code", "approve", "closed")
MAX_ADDRESSES: Final = 8
_MAX_VERSION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Service:
    """One announced pod."""

    cluster_id: ClusterId
    cluster_name: str
    pod_id: PodId
    pod_name: str
    admission: str
    port: int
    addresses: tuple[str, ...]
    """IP addresses without port, the best first."""
    version: int = PROTOCOL_VERSION

    @property
    def tag(self) -> str:
        """The tag of the codes that this pod issues."""
        return issuer_tag(self.cluster_id, self.pod_id)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """``HOST:PORT`` for each address."""
        return tuple(format_address(address, self.port) for address in self.addresses)

    @property
    def instance(self) -> str:
        """The name of the announcement."""
        return f"{self.pod_id}.{SERVICE_TYPE}"

    def properties(self) -> dict[str, str]:
        """Return the values of the TXT record."""
        return {
            "v": str(self.version),
            "cluster": self.cluster_id,
            "name": self.cluster_name,
            "pod": self.pod_id,
            "podname": self.pod_name,
            "tag": self.tag,
            "admission": self.admission,
        }


def read_service(
    instance: str, properties: Mapping[bytes, bytes | None], addresses: Sequence[str], port: int | None
) -> Service | None:
    """Return the pod of an announcement, or None when it isn't exactly one of ours."""
    values: dict[str, str] = {}
    for key in ("v", "cluster", "name", "pod", "podname", "tag", "admission"):
        value = properties.get(key.encode())
        if value is None or len(value) > 255:
            return None
        try:
            values[key] = value.decode()
        except UnicodeDecodeError:
            return None
    version = values["v"]
    if not (version.isascii() and version.isdigit() and len(version) <= 7 and 0 < int(version) <= _MAX_VERSION):
        return None
    if not (
        is_id(values["cluster"]) and is_id(values["pod"]) and is_name(values["name"]) and is_name(values["podname"])
    ):
        return None
    usable = usable_addresses(addresses)
    if values["admission"] not in ADMISSIONS or not usable or not port or not 0 < port < 65536:
        return None
    service = Service(
        ClusterId(values["cluster"]),
        values["name"],
        PodId(values["pod"]),
        values["podname"],
        values["admission"],
        port,
        usable,
        int(version),
    )
    # DNS names compare without case; the instance is named after the pod, the tag follows from both ids
    return service if instance.lower() == service.instance and values["tag"] == service.tag else None


def usable_addresses(addresses: Sequence[str]) -> tuple[str, ...]:
    """Return at most 8 valid unicast addresses: IPv4 before IPv6, the loopback last, none twice."""
    found: list[tuple[bool, int, str]] = []
    for text in list(addresses)[: 4 * MAX_ADDRESSES]:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        plain = not address.is_multicast and not address.is_unspecified and str(address) != "255.255.255.255"
        if plain and not (address.version == 6 and address.is_link_local):  # it would need an interface beside it
            found.append((address.is_loopback, address.version, str(address)))
    unique = dict.fromkeys(sorted(found, key=lambda entry: entry[:2]))
    return tuple(entry[2] for entry in unique)[:MAX_ADDRESSES]
