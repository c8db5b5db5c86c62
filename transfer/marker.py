"""The store's marker: without it the store is absent, not empty, whatever lies in its place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from base.errors import MachineError

MARKER: Final = "store.id"
ADVICE: Final = "Connect or mount the disk that holds it, then start the pod again."


class Marker:
    """Looks whether the store that was opened is still where it was. May be called from any thread."""

    def __init__(self, store: Path, store_id: str) -> None:
        self._store = store
        self._store_id = store_id
        self._seen: tuple[int, int] | None = None

    def check(self) -> None:
        """Raise `MachineError` when the store is gone: its disk was taken away, or unmounted, or it was moved."""
        path = self._store / MARKER
        try:
            found = path.stat()
            if (found.st_dev, found.st_ino) == self._seen:
                return
            is_it = path.read_text("ascii").strip() == self._store_id
        except (OSError, ValueError):
            is_it = False
        if not is_it:
            raise MachineError(f"The store {self._store} has vanished while this pod was running.", ADVICE)
        self._seen = found.st_dev, found.st_ino

    def trouble(self) -> str | None:
        """Return why nothing can be written into the store, as far as its file system says so."""
        try:
            is_read_only = os.statvfs(self._store).f_flag & os.ST_RDONLY
        except OSError as error:
            return f"the disk of its store can't be read ({error.strerror})"
        return "the disk of its store is read-only" if is_read_only else None
