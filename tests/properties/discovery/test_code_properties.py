from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.errors import RefusedError
from discovery.code import ALPHABET, Code, parse_code

symbols = st.text(alphabet=ALPHABET, min_size=1, max_size=1)
codes = st.builds(
    Code,
    st.text(alphabet=ALPHABET, min_size=4, max_size=4),
    st.text(alphabet=ALPHABET, min_size=2, max_size=2),
    st.text(alphabet=ALPHABET, min_size=11, max_size=11),
)


@given(codes)
def test_round_trip(code):
    assert parse_code(str(code)) == code


@given(codes, st.integers(0, 17), symbols)
def test_one_wrong_symbol_is_always_noticed(code, place, symbol):
    text = str(code).replace("-", "")
    typed = text[:place] + symbol + text[place + 1 :]
    if typed == text:
        assert parse_code(typed) == code
    else:
        with pytest.raises(RefusedError):
            parse_code(typed)


@given(codes, st.integers(0, 17), st.integers(0, 17))
def test_two_exchanged_symbols_are_always_noticed(code, one, two):
    letters = list(str(code).replace("-", ""))
    letters[one], letters[two] = letters[two], letters[one]
    typed = "".join(letters)
    if typed == str(code).replace("-", ""):
        assert parse_code(typed) == code
    else:
        with pytest.raises(RefusedError):
            parse_code(typed)


@given(st.text(max_size=300))
def test_any_text_is_a_code_or_refused(text):
    try:
        code = parse_code(text)
    except RefusedError:
        return
    assert parse_code(str(code)) == code
