"""Every decoder of what comes over a network or the control socket takes anything, and refuses it in its own words.

Two kinds of anything: values of any shape, and the messages of the golden files with some bytes changed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from base.errors import DamagedError, UsageError, WormholeError, from_wire
from base.ids import PodId, WriterId
from control.protocol import decode_reply, decode_request
from mesh import gossip_messages, log_messages, records
from mesh.address import parse_address
from mesh.antientropy import AntiEntropy, Fetch, page_entries, parse_since
from mesh.api import Lane
from mesh.broadcast import Broadcast
from mesh.handshake import read_hello, read_ids, read_page
from mesh.identity import read_certificate
from mesh.membership import Membership, MembershipSettings
from mesh.pushes import pushed_entries
from mesh.wire import Decoder, Frame, Kind, ProtocolError, Tag, unpack
from tests.golden.make import FORMS
from tests.unit.mesh_cores.test_membership_parts import VALUES

HERE, THERE, WRITER = PodId("0" * 32), PodId("1" * 32), WriterId(b"writer-1")
FETCH = Fetch(1, THERE, WRITER, 5, 1000, 1.0)
MESSAGES = [path.read_bytes() for path in sorted(FORMS.glob("message-1-*.bin"))]
RECORDS = [path.read_bytes() for path in sorted(FORMS.glob("roster-1-*.bin"))]


def feed(kind: Kind, data: bytes) -> object:
    return Decoder(kind).feed(data)


OF_VALUES: dict[str, tuple[Callable[[Any], object], type[Exception] | tuple[type[Exception], ...]]] = {
    "gossip": (gossip_messages.decode, gossip_messages.MalformedError),
    "push": (log_messages.decode_push, log_messages.MalformedError),
    "vector": (log_messages.decode_vector, log_messages.MalformedError),
    "since": (log_messages.decode_since, log_messages.MalformedError),
    "page": (lambda value: log_messages.decode_page(value, WRITER, 5), log_messages.MalformedError),
    "hello": (lambda value: read_hello(Frame(Tag.HELLO, value)), ProtocolError),
    "goodbye": (lambda value: read_hello(Frame(Tag.GOODBYE, value)), WormholeError),
    "ids": (lambda value: read_ids(Frame(Tag.ROSTER, value)), ProtocolError),
    "records": (lambda value: read_page(Frame(Tag.ROSTER, value)), ProtocolError),
    "error": (from_wire, ()),
    "pushed": (pushed_entries, ()),
    "asked": (parse_since, ()),
    "fetched": (lambda value: page_entries(value, FETCH), ()),
}

OF_BYTES: dict[str, tuple[Callable[[bytes], object], type[Exception]]] = {
    "msgpack": (unpack, ProtocolError),
    "record": (records.decode, DamagedError),
    "certificate": (read_certificate, WormholeError),
    "request": (decode_request, DamagedError),
    "reply": (decode_reply, DamagedError),
    "address": (lambda data: parse_address(data.decode("utf-8", "surrogateescape")), UsageError),
    **{f"frames {kind.value}": (partial(feed, kind), ProtocolError) for kind in Kind},
}


def take(decode: Callable[[Any], object], refusal: Any, anything: object) -> None:
    with contextlib.suppress(refusal):
        decode(anything)


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """One of the originals with bytes changed, put in, or left out."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.integers(0, 2)):
            case 0:
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                data[at:at] = draw(st.binary(min_size=1, max_size=8))
            case _:
                del data[at : at + draw(st.integers(1, 8))]
    return bytes(data)


@st.composite
def reshaped(draw: st.DrawFn) -> object:
    """The body of an original with one field, at any depth and also in packed records, replaced by anything."""

    def inside(value: object) -> object:
        if isinstance(value, list) and value and draw(st.integers(0, 5)):
            at = draw(st.integers(0, len(value) - 1))
            return [*value[:at], inside(value[at]), *value[at + 1 :]]
        record = unpacked(value)
        if isinstance(record, list):
            with contextlib.suppress(OverflowError):  # numbers beyond 64 bits can't be packed
                return msgpack.packb(inside(record))
        return draw(VALUES | st.binary(max_size=3000) | st.integers())

    return inside(value_of(draw(st.sampled_from(MESSAGES))))


