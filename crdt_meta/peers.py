"""What the metadata's housekeeping must be told about the cluster."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
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
    digest: bytes = b""
    """Tells that last transaction from another one of its number (`transaction.digest`); empty when it wasn't kept.

    A pod that was set back to a backup writes a number again.
    """
    earlier: tuple[tuple[int, bytes], ...] = ()
    """The same of some earlier transactions, by their numbers, the last first: who has less can compare these."""

    def numbered(self) -> Iterator[tuple[int, bytes]]:
        """Yield the transactions that it tells from others of their numbers, with what tells them; the last first."""
        if self.digest:
            yield self.upto, self.digest
        yield from self.earlier

    def compared(self, last: int, digest: Callable[[int], bytes]) -> Iterator[tuple[int, bool]]:
        """Yield which of these transactions are known, too, and whether they are the same; the last first.

        ``last``: the last one known; ``digest``: of one of them, empty when it isn't kept.
        """
        for number, theirs in self.numbered():
            if number <= last and (mine := digest(number)):
                yield number, mine == theirs


class Known(NamedTuple):
    """What others know of a writer of this pod."""

    upto: int
    """Its last transaction that they have."""
    set_back: bool
    """Whether they have other ones after it: this home was set back to a backup."""


def known_elsewhere(adopted: Iterable[Retired], last: int, digest: Callable[[int], bytes], fork: int) -> Known:
    """Return what others know of a writer of this pod, whose records they adopted.

    ``last``: its last transaction here; ``digest``: of one of them, empty when it isn't kept. ``fork``: up to where
    this home had certainly not been set back; that counts if somebody knows transactions that aren't these. Then only
    what is proven to be the same is: one of another life at or before ``fork`` shows that nothing is certain.
    """
    found = list(adopted)
    compared = {each for one in found for each in one.compared(last, digest)}
    others = [one.upto for one in found if one.upto > last] + [number for number, is_same in compared if not is_same]
    if not others:
        return Known(max((one.upto for one in found), default=0), set_back=False)
    same = [number for number, is_same in compared if is_same]
    return Known(max(0, *same, min(fork, last) if fork < min(others) else 0), set_back=True)


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
