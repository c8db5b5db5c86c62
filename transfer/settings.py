"""What the configuration says about the byte store, in plain units."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from transfer.store import PACKED_BYTES, Room


class CacheMode(Enum):
    """How readily a pod keeps what it reads."""

    STREAM = "stream"
    COPY = "copy"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class TransferSettings:
    """Settings of one pod; the defaults are those of pod.toml."""

    keeps: bool = True
    """Whether this pod keeps copies; False on a client pod, which only caches."""
    deadline_s: float = 10.0
    """A read without progress fails after this long."""
    cache_mode: CacheMode = CacheMode.AUTO
    copy_below_bytes: int = 64 << 20
    """Auto: smaller contents are cached at first read."""
    copy_after_reads: int = 2
    """Auto: larger ones from this read on."""
    cache_limit_bytes: int = 20 << 30
    room: Room = field(default_factory=Room)
    """What the store may take in all."""
    packed_bytes: int = PACKED_BYTES
    """Kept pieces up to this size share files (`transfer.packs`); 0: each has its own."""
    memory_bytes: int = 32 << 20
    """Chunks kept in memory for streaming."""
    draft_bytes: int = 16 << 20
    """Most unwritten bytes in memory of one open file; more go to a temporary file."""
    all_drafts_bytes: int = 128 << 20
    """The same over all open files."""
    pass_every_s: float = 300.0
    """How often all contents are looked at again."""
