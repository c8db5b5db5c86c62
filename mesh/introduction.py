"""What two pods tell of themselves within a handshake, after the rosters and before anything else of the cluster.

Each says which incarnation it is and what it knows of the other's (opening), then what the other lacks and what proves
something about it (account). The contents are the business of a `Chronicle`; here they are carried. Only when both are
settled does a link come up: a pod that turns out to be a restored backup has told nobody a log entry by then.
"""

from __future__ import annotations

from typing import Protocol

from base.errors import RefusedError, from_wire
from base.ids import PodId
from mesh.channel import Channel
from mesh.wire import Frame, ProtocolError, Tag, encode


class RestoredError(RefusedError):
    """This pod's home was restored from a backup, or copied: what its writer wrote since may contradict others."""

    def __init__(self, after: int, owed: int, forked: int | None = None) -> None:
        super().__init__("This pod was restored from a backup, and takes a new writer first.", "Nothing need be done.")
        self.after = after
        """The last transaction of the own writer that is certainly the same everywhere, and that others have."""
        self.owed = owed
        """The last transaction of the own writer that others have."""
        self.forked = forked
        """The last one that both histories have, where that is known exactly."""


class Chronicle(Protocol):
    """Knows the starts of this pod and of others; implemented by ``crdt_meta``. All is quick."""

    def opening(self, pod: PodId) -> object:
        """Return what a pod is told first."""
        ...

    def account(self, pod: PodId, opening: object) -> object:
        """Return what a pod is told second, given its opening. Raises `ProtocolError`."""
        ...

    def settle(self, pod: PodId, told: object, opening: object, account: object) -> None:
        """Take what a pod told in answer to the opening that it was ``told``.

        Raises `RestoredError`, `RefusedError` (it is the other one) or `ProtocolError`.
        """
        ...


async def introduce(channel: Channel, chronicle: Chronicle, pod: PodId) -> None:
    """Introduce both sides to each other. Raises what the chronicle raises, or what the other side refuses with."""
    told = chronicle.opening(pod)
    await channel.send(encode(Tag.INTRODUCTION, told))
    opening = _body(await channel.receive())
    await channel.send(encode(Tag.INTRODUCTION, chronicle.account(pod, opening)))
    chronicle.settle(pod, told, opening, _body(await channel.receive()))


def _body(frame: Frame) -> object:
    if frame.tag == Tag.GOODBYE:
        raise from_wire(frame.body)
    if frame.tag != Tag.INTRODUCTION:
        raise ProtocolError("The other side didn't introduce itself.")
    return frame.body
