"""Where the control socket is, for `bind` and `connect`, however long the home's path.

The kernel takes 108 bytes for a socket's path. A longer one is reached through the open directory that it lies in:
``/proc/self/fd/N/control.sock`` (proc(5)).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATH_LIMIT_BYTES = 107
"""`sun_path` of unix(7) without its closing zero."""


@contextmanager
def reachable(path: Path) -> Iterator[str]:
    """Yield a path to the same socket that is short enough; good within the ``with`` only.

    Raises `OSError` when the directory can't be opened.
    """
    if len(os.fsencode(path)) <= PATH_LIMIT_BYTES:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
