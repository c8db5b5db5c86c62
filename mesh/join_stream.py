"""Connections without a certificate: a joiner talks to a pod that may admit it, a few small frames, slowly.

Nothing else is ever accepted on such a connection, and nothing on it is believed before the join code confirmed both
sides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final

import anyio

from base.errors import DamagedError, UnreachableError, WormholeError, from_wire, to_wire
from base.ids import hash_bytes
from mesh.channel import Channel
from mesh.tls import join_context
from mesh.wire import JOIN_TAGS, Kind, ProtocolError, Tag, encode

MAX_FRAMES: Final = 8
"""Frames that a joiner may send on one connection."""
MAX_ANSWER_FRAMES: Final = 68
"""Frames that a pod may send to a joiner: most carry the roster, once it was admitted."""
LIFETIME_S: Final = 30.0
MAX_TOGETHER: Final = 8
"""Connections without certificate that a pod serves at a time."""


class JoinStream:
    """Join messages over one TLS connection."""

    def __init__(self, channel: Channel, server_certificate: bytes, *, joins: bool = False) -> None:
        """``joins``: this is the joiner's side."""
        self._channel = channel
        self._may_send, self._may_receive = (
            (MAX_FRAMES, MAX_ANSWER_FRAMES) if joins else (MAX_ANSWER_FRAMES, MAX_FRAMES)
        )
        self.server_certificate_hash: bytes = hash_bytes(server_certificate)
        """BLAKE3 (32 bytes) of the listener's certificate (DER): what the join code confirms."""
        self.peer_host: str = channel.remote[0]
        self._received = 0
        self._sent = 0

    async def receive(self) -> tuple[Tag, dict[str, Any]]:
        """Return the next message.

        Raises `ProtocolError` for anything but a join message or for too many, `UnreachableError` when the
        connection ends, and the error that the other side closed it with.
        """
        self._received += 1
        if self._received > self._may_receive:
            raise ProtocolError("Too many messages without a certificate.")
        frame = await self._channel.receive()
        if frame.tag == Tag.GOODBYE:
            raise from_wire(frame.body)
        if frame.tag not in JOIN_TAGS or not isinstance(frame.body, dict):
            raise ProtocolError("A join message is malformed.")
        return Tag(frame.tag), frame.body

    async def send(self, tag: Tag, body: dict[str, Any]) -> None:
        """Send one message of at most 16 KiB. Raises `ProtocolError` or `UnreachableError`."""
        self._sent += 1
        if self._sent > self._may_send or tag not in JOIN_TAGS:
            raise ProtocolError("This message can't be sent without a certificate.")
        await self._channel.send(encode(tag, body, Kind.JOIN))

    async def refuse(self, error: WormholeError) -> None:
        """Tell the other side why the connection ends, as far as it still listens."""
        with anyio.move_on_after(1.0):
            try:
                await self._channel.send(encode(Tag.GOODBYE, to_wire(error), Kind.JOIN))
            except (UnreachableError, DamagedError):
                return

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def __aenter__(self) -> JoinStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


JoinHandler = Callable[[JoinStream], Awaitable[None]]


async def open_join(host: str, port: int, timeout_s: float = 10.0) -> JoinStream:
    """Connect to a pod as somebody who has no certificate yet; close the stream after use (``async with``).

    The server isn't verified: compare `JoinStream.server_certificate_hash` by the join code. Raises
    `UnreachableError` when there is no connection within ``timeout_s``.
    """
    try:
        with anyio.fail_after(timeout_s):
            stream = await anyio.connect_tcp(host, port)
            channel = await Channel.open(stream, join_context(), server_side=False)
    except (OSError, TimeoutError) as error:
        raise UnreachableError(
            f"No pod answers at {host}:{port}.", "Check the address, and that the pod there is up."
        ) from error
    certificate = channel.peer_certificate
    if certificate is None:
        await channel.close()
        raise UnreachableError(f"What answers at {host}:{port} is no pod.", "Check the address.")
    return JoinStream(channel, certificate, joins=True)