def unpacked(value: object) -> object:
    try:
        return msgpack.unpackb(value) if isinstance(value, bytes) else None
    except Exception:
        return None


def value_of(frame: bytes) -> object:
    """The body of a frame, as far as it can be unpacked."""
    try:
        return msgpack.unpackb(frame[5:], strict_map_key=False)
    except Exception:
        return None


@pytest.mark.parametrize("name", OF_VALUES)
@settings(max_examples=150, deadline=None)
@given(anything=VALUES | st.lists(VALUES, max_size=5) | mutated(MESSAGES).map(value_of) | reshaped())
def test_values(name: str, anything: object) -> None:
    take(*OF_VALUES[name], anything)


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, 7), anything=VALUES | st.binary(max_size=5000) | st.integers())
def test_any_field_of_a_record_or_an_accusation(at: int, anything: object) -> None:
    ping: Any = value_of((FORMS / "message-1-gossip-ping.bin").read_bytes())
    record, accusation = msgpack.unpackb(ping[2][0]), list(ping[2][1])
    record[at % len(record)] = accusation[at % len(accusation)] = anything
    for update in (packed(record), accusation):
        take(gossip_messages.decode, gossip_messages.MalformedError, [5, [update]])


def packed(value: object) -> bytes:
    try:
        return bytes(msgpack.packb(value))
    except (ValueError, OverflowError):
        return b""


@pytest.mark.parametrize("name", OF_BYTES)
@settings(max_examples=150, deadline=None)
@given(
    anything=st.binary(max_size=200)
    | mutated([*MESSAGES, *RECORDS])
    | VALUES.map(lambda value: json.dumps(value, default=repr).encode() + b"\n")
)
def test_bytes(name: str, anything: bytes) -> None:
    take(*OF_BYTES[name], anything)


@settings(max_examples=100, deadline=None)
@given(st.lists(VALUES | mutated(MESSAGES).map(value_of) | reshaped(), max_size=20))
def test_cores_take_anything_from_a_member_and_stay_bounded(said: list[object]) -> None:
    membership = Membership(HERE, MembershipSettings(), Random(1), 5)
    membership.set_members([HERE, THERE], 0.0)
    membership.link_up(THERE, 0.0)
    broadcast, anti_entropy = Broadcast(HERE, Random(1)), AntiEntropy(HERE, Random(1))
    broadcast.link_up(THERE, 0.0)
    anti_entropy.link_up(THERE, {}, 0.0)
    for step, message in enumerate(said):
        now = step / 10
        sends = membership.receive(THERE, message, now) + membership.tick(now)
        sends += broadcast.received(THERE, message, [], {}, now) + broadcast.tick({}, now)
        sends += anti_entropy.on_vector(THERE, message, {}, now).sends
        assert all(len(msgpack.packb(send.message)) < 64 * 1024 for send in sends)
    assert len(membership.complaints()) <= 32
    assert len(broadcast.complaints()) <= 32
    assert set(membership.census.records) <= {THERE}


@pytest.mark.parametrize("kind", Kind)
def test_no_decoder_reserves_room_for_more_than_its_kind_of_link_carries(kind: Kind) -> None:
    for tag in (Tag.JOIN_START, Tag.ANSWER, Tag.GOODBYE):
        decoder = Decoder(kind)
        with pytest.raises(ProtocolError):
            decoder.feed((0xFFFF_FFFF).to_bytes(4, "big") + bytes([tag]))


def test_the_golden_files_are_there() -> None:
    assert len(MESSAGES) > 15
    assert len(RECORDS) > 5
    assert Path(FORMS).is_dir()
    assert Lane.CONTROL.value == "control"
