"""The command's end of the control socket: synchronous, standard library only, so that a command starts fast."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from base.errors import DamagedError, NotRunningError, UnreachableError
from base.home import Home
from control.address import reachable
from control.protocol import (
    REPLY_LIMIT_BYTES,
    Event,
    Failure,
    Reply,
    Request,
    Result,
    decode_reply,
    encode_request,
)

_CONNECT_S = 5.0
_RECEIVE_BYTES = 64 * 1024


def call(
    home: Home,
    op: str,
    args: Mapping[str, object] | None = None,
    on_event: Callable[[dict[str, object]], None] | None = None,
    *,
    timeout_s: float | None = 30.0,
) -> dict[str, object]:
    """Ask the running pod of ``home`` for ``op`` and return the result's keys.

    ``on_event`` gets the news on the way. ``timeout_s`` is the longest silence of the pod (None: for ever).
    Leaving by an exception, `KeyboardInterrupt` too, closes the connection, and so the pod stops working on it.

    Raises `NotRunningError` when nobody listens, `UnreachableError` when the pod is silent for too long or goes away,
    `DamagedError` when it answers nonsense, and whatever error the pod answers.
    """
    request = encode_request(Request(op, dict(args or {})))
    with _connect(home) as connection:
        with suppress(OSError):  # a pod that refuses at once closes early: its reason can still be read
            connection.sendall(request)
        replies = _Replies(home, connection, timeout_s)
        while True:
            match replies.next():
                case Event(body=body):
                    if on_event is not None:
                        on_event(body)
                case Result(body=body):
                    return body
                case Failure(error=failure):
                    raise failure


def _connect(home: Home) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_CONNECT_S)
    try:
        with reachable(home.socket) as path:
            connection.connect(path)
    except TimeoutError:
        connection.close()
        raise _silent(home, _CONNECT_S) from None
    except BlockingIOError:
        connection.close()
        raise UnreachableError(
            f"The pod of {home.path} has too many commands waiting.", "Try again in a moment."
        ) from None
    except PermissionError:
        connection.close()
        raise NotRunningError(
            f"The pod of {home.path} belongs to another user.", "Run the command as the user who started it."
        ) from None
    except OSError:
        connection.close()
        raise not_running(home) from None
    return connection


class _Replies:
    """Reads lines, never more than one reply's limit."""

    def __init__(self, home: Home, connection: socket.socket, timeout_s: float | None) -> None:
        self._home = home
        self._connection = connection
        self._timeout_s = timeout_s
        self._buffer = bytearray()

    def next(self) -> Reply:
        """Return the next reply."""
        deadline = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > REPLY_LIMIT_BYTES:
                raise DamagedError(
                    "The pod's answer is too long.", "Check that the command and the pod are of one version."
                )
            self._buffer += self._receive(deadline)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return decode_reply(line)

    def _receive(self, deadline: float | None) -> bytes:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise _silent(self._home, self._timeout_s)
        self._connection.settimeout(left)
        try:
            data = self._connection.recv(_RECEIVE_BYTES)
        except TimeoutError:
            raise _silent(self._home, self._timeout_s) from None
        except OSError as error:
            raise _gone(self._home) from error
        if not data:
            raise _gone(self._home)
        return data


def not_running(home: Home) -> NotRunningError:
    """Return the error that says so, and what to do."""
    return NotRunningError(f"The pod of {home.path} is not running.", "Start it with `wormhole up`.")


def _silent(home: Home, timeout_s: float | None) -> UnreachableError:
    return UnreachableError(
        f"The pod of {home.path} did not answer within {timeout_s:g} s.", f"Its log is {home.log}; try again."
    )


def _gone(home: Home) -> UnreachableError:
    return UnreachableError(
        f"The pod of {home.path} went away in the middle of its answer.", f"Its log is {home.log}; see `wormhole up`."
    )
