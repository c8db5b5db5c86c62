"""Whatever arrives, a machine raises only its defined errors, and admits only what is untouched."""

from __future__ import annotations

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from base.errors import DamagedError, RefusedError
from discovery.join_messages import Answer, Refusal, Request, unpack_roster
from discovery.join_protocol import IssuerSide, RefuseError
from mesh.wire import Tag
from tests.unit.discovery.protocol import (
    CERTIFICATE_HASH,
    CLUSTER,
    ISSUER,
    Conversation,
    a_code,
    a_joiner,
    a_request,
)

CODE = a_code()
DEFINED = (DamagedError, RefusedError, RefuseError)

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=40) | st.binary(max_size=64),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)
tags = st.sampled_from(sorted(Tag)) | st.integers(0, 255)
KEYS = ["version", "code", "request", "signature", "pake", "cluster", "pod", "proof", "answer", "page", "reason"]


class SameError(Exception):
    """The change changed nothing."""


def mutate(data, body):
    """Return another body: a key dropped or replaced, or one byte of a value flipped."""
    key = data.draw(st.sampled_from(sorted(body)))
    how = data.draw(st.sampled_from(["drop", "replace", "flip", "cut"]))
    value = body[key]
    changed = dict(body)
    if how == "drop":
        del changed[key]
    elif how == "flip" and isinstance(value, bytes) and value:
        place = data.draw(st.integers(0, len(value) - 1))
        mask = data.draw(st.integers(1, 255))
        changed[key] = value[:place] + bytes([value[place] ^ mask]) + value[place + 1 :]
    elif how == "cut" and isinstance(value, bytes | str):
        changed[key] = value[: data.draw(st.integers(0, len(value)))]
    else:
        changed[key] = data.draw(values)
    if changed == body and [type(changed.get(k)) for k in body] == [type(v) for v in body.values()]:
        raise SameError
    return changed


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_one_changed_message_never_admits(data):
    target = data.draw(st.integers(0, 5))
    changed = False

    def alter(place, tag, body):
        nonlocal changed
        if place != target:
            return tag, body
        changed = True
        if data.draw(st.booleans()):
            return tag, mutate(data, body)
        return data.draw(tags.filter(lambda other: other != tag)), body

    conversation = Conversation(a_joiner(CODE), CODE, alter)
    try:
        admission = conversation.run()
    except DEFINED:
        admission = None
    except SameError:
        return
    assert changed
    if admission is not None:
        raise AssertionError("a changed message was accepted")
    if target < 3:
        assert not conversation.admitted


@settings(max_examples=200, deadline=None)
@given(tags, values | st.dictionaries(st.sampled_from(KEYS), values, max_size=8))
def test_the_joiner_survives_anything(tag, body):
    for code in (CODE, None):
        joiner = a_joiner(code)
        joiner.start()
        try:
            outcome = joiner.receive(tag, body)
        except DEFINED:
            continue
        assert outcome is None or isinstance(outcome, tuple)


@settings(max_examples=200, deadline=None)
@given(tags, values | st.dictionaries(st.sampled_from(KEYS), values, max_size=8))
def test_the_issuer_survives_anything(tag, body):
    side = IssuerSide(CLUSTER, ISSUER, CERTIFICATE_HASH)
    try:
        side.start(tag, body)
    except DEFINED:
        pass
    else:
        raise AssertionError("garbage was taken for a request")
    waiting = IssuerSide(CLUSTER, ISSUER, CERTIFICATE_HASH)
    waiting.start(*a_joiner(CODE).start())
    waiting.challenge(CODE)
    try:
        waiting.confirm(tag, body)
    except DEFINED:
        return
    assert not waiting.proved()


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=33, max_size=33))
def test_any_pake_message_is_read_or_refused(message):
    side = IssuerSide(CLUSTER, ISSUER, CERTIFICATE_HASH)
    tag, body = a_joiner(CODE).start()
    side.start(tag, {**body, "pake": message})
    try:
        side.challenge(CODE)
    except DEFINED:
        return
    side.confirm(Tag.JOIN_CONFIRM, {"proof": bytes(32)})
    assert not side.proved()


@given(st.binary(max_size=300) | values.map(lambda value: msgpack.packb(value, use_bin_type=True)))
def test_packed_values_are_read_or_damaged(data):
    for read in (Request.unpack, Answer.unpack, unpack_roster):
        try:
            read(data)
        except DamagedError:
            continue


@given(values | st.dictionaries(st.sampled_from(["reason", "cluster", "pod", "address", "left"]), values))
def test_a_refusal_can_always_be_read(body):
    refusal = Refusal.read(body)
    assert refusal.pod_name == "" or refusal.pod_name.isprintable()


def test_requests_and_answers_read_back():
    request = a_request()
    assert Request.unpack(request.pack()) == request
