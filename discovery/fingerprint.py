"""How people name and compare a joiner. Light: the command line imports it at once."""

from __future__ import annotations

from typing import Final

ID_SHOWN: Final = 8
"""Digits of an id that are enough to name one of those who wait."""


def fingerprint(pod: str) -> str:
    """Return a pod's id, which is the hash of its key, in groups that two people can compare."""
    return " ".join(pod[start : start + 4] for start in range(0, len(pod), 4))
