"""Quantities on the command line."""

from __future__ import annotations

from base.errors import UsageError
from policies.units import UnitError, parse_duration


def seconds(text: str, option: str) -> float:
    """Return the seconds of ``"10m"``, at least a millisecond. Raises `UsageError`."""
    try:
        value_s = parse_duration(text)
    except UnitError as error:
        meant = f"Did you mean {error.hint}?" if error.hint else "Write for example 30s, 10m or 2h."
        raise UsageError(f"{option} {text!r}: {error.text}.", meant) from None
    if value_s <= 0:
        raise UsageError(f"{option} {text!r}: must be more than nothing.", "Write for example 30s, 10m or 2h.")
    return value_s
