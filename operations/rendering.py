"""`cluster.toml` in a pod's home: a rendering of the version in force, for people and backups.

The signed version in the roster is what counts. A file that a person changed is left alone and offered to
`wormhole config apply`: never overwritten, never silently taken.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from base.errors import MachineError
from base.ids import hash_bytes

MAX_BYTES: Final = 1 << 20
META_RENDERED: Final = "cluster_toml"
"""The hashes of what was rendered last, and of what it took the place of until that is done."""


class Notes(Protocol):
    """Where small values are kept."""

    def get(self, key: str) -> bytes | None:
        """Return a value."""
        ...

    def put(self, key: str, value: bytes) -> None:
        """Keep a value, over a restart, too."""
        ...


class Rendering:
    """One home's cluster.toml. Every call blocks for a small file."""

    def __init__(self, path: Path, notes: Notes) -> None:
        self.path = path
        self._notes = notes

    def is_edited(self, in_force: str) -> bool:
        """Tell whether a person wrote something else into the file than what is in force or was when it was written."""
        found = self._read()
        return found is not None and found != in_force.encode() and not self._is_ours(found)

    def render(self, in_force: str) -> bool:
        """Write what is in force, unless the file was edited; tell whether it says that now. Raises `MachineError`."""
        text, found = in_force.encode(), self._read()
        if found is not None and found != text and not self._is_ours(found):
            return False
        if found != text:
            self._notes.put(META_RENDERED, hash_bytes(text) + (hash_bytes(found) if found is not None else b""))
            replace_text(self.path, in_force, durable=False)
        self._notes.put(META_RENDERED, hash_bytes(text))
        return True

    def _read(self) -> bytes | None:
        try:
            with self.path.open("rb") as file:
                return file.read(MAX_BYTES + 1)
        except OSError:
            return None

    def _is_ours(self, found: bytes) -> bool:
        rendered = self._notes.get(META_RENDERED) or b""
        return hash_bytes(found) in (rendered[:32], rendered[32:])


def replace_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a file whole or not at all; with ``durable`` on the disk when it returns. Blocking. Raises `MachineError`."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            file.write(text.encode())
            if durable:
                file.flush()
                os.fsync(file.fileno())
        draft.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o600)
        draft.replace(path)
        if durable:
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise MachineError(f"{path} can't be written: {error.strerror}.", "Check the disk of the home.") from error
