import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.wire import (
    BULK_ANSWER_BYTES,
    CONTROL_FRAME_BYTES,
    JOIN_FRAME_BYTES,
    LARGE_BYTES,
    Decoder,
    Kind,
    ProtocolError,
    Tag,
    encode,
    unpack,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text() | st.binary(), inner, max_size=20),
    max_leaves=30,
)


@given(st.lists(st.tuples(st.sampled_from(Tag), values), max_size=5), st.lists(st.integers(1, 50)))
def test_frames_survive_any_cutting(messages: list[tuple[Tag, object]], cuts: list[int]) -> None:
    data = b"".join(encode(tag, body) for tag, body in messages)
    decoder = Decoder(Kind.CONTROL)
    frames = []
    for cut in cuts:
        frames += decoder.feed(data[:cut])
        data = data[cut:]
    frames += decoder.feed(data)
    assert [(frame.tag, frame.body) for frame in frames] == messages


@given(values, st.integers(0, 3))
def test_large_bytes_are_packed_as_msgpack_does(value: object, depth: int) -> None:
    large = bytes(LARGE_BYTES)
    body: object = [large, value]
    for _ in range(depth):
        body = {"x": body, b"y": large}
    assert encode(Tag.ANSWER, body)[5:] == msgpack.packb(body, use_bin_type=True)


@given(st.binary(max_size=300), st.sampled_from(Kind))
def test_garbage_is_refused_or_decoded_but_nothing_else(data: bytes, kind: Kind) -> None:
    decoder = Decoder(kind)
    try:
        decoder.feed(data)
    except ProtocolError:
        return
    assert len(decoder.wanted()) <= BULK_ANSWER_BYTES


@given(st.binary(max_size=100))
def test_unpacking_garbage_raises_one_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        unpack(data)


@pytest.mark.parametrize(
    ("kind", "tag", "limit"),
    [
        (Kind.JOIN, Tag.JOIN_START, JOIN_FRAME_BYTES),
        (Kind.CONTROL, Tag.ANSWER, CONTROL_FRAME_BYTES),
        (Kind.BULK, Tag.REQUEST, CONTROL_FRAME_BYTES),
        (Kind.BULK, Tag.ANSWER, BULK_ANSWER_BYTES),
    ],
)
def test_lengths_are_bounded_before_the_body_is_read(kind: Kind, tag: Tag, limit: int) -> None:
    Decoder(kind).feed(limit.to_bytes(4, "big") + bytes((tag,)))
    with pytest.raises(ProtocolError):
        Decoder(kind).feed((limit + 1).to_bytes(4, "big") + bytes((tag,)))
    with pytest.raises(ProtocolError):
        encode(tag, bytes(limit), kind)


def test_a_stranger_may_send_join_messages_only() -> None:
    with pytest.raises(ProtocolError):
        Decoder(Kind.JOIN).feed(encode(Tag.HELLO, {}))


def test_bombs_are_refused() -> None:
    for bomb in (b"\xdd\xff\xff\xff\xff", b"\x91" * 100_000, b"\xc7\x01\x05x", b"\xd4\x01x", b"\x81\x91\x01\x02"):
        with pytest.raises(ProtocolError):
            unpack(bomb)


def test_tags_are_never_renumbered() -> None:
    assert {tag.name: int(tag) for tag in Tag}.items() >= {
        "HELLO": 1,
        "REQUEST": 2,
        "ANSWER": 3,
        "FAILURE": 4,
        "GOODBYE": 5,
        "READY": 6,
        "PING": 7,
        "PONG": 8,
        "INTRODUCTION": 9,
        "JOIN_START": 10,
        "JOIN_REFUSED": 14,
        "ROSTER": 20,
        "GOSSIP": 21,
        "CLOCK": 22,
        "LOG_PUSH": 30,
        "LOG_VECTOR": 31,
        "LOG_SINCE": 32,
        "HOLDINGS_SINCE": 40,
        "HOLDING_ASK": 45,
        "DOING": 51,
        "UNPLUG_ASK": 60,
    }.items()
