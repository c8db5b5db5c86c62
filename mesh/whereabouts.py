"""Under which address others are told to find this pod."""

from __future__ import annotations

from collections.abc import Sequence

from mesh.address import format_address, is_loopback, is_own, is_wildcard, own_host, parse_address


class Whereabouts:
    """Where this pod listens, what the configuration says others should dial, and what links show of the way here."""

    def __init__(self, listen: str) -> None:
        """``listen`` is ``HOST:PORT``. Raises `UsageError` for a malformed one."""
        self.listen = listen
        self._host, self.port = parse_address(listen)
        self._advertise: tuple[str, ...] = ()
        self._linked_host = ""

    def advertise(self, addresses: Sequence[str]) -> None:
        """Tell others the first of ``addresses``; none: where it is. Raises `UsageError` for a malformed one."""
        for address in addresses:
            parse_address(address)
        self._advertise = tuple(addresses)

    @property
    def address(self) -> str:
        """``HOST:PORT`` under which others are told to find this pod."""
        if self._advertise:
            return self._advertise[0]
        if not is_wildcard(self._host):
            return format_address(self._host, self.port)
        return format_address(self._linked_host or own_host(), self.port)

    def linked_at(self, host: str) -> bool:
        """Note under which of this pod's addresses a link was made; return whether others must be told another one."""
        if not is_wildcard(self._host) or host == self._linked_host or is_loopback(host):
            return False
        if ":" in host and self._linked_host and ":" not in self._linked_host and is_own(self._linked_host):
            return False  # who has both is found by more under the older one
        self._linked_host = host
        return True
