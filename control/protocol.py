"""The lines on the control socket, as values. Pure: no sockets here.

A client connects, sends one request and reads replies until the last one::

    → {"op": "import", "args": {"source": "/srv/photos", "path": "/photos"}}
    ← {"event": {"files": 12, ...}}          any number of them
    ← {"result": {...}}                      or {"error": [kind, message, advice, errno]}

Then both close. Every line is bounded; whatever is longer, or is not as above, is a `DamagedError`. Paths are strings
as `os.fsdecode` makes them: bytes that are not UTF-8 travel as JSON escapes of lone surrogates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from base.errors import DamagedError, WormholeError, from_wire, to_wire

REQUEST_LIMIT_BYTES = 256 * 1024
"""The longest request line, its newline included."""

REPLY_LIMIT_BYTES = 16 * 1024 * 1024
"""The longest reply line, its newline included: `where` of a huge file lists all its chunks."""


@dataclass(frozen=True, slots=True)
class Request:
    """One operation that a client asks for."""

    op: str
    args: dict[str, object]


@dataclass(frozen=True, slots=True)
class Event:
    """News about a request under way."""

    body: dict[str, object]


@dataclass(frozen=True, slots=True)
class Result:
    """The last reply: it is done."""

    body: dict[str, object]


@dataclass(frozen=True, slots=True)
class Failure:
    """The last reply: it failed."""

    error: WormholeError


Reply = Event | Result | Failure


def encode_request(request: Request) -> bytes:
    """Return the request's line. Raises `DamagedError` when it is longer than a pod accepts."""
    return _line({"op": request.op, "args": request.args}, REQUEST_LIMIT_BYTES)


def decode_request(line: bytes) -> Request:
    """Return the request of a line. Raises `DamagedError`."""
    match _document(line):
        case {"op": str(op), "args": dict(args), **rest} if not rest:
            return Request(op, args)
    raise DamagedError("The request on the control socket can't be understood.", _SAME_VERSION)


def encode_reply(reply: Reply) -> bytes:
    """Return the reply's line. Raises `DamagedError` when it is longer than a client accepts."""
    body: Mapping[str, object]
    match reply:
        case Event(body=event):
            body = {"event": event}
        case Result(body=result):
            body = {"result": result}
        case Failure(error=error):
            body = {"error": to_wire(error)}
    return _line(body, REPLY_LIMIT_BYTES)


def decode_reply(line: bytes) -> Reply:
    """Return the reply of a line. Raises `DamagedError`."""
    match _document(line):
        case {"event": dict(body), **rest} if not rest:
            return Event(body)
        case {"result": dict(body), **rest} if not rest:
            return Result(body)
        case {"error": list(error), **rest} if not rest:
            return Failure(from_wire(error))
    raise DamagedError("The pod's answer on the control socket can't be understood.", _SAME_VERSION)


_SAME_VERSION = "Check that the command and the running pod are of one version: `wormhole down`, then `wormhole up`."


def _line(document: Mapping[str, object], limit_bytes: int) -> bytes:
    line = json.dumps(document, separators=(",", ":")).encode("ascii") + b"\n"
    if len(line) > limit_bytes:
        raise DamagedError(
            f"A message of {len(line)} bytes is too long for the control socket, which takes {limit_bytes}.",
            "Ask for less at a time.",
        )
    return line


def _document(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
