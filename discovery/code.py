"""One-time join codes: ``k7mq-4f-x3v9-t2hd-8wr5``, made to be read out and typed.

A code has 18 symbols of 5 bits each, of Crockford's alphabet (no i, l, o, u; https://www.crockford.com/base32.html):

- 4 of *tag*: who issued it, a short hash of cluster and pod. Public: pods announce it, so a code finds its issuer.
- 2 of *number*: which of the issuer's codes. Public: the joiner sends it.
- 11 of *secret*: 55 random bits, never sent. SPAKE2 makes one wrong guess cost one of few attempts.
- 1 *check* symbol over all the others, so that a typing error is told apart from a wrong code.

The check symbol is ``sum(a^i * symbol_i)`` in GF(32) with a primitive: every single wrong symbol and every exchange of
two symbols, adjacent or not, changes it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Final

from base.errors import RefusedError
from base.ids import ClusterId, PodId, hash_bytes

ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
TAG_SYMBOLS: Final = 4
NUMBER_SYMBOLS: Final = 2
SECRET_SYMBOLS: Final = 11
NUMBERS: Final = 32**NUMBER_SYMBOLS
CODE_SYMBOLS: Final = TAG_SYMBOLS + NUMBER_SYMBOLS + SECRET_SYMBOLS + 1
MALFORMED_ADVICE: Final = (
    "Compare it with what `wormhole invite` printed on a pod of the cluster, or make a new one there, "
    "and type `wormhole join --code CODE` here."
)

_GROUPS: Final = (TAG_SYMBOLS, NUMBER_SYMBOLS, 4, 4, 4)
_MISREAD: Final = str.maketrans({"o": "0", "i": "1", "l": "1"})
_SEPARATORS: Final = str.maketrans("", "", "-_.,: \t\r\n\u2010\u2011\u2012\u2013\u2014\u2212\u00a0")
_LONGEST_INPUT: Final = 200


@dataclass(frozen=True, slots=True)
class Code:
    """One join code, in canonical symbols. Its ``repr`` does not show the secret; ``str`` is what people type."""

    tag: str
    number: str
    secret: str = field(repr=False)

    @property
    def public(self) -> str:
        """The part that may be sent and logged, ``TAG-NUMBER``."""
        return f"{self.tag}-{self.number}"

    @property
    def password(self) -> bytes:
        """What both sides of SPAKE2 know."""
        return f"wormhole join code 1 {self.tag}{self.number}{self.secret}".encode()

    def __str__(self) -> str:
        symbols = self.tag + self.number + self.secret
        symbols += _check_symbol(symbols)
        groups, start = [], 0
        for length in _GROUPS:
            groups.append(symbols[start : start + length])
            start += length
        return "-".join(groups)


def issuer_tag(cluster: ClusterId, pod: PodId) -> str:
    """Return the 4 symbols (20 bits) by which codes name the pod that issued them."""
    digest = hash_bytes(b"wormhole issuer tag 1\0" + cluster.encode() + b"\0" + pod.encode())
    return _symbols(int.from_bytes(digest[:8], "big"), TAG_SYMBOLS)


def number_symbols(number: int) -> str:
    """Return the two symbols of a code number, 0 to 1023."""
    if not 0 <= number < NUMBERS:
        raise ValueError(f"code number {number} out of range")
    return _symbols(number, NUMBER_SYMBOLS)


def new_code(tag: str, number: int) -> Code:
    """Return a code with a fresh secret from the system's random source."""
    return Code(tag, number_symbols(number), _symbols(secrets.randbits(5 * SECRET_SYMBOLS), SECRET_SYMBOLS))


def parse_code(text: str) -> Code:
    """Read what a person typed: any case, any separators, ``o`` for ``0`` and ``i`` or ``l`` for ``1``.

    Raises `RefusedError` when it cannot be a code: a wrong symbol, a wrong length, or a check symbol that says that
    something was mistyped.
    """
    if len(text) > _LONGEST_INPUT:
        raise RefusedError("That is too long for a join code.", MALFORMED_ADVICE)
    symbols = text.lower().translate(_SEPARATORS).translate(_MISREAD)
    strange = next((symbol for symbol in symbols if symbol not in ALPHABET), None)
    if strange is not None:
        raise RefusedError(f"A join code has no {strange!r} in it.", MALFORMED_ADVICE)
    if len(symbols) != CODE_SYMBOLS:
        raise RefusedError(
            f"A join code has {CODE_SYMBOLS} letters and digits, this one {len(symbols)}.", MALFORMED_ADVICE
        )
    if _check_symbol(symbols[:-1]) != symbols[-1]:
        raise RefusedError("The join code is mistyped: its letters don't fit together.", MALFORMED_ADVICE)
    number_start, secret_start = TAG_SYMBOLS, TAG_SYMBOLS + NUMBER_SYMBOLS
    return Code(symbols[:number_start], symbols[number_start:secret_start], symbols[secret_start:-1])


def parse_public(text: object) -> tuple[str, str] | None:
    """Return (tag, number) of ``TAG-NUMBER`` as sent by a joiner, or None when it is anything else."""
    if not isinstance(text, str) or len(text) != TAG_SYMBOLS + 1 + NUMBER_SYMBOLS or text[TAG_SYMBOLS] != "-":
        return None
    tag, number = text[:TAG_SYMBOLS], text[TAG_SYMBOLS + 1 :]
    return (tag, number) if all(symbol in ALPHABET for symbol in tag + number) else None


def _symbols(value: int, count: int) -> str:
    return "".join(ALPHABET[value >> 5 * place & 31] for place in reversed(range(count)))


def _double(element: int) -> int:
    """Multiply by ``a`` in GF(32) = GF(2)[a] / (a^5 + a^2 + 1)."""
    element <<= 1
    return element ^ 0b100101 if element & 32 else element


def _check_symbol(symbols: str) -> str:
    total = 0
    for symbol in symbols:  # Horner: the first symbol has the highest power; all powers up to 17 differ
        total = _double(total ^ ALPHABET.index(symbol))
    return ALPHABET[total]
