from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from base.errors import DamagedError, RefusedError
from discovery.code import Code
from discovery.join_messages import ROSTER_BYTES, Reason, Refusal
from discovery.join_protocol import JoinRefusedError, RefuseError
from mesh.join_stream import MAX_ANSWER_FRAMES
from mesh.wire import JOIN_FRAME_BYTES, Kind, Tag, encode
from tests.unit.discovery.protocol import (
    ISSUER,
    ROSTER,
    Conversation,
    a_code,
    a_joiner,
    an_answer,
)


def test_with_the_right_code_both_sides_agree():
    code = a_code()
    conversation = Conversation(a_joiner(code), code)
    admission = conversation.run()
    assert admission is not None
    assert admission.roster == tuple(ROSTER)
    assert replace(admission.answer, roster_length=0, roster_hash=b"") == an_answer()


def test_without_a_code_the_answer_is_taken_as_it_is():
    admission = Conversation(a_joiner(None), None).run()
    assert admission is not None
    assert admission.roster == tuple(ROSTER)


def test_a_wrong_secret_convinces_nobody():
    code = a_code()
    other = Code(code.tag, code.number, a_code().secret)
    conversation = Conversation(a_joiner(other), code)
    assert conversation.run() is None
    assert not conversation.admitted


def test_an_issuer_with_another_secret_is_refused_by_the_joiner():
    code = a_code()
    joiner = a_joiner(code)
    conversation = Conversation(joiner, Code(code.tag, code.number, a_code().secret))
    assert conversation.run() is None
    with pytest.raises(RefusedError, match="could not prove"):
        joiner.receive(Tag.JOIN_ADMITTED, {"answer": an_answer().pack(), "proof": bytes(32)})


def test_another_certificate_in_between_is_seen_at_once():
    code = a_code()
    with pytest.raises(RefuseError) as caught:
        Conversation(a_joiner(code, b"m" * 32), code).run()
    assert caught.value.refusal.reason is Reason.ALTERED


def test_a_man_in_the_middle_with_a_request_of_his_own_fails_the_proof():
    """He signs a request with his own key for the issuer's certificate, and passes the rest of the exchange on."""
    code, his_key = a_code(), Ed25519PrivateKey.generate()
    his_start = a_joiner(code, key=his_key).start()[1]

    def alter(place, tag, body):
        if place == 0:
            return tag, {**body, "request": his_start["request"], "signature": his_start["signature"]}
        return tag, body

    conversation = Conversation(a_joiner(code), code, alter)
    assert conversation.run() is None
    assert not conversation.admitted


def test_a_man_in_the_middle_with_the_joiners_signature_replaced_by_certificate():
    """Even an issuer that skipped the signature would see another transcript."""
    code = a_code()
    joiner = a_joiner(code, b"m" * 32)
    honest = a_joiner(code).start()[1]

    def alter(place, tag, body):
        return (tag, {**body, "signature": honest["signature"]}) if place == 0 else (tag, body)

    conversation = Conversation(joiner, code, alter)
    assert conversation.run() is None
    assert not conversation.admitted


def test_a_changed_answer_is_noticed():
    code = a_code()
    changed = replace(an_answer(), pod_name="other")

    def alter(place, tag, body):
        if place == 3:
            packed = replace(changed, roster_length=1, roster_hash=bytes(32)).pack()
            return tag, {**body, "answer": packed}
        return tag, body

    with pytest.raises(RefusedError):
        Conversation(a_joiner(code), code, alter).run()


def test_a_changed_roster_is_noticed():
    code = a_code()

    def alter(place, tag, body):
        if place == 5:
            return tag, {"page": body["page"][:-1] + b"!"}
        return tag, body

    with pytest.raises(DamagedError):
        Conversation(a_joiner(code), code, alter).run()


def test_the_code_must_be_that_of_the_pod_that_answers():
    code = a_code()

    def alter(place, tag, body):
        return (tag, {**body, "pod": "0" * 32}) if place == 1 else (tag, body)

    with pytest.raises(RefusedError):
        Conversation(a_joiner(code), code, alter).run()


def test_a_code_can_not_be_taken_out_of_a_request():
    code = a_code()

    def alter(place, tag, body):
        return (tag, {**body, "code": ""}) if place == 0 else (tag, body)

    with pytest.raises(RefuseError) as caught:
        Conversation(a_joiner(code), code, alter).run()
    assert caught.value.refusal.reason is Reason.ALTERED


def test_another_version_is_refused_clearly():
    code = a_code()

    def alter(place, tag, body):
        return tag, {**body, "version": 99}

    with pytest.raises(RefuseError) as caught:
        Conversation(a_joiner(code), code, alter).run()
    assert caught.value.refusal.reason is Reason.VERSION


def test_a_refusal_carries_reasons_and_checked_values_only():
    joiner = a_joiner(a_code())
    joiner.start()
    refusal = Refusal(Reason.WRONG_CODE, "home", "laptop", attempts_left=2)
    with pytest.raises(JoinRefusedError) as caught:
        joiner.receive(*refusal.message())
    assert caught.value.refusal == refusal
    hostile = {"reason": "no-such", "pod": "\x1b[2J", "cluster": 7, "address": "nowhere", "left": -4}
    assert Refusal.read(hostile) == Refusal(Reason.FAILED)
    assert Refusal.read(["not", "a", "dict"]) == Refusal(Reason.FAILED)


def test_a_finished_machine_takes_nothing_more():
    joiner = a_joiner(a_code())
    joiner.start()
    with pytest.raises(DamagedError):
        joiner.receive(Tag.JOIN_ADMITTED, {})
    with pytest.raises(DamagedError):
        joiner.receive(Tag.JOIN_PAKE, {"cluster": "c" * 32, "pod": ISSUER, "pake": bytes(33)})


def test_the_secret_is_never_sent_nor_shown():
    code = a_code()
    spoken = []

    def alter(place, tag, body):
        spoken.append(encode(tag, body, Kind.JOIN))
        return tag, body

    Conversation(a_joiner(code), code, alter).run()
    assert not any(code.secret.encode() in frame for frame in spoken)
    assert code.secret not in repr(code)
    assert code.password not in b"".join(spoken)


def test_every_message_fits_the_frames_of_a_join():
    code = a_code()
    frames: list[bytes] = []

    def alter(place, tag, body):
        frames.append(encode(tag, body, Kind.JOIN))
        return tag, body

    Conversation(a_joiner(code), code, alter).run()
    longest = replace(an_answer(), addresses=tuple((f"{'a' * 250}:65535", ISSUER) for _ in range(16)))
    side = Conversation(a_joiner(None), None)
    side.issuer.start(*side.joiner.start())
    full = side.issuer.admit(longest, [b"r" * (ROSTER_BYTES - 4)])
    frames += [encode(tag, body, Kind.JOIN) for tag, body in full]
    assert all(len(frame) <= JOIN_FRAME_BYTES + 4 for frame in frames)
    assert len(full) + 1 <= MAX_ANSWER_FRAMES, "the answer to START is sent on the same connection"
