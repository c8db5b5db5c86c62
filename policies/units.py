"""Sizes, durations, rates and shares as people write them in TOML, and back.

Reading and formatting are inverse: ``parse_size(format_size(n)) == n`` for every n within bounds, and likewise for the
others. Every function that parses raises `UnitError`; its text finishes the sentence "KEY: ...".
"""

from __future__ import annotations

import re
from decimal import Decimal

SIZE_UNITS: dict[str, int] = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
"""Bytes in each unit of size."""

DURATION_UNITS_MS: dict[str, int] = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
"""Milliseconds in each unit of time."""

MAX_SIZE_BYTES = 2**63 - 1
MAX_DURATION_S = 36_500 * 86_400.0
"""A hundred years: beyond it the milliseconds of clocks and databases get tight."""

_QUANTITY = re.compile(r" *([0-9]{1,19}(?:\.[0-9]{1,9})?) *([^0-9. ].*?)? *", re.DOTALL)


class UnitError(ValueError):
    """A quantity that can't be read; ``hint`` is what was probably meant, or empty."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint


def parse_size(text: str) -> int:
    """Return the bytes of ``"64 MiB"``, rounded down to whole bytes."""
    number, unit = _split(text, SIZE_UNITS, "size", "64 MiB")
    value = int(number * SIZE_UNITS[unit])
    if value > MAX_SIZE_BYTES:
        raise UnitError("is too large: a size ends at 8388607 TiB")
    return value


def format_size(size_bytes: int) -> str:
    """Return ``size_bytes`` exactly, in the unit that gives the smallest whole number."""
    divisors = [(name, unit) for name, unit in SIZE_UNITS.items() if size_bytes % unit == 0]
    name, unit = max(divisors, key=lambda item: item[1]) if size_bytes else ("B", 1)
    return f"{size_bytes // unit} {name}"


def parse_duration(text: str) -> float:
    """Return the seconds of ``"10s"`` or ``"1.5h"``, rounded down to whole milliseconds."""
    number, unit = _split(text, DURATION_UNITS_MS, "duration", "10s")
    value_ms = int(number * DURATION_UNITS_MS[unit])
    if value_ms > MAX_DURATION_S * 1000:
        raise UnitError("is too long: a duration ends at 36500d")
    return value_ms / 1000


def format_duration(duration_s: float) -> str:
    """Return ``duration_s`` to the millisecond, in the largest unit of which there are two: ``"60s"``, ``"2m"``."""
    value_ms = round(duration_s * 1000)
    fitting = [
        name
        for name, unit_ms in DURATION_UNITS_MS.items()
        if value_ms % unit_ms == 0 and (value_ms >= 2 * unit_ms or name in ("ms", "s"))
    ]
    return f"{value_ms // DURATION_UNITS_MS[fitting[-1]]}{fitting[-1]}"


def parse_rate(text: str) -> int:
    """Return the bytes a second of ``"5 MB/s"``."""
    amount, slash, per = text.rpartition("/")
    if not slash:
        raise UnitError('must be a rate such as "5 MB/s"', _hint_rate(text))
    if per.strip() != "s":
        raise UnitError('must be a rate a second, such as "5 MB/s"', _hint_rate(amount))
    try:
        return parse_size(amount)
    except UnitError as error:
        raise UnitError(error.text, error.hint and f"{error.hint}/s") from None


def format_rate(rate_bytes_per_s: int) -> str:
    """Return a rate as `parse_rate` reads it."""
    return f"{format_size(rate_bytes_per_s)}/s"


def parse_percent(text: str) -> float:
    """Return the number of ``"90%"``: above 0, at most 100."""
    match = re.fullmatch(r" *([0-9]{1,9}(?:\.[0-9]{1,3})?) *% *", text)
    if match is None:
        raise UnitError('must be a share such as "90%"')
    value = float(match[1])
    if not 0 < value <= 100:
        raise UnitError("must be above 0% and at most 100%")
    return value


def format_percent(percent: float) -> str:
    """Return a share as `parse_percent` reads it."""
    return f"{percent:.3f}".rstrip("0").rstrip(".") + "%"


def _hint_rate(amount: str) -> str:
    """Return ``amount`` as a rate if it is a size."""
    try:
        parse_size(amount)
    except UnitError as error:
        return error.hint and f"{error.hint}/s"
    return f"{amount.strip()}/s"


def _split(text: str, units: dict[str, int], what: str, example: str) -> tuple[Decimal, str]:
    """Return number and unit of a quantity, or raise what is wrong with it."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise UnitError(f'must be a {what} such as "{example}"')
    number, unit = match[1], match[2] or ""
    if unit in units:
        return Decimal(number), unit
    known = ", ".join(units)
    if not unit:
        raise UnitError(f"has no unit; a {what} has one of {known}")
    folded = {name.lower(): name for name in reversed(units)}
    folded |= {"k": "kB", "m": "MB", "g": "GB", "t": "TB", "byte": "B", "bytes": "B"} if what == "size" else _LONG_TIMES
    meant = folded.get(unit.lower())
    hint = f"{number}{' ' if what == 'size' else ''}{meant}" if meant else ""
    raise UnitError(f"has an unknown unit; a {what} has one of {known}", hint)


_LONG_TIMES = {
    **dict.fromkeys(("sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("hour", "hours", "hr"), "h"),
    **dict.fromkeys(("day", "days"), "d"),
}
