"""Frames and message tags of the mesh. Pure: bytes in, messages out; every length is bounded.

A frame is ``length (4 bytes, big endian, of what follows) | tag (1 byte) | msgpack body``. Tags are append-only: a
number is never reused, an unknown one is answered with an error and does no harm.

The decoder never allocates more than the announced length of one frame, and refuses a length above the limit of its
kind before it reads the body.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Any, Final, NamedTuple

import msgpack

from base.errors import DamagedError

PROTOCOL_VERSION: Final = 1
OLDEST_VERSION: Final = 1
"""The oldest version that this one still speaks."""

HEADER_BYTES: Final = 5
CONTROL_FRAME_BYTES: Final = 4 << 20
BULK_ANSWER_BYTES: Final = 40 << 20
JOIN_FRAME_BYTES: Final = 16 << 10
LARGE_BYTES: Final = 64 << 10
"""From here on msgpack writes byte strings with a length of four bytes (bin 32)."""

MAX_ARRAY_ITEMS: Final = 1 << 18
MAX_MAP_ITEMS: Final = 1 << 16


class ProtocolError(DamagedError):
    """The other side sent what the protocol doesn't allow; the link is closed."""


class Tag(IntEnum):
    """What a frame says. Append only."""

    # link
    HELLO = 1
    REQUEST = 2
    ANSWER = 3
    FAILURE = 4
    GOODBYE = 5
    READY = 6
    PING = 7
    PONG = 8
    INTRODUCTION = 9
    # join, the only ones allowed without a certificate
    JOIN_START = 10
    JOIN_PAKE = 11
    JOIN_CONFIRM = 12
    JOIN_ADMITTED = 13
    JOIN_REFUSED = 14
    # membership
    ROSTER = 20
    GOSSIP = 21
    CLOCK = 22
    JOIN_REQUESTS = 23
    # replicated log
    LOG_PUSH = 30
    LOG_VECTOR = 31
    LOG_SINCE = 32
    # bytes
    HOLDINGS_SINCE = 40
    HOLDINGS_PUSH = 41
    CHUNK_GET = 42
    MANIFEST_GET = 43
    KEEP = 44
    HOLDING_ASK = 45
    USES = 46
    SPEED = 47
    LODGE = 48
    LODGE_ASK = 49
    # client pods
    OPERATION = 50
    DOING = 51
    # questions of people
    UNPLUG_ASK = 60


JOIN_TAGS: Final = frozenset(
    {Tag.JOIN_START, Tag.JOIN_PAKE, Tag.JOIN_CONFIRM, Tag.JOIN_ADMITTED, Tag.JOIN_REFUSED, Tag.GOODBYE}
)


class Kind(Enum):
    """What sort of connection a decoder reads: it decides the longest frame and the tags allowed."""

    JOIN = "join"
    CONTROL = "control"
    BULK = "bulk"


class Frame(NamedTuple):
    """One decoded frame. ``tag`` is a plain number, since a newer peer may know more tags."""

    tag: int
    body: Any


def limit_bytes(kind: Kind, tag: int) -> int:
    """Return the greatest length of what follows the length field, tag included."""
    if kind is Kind.JOIN:
        return JOIN_FRAME_BYTES
    if kind is Kind.BULK and tag == Tag.ANSWER:
        return BULK_ANSWER_BYTES
    return CONTROL_FRAME_BYTES


def encode(tag: int, body: object, kind: Kind = Kind.CONTROL) -> bytes:
    """Return the frame of a message. Raises `ProtocolError` when the body is too long or can't be packed."""
    try:
        pieces = _pieces(body, 0)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ProtocolError(f"A message can't be sent: {error}.") from error
    length = sum(map(len, pieces)) + 1
    if length > limit_bytes(kind, tag):
        raise ProtocolError(f"A message of {length} bytes is longer than its kind of link carries.")
    return b"".join((length.to_bytes(4, "big"), bytes((tag,)), *pieces))


def _pieces(value: Any, depth: int) -> list[bytes]:
    """Pack a value, large byte strings near the top left alone: msgpack copies them several times (0.7 ms a MiB)."""
    if type(value) is bytes and LARGE_BYTES <= len(value) <= BULK_ANSWER_BYTES:
        return [b"\xc6" + len(value).to_bytes(4, "big"), value]
    if depth < 3 and type(value) in (list, tuple) and len(value) < 16:
        pieces = [bytes((0x90 | len(value),))]
        for item in value:
            pieces += _pieces(item, depth + 1)
        return pieces
    if depth < 3 and type(value) is dict and len(value) < 16:
        pieces = [bytes((0x80 | len(value),))]
        for key, item in value.items():
            pieces += [msgpack.packb(key, use_bin_type=True), *_pieces(item, depth + 1)]
        return pieces
    return [msgpack.packb(value, use_bin_type=True)]


def unpack(data: bytes | bytearray | memoryview) -> Any:
    """Decode one msgpack value with strict limits. Raises `ProtocolError`."""
    size = len(data)
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            use_list=True,
            strict_map_key=True,
            max_str_len=size,
            max_bin_len=size,
            max_array_len=min(size, MAX_ARRAY_ITEMS),
            max_map_len=min(size, MAX_MAP_ITEMS),
            max_ext_len=0,
        )
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError, OverflowError) as error:
        raise ProtocolError("The other side sent a message that can't be read.") from error


class Decoder:
    """Turns a stream of bytes into frames, incrementally and without copying.

    The reader asks for the room `wanted`, puts up to that many bytes there and says with `filled` how many.
    """

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._header = bytearray(HEADER_BYTES)
        self._body: bytearray | None = None
        self._target = memoryview(self._header)
        self._tag = 0

    def wanted(self) -> memoryview:
        """Return the writable room for the bytes that come next; never empty."""
        return self._target

    def filled(self, count: int) -> Frame | None:
        """Say that ``count`` bytes were put into `wanted`; return the frame that they completed, if any.

        Raises `ProtocolError`; the decoder can't be used afterwards.
        """
        self._target = self._target[count:]
        if len(self._target):
            return None
        if self._body is None:
            self._begin_body()
            return None
        return self._end_body(self._body)

    def feed(self, data: bytes) -> list[Frame]:
        """Decode ``data`` and return all frames that it completes. Raises `ProtocolError`."""
        frames: list[Frame] = []
        rest = memoryview(data)
        while rest:
            room = self.wanted()
            count = min(len(room), len(rest))
            room[:count] = rest[:count]
            rest = rest[count:]
            frame = self.filled(count)
            if frame is not None:
                frames.append(frame)
        return frames

    def _begin_body(self) -> None:
        length = int.from_bytes(self._header[:4], "big")
        self._tag = self._header[4]
        if self._kind is Kind.JOIN and self._tag not in JOIN_TAGS:
            raise ProtocolError("A link without a certificate may carry join messages only.")
        if not 2 <= length <= limit_bytes(self._kind, self._tag):
            raise ProtocolError(f"The other side announced a frame of {length} bytes.")
        self._body = bytearray(length - 1)
        self._target = memoryview(self._body)

    def _end_body(self, body: bytearray) -> Frame:
        self._body = None
        self._target = memoryview(self._header)
        return Frame(self._tag, unpack(body))
