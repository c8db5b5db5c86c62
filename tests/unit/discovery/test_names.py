from __future__ import annotations

import pytest

from base.errors import UsageError
from discovery.names import LONGEST_NAME_BYTES, checked_name, free_name, is_name, name_from_host
from mesh import records


@pytest.mark.parametrize("name", ["home", "nas-2", "Büro", "a", "a.b_c", "x" * 63, "東京", "7"])
def test_good_names(name):
    assert is_name(name)
    assert records.is_name(name), "the records must carry whatever is allowed here"


@pytest.mark.parametrize(
    "name",
    ["", "-a", ".hidden", "a b", "a/b", "..", "x" * 64, "é" * 32, "a\n", "\x1b[0m", "e\u0301", "a\ud800", 7, None],
)
def test_bad_names(name):
    assert not is_name(name)


def test_a_bad_name_is_wrong_usage_and_says_what_to_take():
    with pytest.raises(UsageError, match="Take letters"):
        checked_name("a/b", "cluster")
    assert checked_name("e\u0301", "pod") == "é"


@pytest.mark.parametrize(
    ("host", "name"),
    [("nas.fritz.box", "nas"), ("", "pod"), ("---", "pod"), ("my host!", "my-host-"), ("é" * 60, "é" * 31)],
)
def test_a_host_always_has_a_name(host, name):
    assert name_from_host(host) == name
    assert is_name(name_from_host(host))


def test_taken_names_get_a_number():
    assert free_name("nas", set()) == "nas"
    assert free_name("nas", {"nas"}) == "nas-2"
    assert free_name("nas", {"NAS", "nas-2"}) == "nas-3"
    long = free_name("x" * 63, {"x" * 63})
    assert long == "x" * 61 + "-2"
    assert len(long.encode()) <= LONGEST_NAME_BYTES
