"""Wishes that stand at one file, as extended attributes, and win over every rule. Pure.

``user.wormhole.copies`` is a number of copies, ``user.wormhole.keep`` is ``1`` (every full pod keeps a local version,
client pods one in their cache) or ``0`` (no rule of any pod does).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from policies.forms import MAX_COPIES

COPIES: Final = b"user.wormhole.copies"
KEEP: Final = b"user.wormhole.keep"
WRITABLE: Final = (COPIES, KEEP)
_FLAGS: Final = {b"1": b"1", b"true": b"1", b"0": b"0", b"false": b"0"}
_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Wish:
    """What stands at a file; None: nothing, so the rules decide."""

    copies: int | None = None
    keep: bool | None = None


NONE: Final = Wish()


def normal(name: bytes, value: bytes) -> bytes:
    """Return a value of one of `WRITABLE` as it is stored. Raises `ValueError` for what is none."""
    value = value.strip(b" \t\r\n\0")
    if name == KEEP:
        if value.lower() not in _FLAGS:
            raise ValueError("must be 1 or 0")
        return _FLAGS[value.lower()]
    if not value.isdigit() or len(value) > _DIGITS or not 1 <= int(value) <= MAX_COPIES:
        raise ValueError(f"must be a number from 1 to {MAX_COPIES}")
    return str(int(value)).encode()


def wish_of(attributes: Mapping[bytes, bytes]) -> Wish:
    """Return the wish that attributes say; what can't be read, from a newer Wormhole, says nothing."""
    if not attributes:
        return NONE
    copies = _read(COPIES, attributes)
    keep = _read(KEEP, attributes)
    return Wish(None if copies is None else int(copies), None if keep is None else keep == b"1")


def _read(name: bytes, attributes: Mapping[bytes, bytes]) -> bytes | None:
    value = attributes.get(name)
    try:
        return None if value is None else normal(name, value)
    except ValueError:
        return None
