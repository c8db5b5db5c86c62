"""What the metadata's housekeeping must be told about the cluster."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple, Protocol

from base.ids import WriterId


class Retired(NamedTuple):
    """A writer whose records others hold."""

    upto: int
    """Its last transaction that they know."""
    by: WriterId
    sequence: int
    """The copies are complete with this transaction of ``by``."""
    since: int = 0
    """What it wrote up to this transaction isn't among these copies, but among another adopter's."""
    begun: int = 0
    """The copies are all in transactions of ``by`` after this one."""


def known_elsewhere(adopted: Iterable[tuple[WriterId, int]], is_own: Callable[[WriterId], bool]) -> int:
    """Return up to which transaction others know a writer of this pod, by who adopted its records up to where.

    What a later writer of the same pod adopted doesn't count: a home that was set back to before that writer doesn't
    have its copies, perhaps nobody has, and what was written since then isn't among them.
    """
    return max((upto for by, upto in adopted if not is_own(by)), default=0)


class Peers(Protocol):
    """What the housekeeping must be told about the cluster; all quick."""

    def counted(self) -> Mapping[WriterId, float | None]:
        """Return the writers of other members, not retired → None if reachable, else when last heard of, or 0.0."""
        ...

    def orphans(self, forgotten: Collection[WriterId] = ()) -> Collection[WriterId]:
        """Return the writers whose records this pod shall adopt, of those that aren't retired.

        Those that it gave up itself; and, if it is the pod chosen for it among those that can be reached, those of pods
        that left or were evicted, and the ``forgotten``.
        """
        ...

    def retired(self) -> Mapping[WriterId, Collection[Retired]]:
        """Return all writers whose records were adopted, with each adoption."""
        ...

    async def retire(self, writer: WriterId, retired: Retired) -> None:
        """Tell everybody that a writer's records are adopted, once everything written before is on the disk."""
        ...

    def is_caught_up(self) -> bool:
        """Tell whether this pod has heard from others since its start, or is the only one."""
        ...

    def is_short_of_room(self) -> bool:
        """Tell whether this pod's disk is nearly full: then only those that can be reached are asked what may go."""
        ...

    def clock_agrees(self) -> bool:
        """Tell whether this pod's clock can be trusted."""
        ...

    @property
    def forget_after_s(self) -> float:
        """How long a pod may be absent before it holds nothing up."""
        ...
