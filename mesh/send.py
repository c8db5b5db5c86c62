"""The one effect of the pure cores of the mesh: a message for a linked pod."""

from __future__ import annotations

from typing import NamedTuple

from base.ids import PodId
from mesh.wire import Tag


class Send(NamedTuple):
    """Send ``message`` (what msgpack carries) in one frame of ``tag`` to ``pod``; drop it if there is no link."""

    pod: PodId
    tag: Tag
    message: object
