"""What this pod says about itself, and when a new version of it is due. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from base.errors import UsageError
from base.ids import PodId
from mesh import gossip_messages as wire
from mesh.gossip_messages import Flag, Record

LINKS_DELAY_S = 0.3
"""Changes of links are collected for ``LINKS_DELAY_S * (1 + links / 16)`` before they are gossiped."""
UNLINKED_DELAY_S = 3.0
"""A pod that was linked to all waits this long before it says otherwise: whoever died is suspected by then."""


class OwnRecord:
    """This pod's record; every change makes a new version. Methods return whether there is a new one to be told."""

    def __init__(self, me: PodId, incarnation: int, address: str) -> None:
        first = min(max(incarnation, 0), wire.MAX_INCARNATION - 1)
        self.record = Record(me, first, 1, Flag.NONE, address, b"\x80", ())
        self.changed_at: float | None = None
        """Since when links have changed without a word of it: `review_links` is to be called soon then."""

    @property
    def gone(self) -> bool:
        """Whether this pod said that it is down or has left."""
        return bool(self.record.flags & (Flag.DOWN | Flag.LEFT))

    def set_address(self, address: str) -> bool:
        """Say ``HOST:PORT``; raises `UsageError`."""
        if len(address) > wire.MAX_ADDRESS_CHARACTERS or not address.isprintable():
            raise UsageError("The address to announce is too long or has control characters.", "Give HOST:PORT.")
        return self._replace(self.record._replace(address=address))

    def set_meta(self, values: Mapping[str, object]) -> bool:
        """Say ``values``; raises `UsageError` above 1 KiB packed or for what msgpack can't carry."""
        try:
            packed = wire.pack_meta(values)
        except (ValueError, TypeError, OverflowError) as error:
            raise UsageError(f"The published values can't be gossiped ({error}).", "Publish at most 1 KiB.") from error
        return self._replace(self.record._replace(meta=packed))

    def set_flag(self, flag: Flag, on: bool) -> bool:
        """Say that ``flag`` holds, or no longer."""
        flags = self.record.flags | flag if on else self.record.flags & ~flag
        return self._replace(self.record._replace(flags=flags))

    def rise_above(self, incarnation: int) -> bool:
        """Refute what is said of this pod up to ``incarnation``."""
        higher = max(incarnation, self.record.incarnation) + 1
        return self._replace(self.record._replace(incarnation=min(higher, wire.MAX_INCARNATION - 1)))

    def links_changed(self, now: float) -> None:
        """Have `review_links` look soon; also when others came or went, since it may then be linked to all."""
        if self.changed_at is None:
            self.changed_at = now

    def review_links(self, links: Collection[PodId], missing: Callable[[], bool], now: float) -> bool:
        """Say who is linked, when it changed some time ago; ``missing`` tells whether somebody isn't."""
        if self.changed_at is None:
            return False
        waited = now - self.changed_at
        if waited < LINKS_DELAY_S * (1 + len(links) / 16):
            return False
        to_all = bool(links) and (len(links) > wire.MAX_LINKS or not missing())
        if self.record.flags & Flag.LINKED_TO_ALL and not to_all and waited < UNLINKED_DELAY_S:
            return False
        self.changed_at = None
        flags = self.record.flags | Flag.LINKED_TO_ALL if to_all else self.record.flags & ~Flag.LINKED_TO_ALL
        return self._replace(self.record._replace(flags=flags, links=() if to_all else tuple(sorted(links))))

    def _replace(self, new: Record) -> bool:
        if new == self.record:
            return False
        self.record = new._replace(version=self.record.version + 1)
        return True
