"""SPAKE2 and the confirmations of a join. Pure but for the random scalar.

SPAKE2 (RFC 9382; Abdalla and Pointcheval 2005; the `spake2` package, group Ed25519) turns the code that both sides know
into a strong key, and gives whoever doesn't know it one guess for each exchange. Both sides then prove the key over a
*transcript* of everything that was said before: cluster, issuer, the hash of the server's TLS certificate as each side
sees it, the joiner's request. Somebody between the two has another certificate, so both sides see another transcript.

The joiner proves first: an issuer that proved first would hand a guess to everybody who asks.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from spake2 import SPAKE2_A, SPAKE2_B

from base.errors import DamagedError
from discovery.code import Code

PAKE_MESSAGE_BYTES: Final = 33
CONFIRMATION_BYTES: Final = 32


class Pake:
    """One side of one exchange. ``message`` goes to the other side; `finish` takes theirs, once."""

    def __init__(self, code: Code, *, joiner: bool) -> None:
        sides = {"idA": b"wormhole joiner", "idB": b"wormhole issuer " + code.tag.encode()}
        self._side = SPAKE2_A(code.password, **sides) if joiner else SPAKE2_B(code.password, **sides)
        self.message: bytes = self._side.start()

    def finish(self, theirs: bytes) -> bytes:
        """Return the 32-byte key, which is the same on both sides if both know the code.

        Raises `DamagedError` when ``theirs`` is no SPAKE2 message of the other side.
        """
        if len(theirs) != PAKE_MESSAGE_BYTES:
            raise DamagedError("The other side's message of the key exchange has a wrong length.")
        try:
            return bytes(self._side.finish(theirs))
        except (
            Exception
        ) as error:  # the package raises ValueError, SPAKEError, AssertionError and its own for bad points
            raise DamagedError("The other side's message of the key exchange can't be read.") from error


def transcript_hash(*parts: bytes) -> bytes:
    """Return the SHA-256 of ``parts``, each preceded by its length (8 bytes), so that no two lists look alike."""
    digest = hashlib.sha256(b"wormhole join transcript 1")
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def joiner_proof(key: bytes, transcript: bytes) -> bytes:
    """Return the joiner's 32-byte confirmation."""
    return hmac.digest(key, b"wormhole joiner proof 1" + transcript, "sha256")


def issuer_proof(key: bytes, transcript: bytes, answer: bytes) -> bytes:
    """Return the issuer's 32-byte confirmation, which covers its answer, too."""
    return hmac.digest(key, b"wormhole issuer proof 1" + transcript + hashlib.sha256(answer).digest(), "sha256")


def same(one: bytes, other: bytes) -> bool:
    """Compare two proofs in constant time."""
    return hmac.compare_digest(one, other)
