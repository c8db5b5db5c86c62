"""The recovery key of a cluster: outranks every pod, lies in a file that belongs into a drawer.

`wormhole new` makes it beside the first pod's identity; the founding record names its public half. It signs evictions
and configurations, nothing else, and only in the hands of who runs a command with it: no pod keeps it in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from base.errors import NotFoundError, RefusedError, UsageError
from base.ids import PodId, pod_id_of
from mesh.identity import write_private

RECOVERY_KEY: Final = "recovery.key"
_FIRST: Final = "wormhole recovery key 1"
_MAX_BYTES: Final = 4096


class RecoveryKey:
    """The private half."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key: bytes = key.public_key().public_bytes_raw()
        self.id: PodId = pod_id_of(self.public_key)
        """Under which it signs."""

    @classmethod
    def create(cls) -> RecoveryKey:
        """Make a new one."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, text: str) -> RecoveryKey:
        """Read what `text` returned. Raises `UsageError`."""
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        try:
            if len(lines) == 2 and lines[0] == _FIRST:
                return cls(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(lines[1])))
        except ValueError:
            pass
        raise UsageError("This is no recovery key.", "Name the file that `wormhole new` wrote.")

    @classmethod
    def load(cls, path: Path) -> RecoveryKey:
        """Read a file. Raises `NotFoundError` when it can't be read, `UsageError` when it is something else."""
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                return cls.read(file.read(_MAX_BYTES))
        except OSError as error:
            raise NotFoundError(f"{path} can't be read: {error.strerror}.", "Name the recovery key's file.") from error

    def text(self, cluster: str = "") -> str:
        """Return what is kept; ``cluster`` is a remark for people."""
        remark = (
            f"# The recovery key of the cluster {cluster}. Keep it off every machine of the cluster.\n"
            if cluster
            else ""
        )
        return f"{remark}{_FIRST}\n{self._key.private_bytes_raw().hex()}\n"

    def save(self, path: Path, cluster: str) -> None:
        """Write a file that only its owner can read. Raises `OSError`."""
        write_private(path, self.text(cluster).encode())

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature."""
        return self._key.sign(data)

    def check(self, recovery_key: bytes) -> None:
        """Raise `RefusedError` unless a cluster names this key (``recovery_key``, empty for none)."""
        if recovery_key != self.public_key:
            whose = "another cluster's" if recovery_key else "of no use: this cluster was founded without one"
            raise RefusedError(f"This recovery key is {whose}.", "Look for the file that `wormhole new` wrote then.")
