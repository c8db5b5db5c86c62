"""Which life of a pod is this? The chain of its starts, and what two chains prove. Pure.

Theory of operation. Every start of a pod appends a `Start` to its chain: a random incarnation, and under which writer
and after which of that writer's sequences it goes on. Others keep the chain that they were told last. One home has one
line of starts, so each chain told is a beginning of the next one. Where somebody knows a start that the own chain
hasn't, the line has forked: two homes were one once, of which one is a restored backup or a copy. What each did after
the fork under the *same* writer contradicts the other's; what was done under a writer taken since contradicts nothing.

This module must never call a mere continuation a fork (the pod would change its writer at every start), nor a fork
after which the writer is shared a continuation (two records of one name would be in the world).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgpack

from base.ids import WriterId

INCARNATION_BYTES: Final = 16
WRITER_BYTES: Final = 8
CHAIN_LIMIT: Final = 4096
"""Starts that are kept, the last ones: eleven years of one a day."""
MAX_SEQUENCE: Final = 1 << 62
VERSION: Final = 1


class Start(NamedTuple):
    """One start of a pod."""

    incarnation: bytes
    writer: WriterId
    """Under which it wrote."""
    sequence: int
    """The last transaction of that writer before the start."""


@dataclass(frozen=True, slots=True)
class Chain:
    """The starts of a pod, the earliest known first; at most `CHAIN_LIMIT`."""

    starts: tuple[Start, ...] = ()

    @property
    def head(self) -> bytes:
        """The incarnation of the last start; empty when there is none."""
        return self.starts[-1].incarnation if self.starts else b""

    def extended(self, *starts: Start) -> Chain:
        """Return the chain with further starts, the earliest dropped when it gets too long."""
        return Chain((*self.starts, *starts)[-CHAIN_LIMIT:])

    def after(self, incarnation: bytes) -> tuple[Start, ...] | None:
        """Return the starts that follow one; None when it isn't here."""
        for index in range(len(self.starts) - 1, -1, -1):
            if self.starts[index].incarnation == incarnation:
                return self.starts[index + 1 :]
        return None

    def continued(self, incarnation: bytes, starts: Sequence[Start]) -> Chain | None:
        """Return the chain with ``starts`` in place of what follows one of its own; None when that isn't here."""
        rest = self.after(incarnation)
        if rest is None:
            return None
        return Chain(self.starts[: len(self.starts) - len(rest)]).extended(*starts)


class Continuation(NamedTuple):
    """Nothing that this pod writes contradicts what the other knows."""


class Restored(NamedTuple):
    """This pod's home is a restored or copied one."""

    after_sequence: int
    """What the current writer wrote beyond it here contradicts what it wrote there."""


Verdict = Continuation | Restored


def compare(mine: Chain, known: Chain, writer: WriterId) -> Verdict:
    """Return what ``known``, that somebody knows of this pod, proves about ``mine``; ``writer`` is the current one.

    After a fork both lines go on with the writer of their last common start, until they take another one. The copy was
    made at the latest when the first start of the newer line began: from that sequence on they may contradict.
    """
    if not known.starts or mine.after(known.head) is not None:
        return Continuation()
    here = {start.incarnation: index for index, start in enumerate(mine.starts)}
    last = next((i for i in range(len(known.starts) - 1, -1, -1) if known.starts[i].incarnation in here), -1)
    theirs = known.starts[last + 1 :]
    rest = mine.starts[here[known.starts[last].incarnation] + 1 :] if last >= 0 else mine.starts
    shared = {start.writer for start in known.starts[max(last, 0) :]}
    begun = [next((one.sequence for one in line if one.writer == writer), None) for line in (rest, theirs)]
    bounds = [sequence for sequence in begun if sequence is not None]
    return Restored(min(bounds)) if writer in shared and bounds else Continuation()


def known_to_all(mine: Chain, told: Collection[bytes]) -> bytes:
    """Return the last start that all know, given the last one that each was told; empty if somebody knows none."""
    places = {start.incarnation: index for index, start in enumerate(mine.starts)}
    first = min((places.get(one, -1) for one in told), default=-1)
    return mine.starts[first].incarnation if first >= 0 else b""


def untold_since(mine: Chain, told: bytes, writer: WriterId) -> int:
    """Return the last transaction of a writer before the first start not known to all; else before the last one.

    ``told``: the last start that all were told of. If one of them had met this pod in a life that isn't this one, that
    one would have said so: where this home was set back without knowing it, it was after that start.
    """
    fresh = mine.after(told)
    starts = [one.sequence for one in (mine.starts if fresh is None else fresh) if one.writer == writer]
    last = [one.sequence for one in mine.starts if one.writer == writer][-1:]
    return min(starts or last, default=0)


def contradicts(sequence: int, digest: bytes, own_sequence: int, own_digest: bytes) -> bool:
    """Tell whether somebody's last transaction of the own writer, given by a digest, is none of this pod's.

    ``own_digest`` is that of the own transaction of that number. Either digest is empty when it isn't kept any more.
    """
    return sequence > own_sequence or bool(digest and own_digest and digest != own_digest)


# -- stored and sent form ---------------------------------------------------------------------------------------------


def plain(starts: Sequence[Start]) -> list[list[object]]:
    """Return starts as msgpack carries them."""
    return [list(start) for start in starts]


def parse(value: Any) -> tuple[Start, ...]:
    """Return starts that were told. Raises `ValueError`."""
    if type(value) is not list or len(value) > CHAIN_LIMIT:
        raise ValueError("no chain of starts")
    starts = tuple(_start(item) for item in value)
    if len({start.incarnation for start in starts}) != len(starts):
        raise ValueError("a start is there twice")
    return starts


def _start(value: Any) -> Start:
    match value:
        case [bytes(incarnation), bytes(writer), int(sequence)] if (
            len(incarnation) == INCARNATION_BYTES
            and len(writer) == WRITER_BYTES
            and type(sequence) is int
            and 0 <= sequence < MAX_SEQUENCE
        ):
            return Start(incarnation, WriterId(writer), sequence)
    raise ValueError("a start is malformed")


def pack(chain: Chain) -> bytes:
    """Return the stored form."""
    packed: bytes = msgpack.packb([VERSION, plain(chain.starts)])
    return packed


def unpack(data: bytes) -> Chain:
    """Return a stored chain. Raises `ValueError` for what isn't one, or is of a newer version."""
    match msgpack.unpackb(data):
        case [1, starts]:
            return Chain(parse(starts))
    raise ValueError("a stored chain is of an unknown version")
