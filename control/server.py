"""The pod's end of the control socket: accepts, checks who asks, runs one handler a connection.

Must never let a client hold the pod up: lines, connections and waits are bounded, and a client that goes away, or that
does not read, ends its own handler only.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import anyio
from anyio.abc import SocketAttribute, SocketListener, SocketStream, TaskStatus
from anyio.streams.buffered import BufferedByteReceiveStream

from base.errors import DamagedError, MachineError, RefusedError, UnreachableError, UsageError, WormholeError
from control.address import reachable
from control.protocol import (
    REQUEST_LIMIT_BYTES,
    Event,
    Failure,
    Reply,
    Request,
    Result,
    decode_request,
    encode_reply,
)

Emit = Callable[[dict[str, object]], Awaitable[None]]
"""Sends news to the client; waits while the client is slow."""

Handler = Callable[[dict[str, object], Emit], Awaitable[dict[str, object]]]
"""Does one operation. A `WormholeError` reaches the client as it is; of any other exception it gets one sentence, and
the traceback is in the log."""

CONNECTION_LIMIT = 64
"""Commands served at a time; further ones are told to try again."""

REQUEST_S = 10.0
"""A client that has not sent its request by then is let go."""

SEND_S = 30.0
"""A client that does not take a reply for so long is let go."""

_BACKLOG = 64
_PARTING_S = 5.0

_GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)

_log = logging.getLogger(__name__)


async def serve(
    path: Path,
    handlers: Mapping[str, Handler],
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``handlers`` on the Unix socket ``path`` (mode 0600) until cancelled; reports started when listening.

    Whoever calls holds the home's lock: a socket that lies there is a dead pod's and is replaced.
    Raises `MachineError` when the socket can't be made.
    """
    listener = await SocketListener.from_socket(_listening(path))
    server = _Server(handlers)
    try:
        async with listener, anyio.create_task_group() as group:
            task_status.started()
            await listener.serve(server.connection, group)
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Set before bind, the mode is the socket file's from its first moment on; nobody else's umask is touched.
        os.fchmod(listener.fileno(), 0o600)
        path.unlink(missing_ok=True)
        with reachable(path) as short_path:
            listener.bind(short_path)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise MachineError(
            f"The control socket {path} can't be made: {error.strerror}.", "Check the rights and the disk of the home."
        ) from error
    return listener


class _Server:
    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._connections = 0

    async def connection(self, stream: SocketStream) -> None:
        self._connections += 1
        try:
            async with stream:
                await self._converse(stream)
        except _GONE:
            pass
        except Exception:
            _log.exception("a control connection failed")
        finally:
            self._connections -= 1

    async def _converse(self, stream: SocketStream) -> None:
        try:
            _check_user(stream)
            if self._connections > CONNECTION_LIMIT:
                raise UnreachableError("The pod has too many commands to serve at once.", "Try again in a moment.")
            request, receiver = await _request(stream)
            handler = self._handlers.get(request.op)
            if handler is None:
                raise UsageError(
                    f"The running pod does not know the operation {request.op[:40]!r}.",
                    "Restart it with the version of this command: `wormhole down`, then `wormhole up`.",
                )
        except WormholeError as error:
            await _send(stream, Failure(error))
            return
        async with anyio.create_task_group() as group:
            group.start_soon(_until_gone, receiver, group.cancel_scope)
            with suppress(*_GONE):
                reply = await _run(request, handler, stream)
                # The operation may be the one that stops the pod: its answer still gets out.
                with anyio.move_on_after(_PARTING_S, shield=True):
                    await _send(stream, reply)
            group.cancel_scope.cancel()


async def _run(request: Request, handler: Handler, stream: SocketStream) -> Reply:
    async def emit(body: dict[str, object]) -> None:
        await _send(stream, Event(body))

    try:
        return Result(await handler(request.args, emit))
    except WormholeError as error:
        return Failure(error)
    except _GONE:
        raise
    except Exception:
        _log.exception("the operation %r failed", request.op)
        return Failure(
            WormholeError(f"The pod failed at {request.op!r} in a way it did not foresee.", "Its log has the details.")
        )


async def _request(stream: SocketStream) -> tuple[Request, BufferedByteReceiveStream]:
    receiver = BufferedByteReceiveStream(stream)
    line = b""
    with anyio.move_on_after(REQUEST_S) as scope:
        try:
            line = await receiver.receive_until(b"\n", REQUEST_LIMIT_BYTES)
        except anyio.DelimiterNotFound:
            raise DamagedError("The request is too long for the control socket.", "Ask for less at a time.") from None
        except anyio.IncompleteRead:
            raise DamagedError("The request on the control socket has no end.", "Send one line.") from None
    if scope.cancelled_caught:
        raise UnreachableError("No request came on the control socket in time.", "Send it at once.")
    return decode_request(line), receiver


async def _until_gone(receiver: BufferedByteReceiveStream, scope: anyio.CancelScope) -> None:
    """Cancel ``scope`` when the client closes; what it sends after its request is read and dropped."""
    with suppress(*_GONE):
        while True:
            await receiver.receive()
    scope.cancel()


async def _send(stream: SocketStream, reply: Reply) -> None:
    try:
        line = encode_reply(reply)
    except DamagedError as error:
        line = encode_reply(Failure(error))
    with anyio.move_on_after(SEND_S) as scope:
        await stream.send(line)
    if scope.cancelled_caught:
        raise anyio.BrokenResourceError


def _check_user(stream: SocketStream) -> None:
    """Refuse users other than the pod's own and root; the socket's mode already does, on a sane file system."""
    raw: socket.socket = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 (not Django)
    credentials = raw.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", credentials)
    if uid not in {0, os.geteuid()}:
        raise RefusedError("This pod belongs to another user.", "Run the command as the user who started it.")
