"""Where each file of a pod lies below its home. Paths only; nothing here opens a file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

HOME_VARIABLE = "WORMHOLE_HOME"


@dataclass(frozen=True, slots=True)
class Home:
    """A pod's home directory."""

    path: Path

    @property
    def pod_toml(self) -> Path:
        """This pod's own configuration."""
        return self.path / "pod.toml"

    @property
    def cluster_toml(self) -> Path:
        """The cluster's configuration in force, rendered for people; the signed one in `roster_db` counts."""
        return self.path / "cluster.toml"

    @property
    def identity(self) -> Path:
        """Keys and certificates (0700)."""
        return self.path / "identity"

    @property
    def roster_db(self) -> Path:
        """Signed membership records, SQLite."""
        return self.path / "roster.db"

    @property
    def codes_db(self) -> Path:
        """Join codes issued here and attempts on them, SQLite."""
        return self.path / "codes.db"

    @property
    def metadata_db(self) -> Path:
        """The log and the view of the tree, SQLite."""
        return self.path / "metadata.db"

    @property
    def store(self) -> Path:
        """Chunks; has a marker file, so that a vanished disk is never taken for an empty one."""
        return self.path / "store"

    @property
    def private(self) -> Path:
        """The files that stay on this pod (``.wormholeignore``)."""
        return self.path / "private"

    @property
    def holdings_db(self) -> Path:
        """Which content is held by whom, SQLite."""
        return self.path / "holdings.db"

    @property
    def socket(self) -> Path:
        """The control socket of the running pod."""
        return self.path / "control.sock"

    @property
    def lock(self) -> Path:
        """Locked (flock) and holding the process id while the pod runs."""
        return self.path / "pod.lock"

    @property
    def log(self) -> Path:
        """What the pod in the background writes."""
        return self.path / "pod.log"


def state_directory() -> Path:
    """Return the folder below which homes stand when none is named (XDG base directory specification)."""
    base = os.environ.get("XDG_STATE_HOME", "")
    root = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    return root / "wormhole"
