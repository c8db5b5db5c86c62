"""Has the kernel put what a large world holds into large pages.

Ten thousand pods take gigabytes, and every message touches a few dozen places anywhere in them. With pages of 4 KiB the
processor spends a third of its time, in a virtual machine more, on finding out where these are.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

MAPS: Final = Path("/proc/self/maps")
PAGE_BYTES: Final = 2 << 20
MADV_HUGEPAGE: Final = 14
MADV_COLLAPSE: Final = 25
"""Linux 6.1 and later; an older one collects pages by and by."""


def use_large_pages() -> None:
    """Move all that this process has allocated so far. Where that can't be everything stays as it is."""
    if not MAPS.exists():
        return
    libc = ctypes.CDLL(None)
    for line in MAPS.read_text().splitlines():
        fields = line.split()
        if "w" not in fields[1] or fields[5:] not in ([], ["[heap]"]):
            continue
        start, end = (int(one, 16) for one in fields[0].split("-"))
        start, end = -(-start // PAGE_BYTES) * PAGE_BYTES, end // PAGE_BYTES * PAGE_BYTES
        for advice in (MADV_HUGEPAGE, MADV_COLLAPSE) if start < end else ():
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), advice)
