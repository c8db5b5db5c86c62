"""Tells when a network interface, or an address of one, comes or goes: the kernel says so, nobody needs to ask often.

rtnetlink(7). Where there is no such thing (no Linux, no permission) the caller has to look by itself.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Final

import anyio

_LINKS: Final = 0x1
_ADDRESSES: Final = 0x10 | 0x100
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR of linux/rtnetlink.h."""
GATHER_S: Final = 0.3
"""A cable that is plugged in says several things, one after the other."""
_MESSAGE_BYTES: Final = 1 << 16
_MESSAGES: Final = 1024
"""Read at a time at most; the rest is another change."""


class Cables:
    """What the kernel says of this machine's interfaces; of the network namespace in which it was made."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        with contextlib.suppress(OSError, AttributeError):
            made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
            try:
                made.bind((0, _LINKS | _ADDRESSES))
            except OSError:
                made.close()
                raise
            self._socket = made

    @property
    def are_watched(self) -> bool:
        """Whether `changed` tells of changes by itself."""
        return self._socket is not None

    async def changed(self, until: float) -> None:
        """Return soon after something changed, at the latest at a time of the event loop's clock (s)."""
        with anyio.move_on_at(until):
            if self._socket is None:
                await anyio.sleep_forever()
                return
            await anyio.wait_readable(self._socket)
            await anyio.sleep(GATHER_S)
        self._drain()

    def _drain(self) -> None:
        """Forget what was said; that so much was said that some was lost (ENOBUFS) is news, too."""
        for _ in range(_MESSAGES if self._socket is not None else 0):
            try:
                self._socket.recv(_MESSAGE_BYTES)  # type: ignore[union-attr]
            except BlockingIOError:
                return
            except OSError:
                continue

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
