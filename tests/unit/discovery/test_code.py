from __future__ import annotations

import pytest

from base.errors import RefusedError
from base.ids import ClusterId, PodId
from discovery.code import NUMBERS, Code, issuer_tag, new_code, number_symbols, parse_code, parse_public

CODE = Code("k7mq", "4f", "x3v9t2hd8wr")


def test_a_code_reads_well_and_back():
    text = str(CODE)
    assert [len(group) for group in text.split("-")] == [4, 2, 4, 4, 4]
    assert text.startswith("k7mq-4f-x3v9-t2hd-8wr")
    assert parse_code(text) == CODE


@pytest.mark.parametrize("change", [str.upper, lambda text: text.replace("-", " "), lambda text: text.replace("-", "")])
def test_case_and_separators_do_not_matter(change):
    assert parse_code(f"  {change(str(CODE))}\n") == CODE


def test_misread_letters_are_forgiven():
    code = Code("k0m1", "10", "x3v9t2h01wr")
    assert parse_code(str(code).replace("0", "O").replace("1", "l")) == code
    assert parse_code(str(code).replace("1", "I")) == code


@pytest.mark.parametrize(
    "text", ["", "-", "abc", str(CODE)[:-1], str(CODE) + "x", "u" * 18, "k7mq" * 100, "kΩmq-4f-x3v9"]
)
def test_what_can_be_no_code_is_refused_with_advice(text):
    with pytest.raises(RefusedError) as caught:
        parse_code(text)
    assert caught.value.exit_code == 4
    assert "wormhole invite" in caught.value.advice
    assert "wormhole join --code" in caught.value.advice


def test_secrets_are_long_and_differ():
    codes = [new_code("k7mq", 3) for _ in range(200)]
    assert len({code.secret for code in codes}) == 200
    assert all(len(code.secret) * 5 >= 45 for code in codes)
    assert len({symbol for code in codes for symbol in code.secret}) == 32


def test_numbers_fill_their_symbols():
    assert len({number_symbols(number) for number in range(NUMBERS)}) == NUMBERS
    with pytest.raises(ValueError):
        number_symbols(NUMBERS)


def test_tags_differ_by_cluster_and_by_pod():
    one, two = "1" * 32, "2" * 32
    tags = {issuer_tag(ClusterId(cluster), PodId(pod)) for cluster in (one, two) for pod in (one, two)}
    assert len(tags) == 4


def test_the_public_part_reads_back():
    assert parse_public(CODE.public) == ("k7mq", "4f")
    for odd in ("", "k7mq4f", "k7mq-4", "k7mq-4fx", "k7mu-4f", "k7mq_4f", None, 7, b"k7mq-4f"):
        assert parse_public(odd) is None
