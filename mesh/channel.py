"""One TLS connection that carries frames: an `ssl.SSLObject` between two memory buffers and a TCP stream.

anyio's own TLS stream reads 64 KiB at a time and gives back one 16 KiB record per await; here one large read from the
socket is decrypted in a tight loop, straight into the frame being received.

One task may receive and any number may send. Errors of the connection are `ConnectionLostError`; a violation of
the protocol is `mesh.wire.ProtocolError`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Final

import anyio
import anyio.lowlevel
from anyio.abc import SocketAttribute, SocketStream

from base.errors import UnreachableError
from mesh.wire import Decoder, Frame, Kind

RECEIVE_BYTES: Final = 256 << 10
FEW_BYTES: Final = 16 << 10
"""Room for what comes where little has come before: more of it costs time to have and to give back."""
SEND_SLICE_BYTES: Final = 256 << 10


class ConnectionLostError(UnreachableError):
    """The connection ended, or TLS refused to make it."""


class Channel:
    """Frames over TLS. Made by `Channel.open`; `set_kind` chooses the limits once the peer is known."""

    def __init__(
        self, stream: SocketStream, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> None:
        self._stream = stream
        self._tls = tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._socket: socket.socket = stream.extra(SocketAttribute.raw_socket)  # noqa: S610
        self._sending = anyio.Lock(fast_acquire=True)
        self._unsent = b""
        self._decoder = Decoder(Kind.JOIN)
        self._torn = False
        self.received_bytes = 0
        """Bytes received from the network so far: what an idle or a half-open link lacks."""
        self._receive_bytes = FEW_BYTES
        self._more = False
        """Whether the network surely has more."""

    @classmethod
    async def open(cls, stream: SocketStream, context: ssl.SSLContext, *, server_side: bool) -> Channel:
        """Do the TLS handshake over a connected stream; on any failure the stream is closed.

        The caller sets the deadline. Raises `ConnectionLostError`.
        """
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        channel = cls(stream, context.wrap_bio(incoming, outgoing, server_side=server_side), incoming, outgoing)
        try:
            await channel._handshake()
        except BaseException:
            with anyio.CancelScope(shield=True), contextlib.suppress(OSError, anyio.BrokenResourceError):
                await anyio.aclose_forcefully(stream)
            raise
        return channel

    def set_kind(self, kind: Kind) -> None:
        """Choose what the peer may send from the next frame on."""
        self._decoder = Decoder(kind)

    @property
    def peer_certificate(self) -> bytes | None:
        """The peer's certificate (DER), None when it showed none."""
        return self._tls.getpeercert(binary_form=True) or None

    @property
    def remote(self) -> tuple[str, int]:
        """Host and port of the peer."""
        address = self._stream.extra(SocketAttribute.remote_address, ("", 0))  # noqa: S610
        return str(address[0]), int(address[1])

    @property
    def local_host(self) -> str:
        """The local address through which the peer is reached."""
        return str(self._stream.extra(SocketAttribute.local_address, ("", 0))[0])  # noqa: S610

    async def receive(self) -> Frame:
        """Return the next frame. Raises `ConnectionLostError` or `ProtocolError`."""
        while True:
            room = self._decoder.wanted()
            if not (self._incoming.pending or self._tls.pending()):
                await self._fill()
            try:
                count = self._read(room)
            except ssl.SSLWantReadError:
                await self._fill()
                continue
            except ssl.SSLError as error:
                raise _lost(error) from error
            if count == 0:
                raise ConnectionLostError("The other side closed the connection.")
            frame = self._decoder.filled(count)
            if frame is not None:
                return frame

    async def send(self, frame: bytes) -> None:
        """Send one encoded frame. Raises `ConnectionLostError`; once cancelled in between, always."""
        async with self._sending:
            if self._torn:
                raise ConnectionLostError("The connection broke.")
            self._torn = True
            view = memoryview(frame)
            for start in range(0, len(view), SEND_SLICE_BYTES):
                try:
                    self._tls.write(view[start : start + SEND_SLICE_BYTES])
                except ssl.SSLError as error:
                    raise _lost(error) from error
                await self._transmit()
            self._torn = False

    def send_now(self, frame: bytes) -> bool:
        """Send one small encoded frame without waiting; tell whether it was taken. To be called from the same loop.

        No, nothing of it is sent: while something else is under way, or when the connection broke; `send` tells.
        Taken is also what didn't fit into the network's buffers: `unsent` until `flush`.
        """
        if self._torn or self.unsent or self._sending.locked():
            return False
        try:
            self._tls.write(frame)
            data = self._outgoing.read()
            self._unsent = data[self._socket.send(data) :]
        except (BlockingIOError, InterruptedError):
            self._unsent = data
        except OSError:
            self._torn = True
            return False
        return True

    @property
    def unsent(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._unsent or self._outgoing.pending)

    async def flush(self) -> None:
        """Send what is `unsent`. Raises `ConnectionLostError`."""
        async with self._sending:
            if self._torn:
                raise ConnectionLostError("The connection broke.")
            await self._transmit()

    async def close(self) -> None:
        """Close the connection, telling TLS where that is possible without waiting."""
        with anyio.CancelScope(shield=True), contextlib.suppress(Exception):
            if not self._torn:
                with contextlib.suppress(ssl.SSLError):
                    self._tls.unwrap()
            if self.unsent and not self._torn:
                with anyio.move_on_after(0.5):
                    await self._transmit()
            await anyio.aclose_forcefully(self._stream)

    def _read(self, room: memoryview) -> int:
        # typeshed knows only the form without a buffer, which returns bytes
        read: Callable[[int, memoryview], int] = self._tls.read  # type: ignore[assignment]
        return read(len(room), room)

    async def _handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.flush()
                await self._fill()
                continue
            except ssl.SSLError as error:
                with contextlib.suppress(UnreachableError):
                    await self.flush()  # the alert tells the other side why
                raise _lost(error) from error
            await self.flush()
            return

    async def _fill(self) -> None:
        """Wait for bytes from the network; answers that TLS itself wants to send go out first."""
        if self.unsent:
            await self.flush()
        try:
            data = await self._receive()
        except (OSError, anyio.BusyResourceError, anyio.ClosedResourceError) as error:
            raise ConnectionLostError("The connection broke.") from error
        if not data:
            self._incoming.write_eof()
            raise ConnectionLostError("The other side closed the connection.")
        self.received_bytes += len(data)
        self._incoming.write(data)

    async def _receive(self) -> bytes:
        """Return what the network has, empty at its end: what anyio's stream does, in a third of the steps."""
        while True:
            if self._more:
                await anyio.lowlevel.checkpoint()
            else:
                await anyio.wait_readable(self._socket)
            try:
                data = self._socket.recv(self._receive_bytes)
            except (BlockingIOError, InterruptedError):
                self._more = False
                continue
            self._more = len(data) == self._receive_bytes
            self._receive_bytes = RECEIVE_BYTES if len(data) >= FEW_BYTES else FEW_BYTES
            return data

    async def _transmit(self) -> None:
        if not self.unsent:
            return
        data, self._unsent = self._unsent + self._outgoing.read(), b""
        torn, self._torn = self._torn, True
        try:
            await self._stream.send(data)
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise ConnectionLostError("The connection broke.") from error
        self._torn = torn


def _lost(error: ssl.SSLError) -> ConnectionLostError:
    reason = (error.reason or "unknown").lower().replace("_", " ")
    return ConnectionLostError(f"TLS ended the connection: {reason}.")
