"""Quantities as people write them."""

from __future__ import annotations

import pytest

from policies import units
from policies.units import UnitError

SIZES = [
    ("0 B", 0),
    ("1 B", 1),
    ("1 kB", 1000),
    ("1KiB", 1024),
    ("  64 MiB ", 64 * 2**20),
    ("1.5 kB", 1500),
    ("1.1 KiB", 1126),
    ("5MB", 5_000_000),
    ("2 GB", 2 * 10**9),
    ("20 GiB", 20 * 2**30),
    ("3 TB", 3 * 10**12),
    ("2 TiB", 2 * 2**40),
]


@pytest.mark.parametrize(("text", "size_bytes"), SIZES)
def test_sizes(text, size_bytes):
    assert units.parse_size(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("64", ""),
        ("", ""),
        ("MB", ""),
        ("-1 MB", ""),
        ("1 MB MB", ""),
        ("1e3 B", ""),
        ("٣ MB", ""),
        ("1 KB", "1 kB"),
        ("1 mb", "1 MB"),
        ("2 tib", "2 TiB"),
        ("10 G", "10 GB"),
        ("5 bytes", "5 B"),
        ("9999999999 TiB", ""),
        ("99999999999999999999 B", ""),
        ("1 MB\n", ""),
    ],
)
def test_no_sizes(text, hint):
    with pytest.raises(UnitError) as caught:
        units.parse_size(text)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1000, "1 kB"),
        (1024, "1 KiB"),
        (64 * 2**20, "64 MiB"),
        (5 * 10**6, "5 MB"),
        (1025, "1025 B"),
    ],
)
def test_formatted_sizes(size_bytes, text):
    assert units.format_size(size_bytes) == text


@pytest.mark.parametrize(
    ("text", "duration_s"),
    [("0s", 0), ("500ms", 0.5), ("10s", 10), ("1.5h", 5400), ("30 m", 1800), ("180d", 180 * 86400), ("0.4ms", 0)],
)
def test_durations(text, duration_s):
    assert units.parse_duration(text) == duration_s


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10", ""),
        ("s", ""),
        ("-1s", ""),
        ("1w", ""),
        ("10 sec", "10s"),
        ("5min", "5m"),
        ("2 days", "2d"),
        ("36501d", ""),
    ],
)
def test_no_durations(text, hint):
    with pytest.raises(UnitError) as caught:
        units.parse_duration(text)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0, "0s"),
        (0.001, "1ms"),
        (1.5, "1500ms"),
        (60, "60s"),
        (90, "90s"),
        (1800, "30m"),
        (86400, "24h"),
        (172800, "2d"),
    ],
)
def test_formatted_durations(duration_s, text):
    assert units.format_duration(duration_s) == text


@pytest.mark.parametrize(("text", "rate"), [("5 MB/s", 5_000_000), ("1KiB/s", 1024), ("1.5 kB / s", 1500)])
def test_rates(text, rate):
    assert units.parse_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("5 MB", "5 MB/s"),
        ("5 mb", "5 MB/s"),
        ("5 MB/h", "5 MB/s"),
        ("5 mb/s", "5 MB/s"),
        ("fast", ""),
        ("5 Mbit/s", ""),
    ],
)
def test_no_rates(text, hint):
    with pytest.raises(UnitError) as caught:
        units.parse_rate(text)
    assert caught.value.hint == hint


@pytest.mark.parametrize(("text", "percent"), [("90%", 90), ("100 %", 100), ("0.5%", 0.5)])
def test_shares(text, percent):
    assert units.parse_percent(text) == percent


@pytest.mark.parametrize("text", ["0%", "100.1%", "-1%", "90", "%", "ninety%"])
def test_no_shares(text):
    with pytest.raises(UnitError):
        units.parse_percent(text)
