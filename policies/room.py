"""How much fits into pods of several sizes, when each file is kept more than once. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def whole_copies(rooms: Sequence[int], copies: int) -> int:
    """Return the most bytes that can be kept ``copies`` times, on different pods with so many bytes of room.

    The greatest c with ``copies * c <= sum(min(room, c))``: a pod can't keep more of it than one copy of everything. With
    fewer pods than copies each keeps everything.
    """
    copies = max(1, min(copies, len(rooms)))
    left = sorted((max(0, room) for room in rooms), reverse=True)
    total = sum(left)
    for room in left[: copies - 1]:
        # one whose room is more than its share of the rest can only be one copy of everything
        if room * copies <= total:
            break
        total -= room
        copies -= 1
    return total // copies
