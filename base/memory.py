"""Memory of the C library: what a process freed stays with it unless it is told to give it back."""

from __future__ import annotations

import ctypes
from typing import Final

M_ARENA_MAX: Final = -8
"""The parameter of ``mallopt`` (glibc)."""
ARENAS: Final = 2
"""Pools of memory: by default each thread gets its own, and keeps what it used once."""


def _function(name: str) -> ctypes._FuncPointer | None:
    return getattr(ctypes.CDLL(None), name, None)


def few_pools() -> None:
    """Have threads share their pools; at the start of a process. Nothing where the C library knows no such thing."""
    function = _function("mallopt")
    if function is not None:
        function(M_ARENA_MAX, ARENAS)


def give_back() -> None:
    """Return free memory to the system; takes milliseconds."""
    function = _function("malloc_trim")
    if function is not None:
        function(0)
