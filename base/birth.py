"""When a file was made, by the file system's own word: a time that nobody can set, and that a copy doesn't take over."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from typing import Final

AT_FDCWD: Final = -100
STATX_BTIME: Final = 0x800
STATX_BYTES: Final = 256
BTIME_AT: Final = 80
"""``struct statx`` (statx(2)): where ``stx_btime`` is: seconds (64 bits), nanoseconds (32)."""


def born_ns(path: Path) -> int | None:
    """Return when a file was made, nanoseconds since the epoch; None where that isn't recorded. Raises `OSError`."""
    born_s = getattr(path.stat(), "st_birthtime", None)  # macOS, the BSDs
    if born_s is not None:
        return int(born_s * 1e9)
    statx = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)
    buffer = ctypes.create_string_buffer(STATX_BYTES)
    if statx is None or statx(AT_FDCWD, os.fsencode(path), 0, STATX_BTIME, buffer) != 0:
        return None
    (mask,) = struct.unpack_from("=I", buffer, 0)
    seconds, nanoseconds = struct.unpack_from("=qI", buffer, BTIME_AT)
    born = seconds * 1_000_000_000 + nanoseconds
    return born if mask & STATX_BTIME and born > 0 else None
