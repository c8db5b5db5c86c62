"""Wishes that stand at a file."""

from __future__ import annotations

import pytest

from policies.forms import MAX_COPIES
from policies.wishes import COPIES, KEEP, NONE, Wish, normal, wish_of


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        (COPIES, b"3", b"3"),
        (COPIES, b" 07\n", b"7"),
        (COPIES, str(MAX_COPIES).encode(), str(MAX_COPIES).encode()),
        (KEEP, b"1", b"1"),
        (KEEP, b"True\0", b"1"),
        (KEEP, b"false", b"0"),
    ],
)
def test_what_can_be_said(name, value, stored):
    assert normal(name, value) == stored


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (COPIES, b""),
        (COPIES, b"0"),
        (COPIES, b"-1"),
        (COPIES, b"two"),
        (COPIES, b"1.5"),
        (COPIES, "²".encode()),
        (COPIES, str(MAX_COPIES + 1).encode()),
        (COPIES, b"9" * 5000),
        (KEEP, b""),
        (KEEP, b"2"),
        (KEEP, b"yes"),
    ],
)
def test_what_can_t_be_said(name, value):
    with pytest.raises(ValueError, match="must be"):
        normal(name, value)


def test_what_is_said_counts_and_what_can_t_be_read_says_nothing():
    assert wish_of({}) == NONE
    assert wish_of({COPIES: b"3", KEEP: b"0"}) == Wish(copies=3, keep=False)
    assert wish_of({COPIES: b"many", KEEP: b"1", b"user.wormhole.other": b"x"}) == Wish(keep=True)
