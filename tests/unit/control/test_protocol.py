"""The lines of the control socket: inverse both ways, and nothing else is accepted."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.errors import ConfigError, DamagedError, FileSystemError, RefusedError
from control.protocol import (
    REQUEST_LIMIT_BYTES,
    Event,
    Failure,
    Request,
    Result,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)

names = st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | names,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=10,
)
bodies = st.dictionaries(names, values, max_size=5)


@given(op=names, args=bodies)
def test_requests_arrive_as_sent(op: str, args: dict[str, object]) -> None:
    line = encode_request(Request(op, args))
    assert line.count(b"\n") == 1
    assert decode_request(line) == Request(op, args)


@given(body=bodies)
def test_events_and_results_arrive_as_sent(body: dict[str, object]) -> None:
    assert decode_reply(encode_reply(Event(body))) == Event(body)
    assert decode_reply(encode_reply(Result(body))) == Result(body)


def test_an_error_keeps_kind_message_advice_and_errno() -> None:
    match decode_reply(encode_reply(Failure(RefusedError("No.", "Ask.", errno=13)))):
        case Failure(error=error):
            assert type(error) is RefusedError
            assert (error.message, error.advice, error.errno) == ("No.", "Ask.", 13)
        case other:
            pytest.fail(f"{other}")


def test_every_line_of_a_configuration_error_arrives() -> None:
    match decode_reply(encode_reply(Failure(ConfigError("a.toml:1: x: no\na.toml:2: y: no")))):
        case Failure(error=error):
            assert error.message.splitlines() == ["a.toml:1: x: no", "a.toml:2: y: no"]
        case other:
            pytest.fail(f"{other}")


def test_a_file_system_error_travels_as_its_base() -> None:
    match decode_reply(encode_reply(Failure(FileSystemError(2)))):
        case Failure(error=error):
            assert error.errno == 2
        case other:
            pytest.fail(f"{other}")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[]\n",
        b"null\n",
        b"\xff\xfe\n",
        b'{"op": 1, "args": {}}\n',
        b'{"op": "x", "args": []}\n',
        b'{"op": "x"}\n',
        b'{"op": "x", "args": {}, "more": 1}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_nonsense_is_no_request(line: bytes) -> None:
    with pytest.raises(DamagedError):
        decode_request(line)


@pytest.mark.parametrize("line", [b"{}\n", b'{"result": 1}\n', b'{"event": {}, "result": {}}\n', b'{"error": "x"}\n'])
def test_nonsense_is_no_reply(line: bytes) -> None:
    with pytest.raises(DamagedError):
        decode_reply(line)


def test_an_error_of_another_form_is_damage_and_not_a_crash() -> None:
    match decode_reply(json.dumps({"error": ["Nope", 1]}).encode()):
        case Failure(error=error):
            assert type(error) is DamagedError
        case other:
            pytest.fail(f"{other}")


def test_a_request_is_bounded() -> None:
    with pytest.raises(DamagedError, match="too long"):
        encode_request(Request("x", {"path": "a" * REQUEST_LIMIT_BYTES}))
