"""What writers and hosts say to each other (`lodging`, `handing`). Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from base.errors import DamagedError
from base.ids import ChunkId, ContentId

ASKED: Final = 64
"""Drafts asked about in one message."""
MAX_PIECES: Final = 64
"""Pieces in one message."""
MAX_CONTENTS: Final = 64
"""Contents that one draft was sealed as."""
MAX_PIECE_BYTES: Final = 1 << 30
DRAFT_ID_BYTES: Final = 16

Piece = tuple[ChunkId, int]
"""A piece and its bytes."""


class Request(NamedTuple):
    """What a writer asks for."""

    draft: bytes
    pieces: list[Piece]
    sealed: tuple[ContentId, int] | None
    """The content that all pieces held for the draft are, and its size, once it was sealed."""


def parse_request(body: object) -> Request:
    """Read a request. Raises `DamagedError`."""
    match body:
        case [bytes(draft), list(pieces), *sealed] if len(draft) == DRAFT_ID_BYTES and len(pieces) <= MAX_PIECES:
            found: list[Piece] = []
            for piece in pieces:
                match piece:
                    case [bytes(name), int(size)] if len(name) == 32 and 0 < size <= MAX_PIECE_BYTES:
                        found.append((ChunkId(name), size))
                    case _:
                        raise DamagedError("A pod sent pieces of a file in a way that can't be read.")
            match sealed:
                case []:
                    return Request(draft, found, None)
                case [bytes(content), int(size)] if len(content) == 32 and size > 0:
                    return Request(draft, found, (ContentId(content), size))
    raise DamagedError("A pod sent pieces of a file in a way that can't be read.")
