"""Under which address others are told to find this pod."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mesh.address import format_address, is_link_local, is_loopback, is_own, is_wildcard, own_host, parse_address


class Whereabouts:
    """Where this pod listens, what the configuration says others should dial, and what links show of the way here."""

    def __init__(self, listen: str) -> None:
        """``listen`` is ``HOST:PORT``. Raises `UsageError` for a malformed one."""
        self.listen = listen
        self._host, self.port = parse_address(listen)
        self._advertise: tuple[str, ...] = ()
        self._linked_host: dict[int, str] = {4: "", 6: ""}
        """IP version → under which of this pod's hosts the last such link was made; empty: none was."""

    def advertise(self, addresses: Sequence[str]) -> None:
        """Tell others the first of ``addresses``; none: where it is. Raises `UsageError` for a malformed one."""
        for address in addresses:
            parse_address(address)
        self._advertise = tuple(addresses)

    @property
    def address(self) -> str:
        """``HOST:PORT`` under which others are told to find this pod, by the addresses its machine has now."""
        if self._advertise:
            return self._advertise[0]
        if not is_wildcard(self._host):
            return format_address(self._host, self.port)
        return format_address(self._way_here(), self.port)

    def linked_at(self, host: str) -> None:
        """Note under which of this pod's hosts a link was made."""
        if not is_loopback(host) and not is_link_local(host):
            self._linked_host[_version(host)] = host

    def _way_here(self) -> str:
        """Return the host to be told: by which links came, of both kinds the older one, by which more others can come."""
        four, six = self._linked_host[4], self._linked_host[6]
        for host in (four, six):
            if not host:
                continue
            if is_own(host):
                return host
            now_at = own_host()  # its machine may have another one of that kind by now, and no link that shows it
            if _version(now_at) == _version(host) and not is_loopback(now_at):
                return now_at
        now_at = own_host()
        return (four or six or now_at) if is_loopback(now_at) else now_at


def _version(host: str) -> Literal[4, 6]:
    return 6 if ":" in host else 4
