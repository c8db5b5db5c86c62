"""What a cluster and a pod may be called. Names become file names, labels on screens and parts of announcements."""

from __future__ import annotations

import unicodedata
from typing import Final

from base.errors import UsageError

LONGEST_NAME_BYTES: Final = 63
"""In UTF-8; the length of one DNS label."""

_MARKS: Final = "-_."


def is_name(text: object) -> bool:
    """Return whether ``text`` is a valid name: letters, digits, ``-``, ``_`` and ``.``, first a letter or digit."""
    if not isinstance(text, str) or not text or len(text) > LONGEST_NAME_BYTES:
        return False
    try:
        encoded = text.encode()
    except UnicodeEncodeError:  # a lone surrogate, from a shell's argument that is not UTF-8
        return False
    return (
        len(encoded) <= LONGEST_NAME_BYTES
        and unicodedata.is_normalized("NFC", text)
        and text[0].isalnum()
        and all(letter.isalnum() or letter in _MARKS for letter in text)
    )


def checked_name(text: str, what: str) -> str:
    """Return ``text`` in normal form C; raise `UsageError` when ``what`` ("cluster" or "pod") can't be called so."""
    name = unicodedata.normalize("NFC", text)
    if not is_name(name):
        raise UsageError(
            f"A {what} can't be called {text!r}.",
            f"Take letters, digits, '-', '_' and '.', a letter or digit first, at most {LONGEST_NAME_BYTES} bytes.",
        )
    return name


def name_from_host(host: str) -> str:
    """Return a valid pod name made from a host name: its first label with everything odd replaced; never fails."""
    label = unicodedata.normalize("NFC", host.split(".")[0])
    letters = "".join(letter if letter.isalnum() or letter in _MARKS else "-" for letter in label).lstrip(_MARKS)
    while len(letters.encode()) > LONGEST_NAME_BYTES:
        letters = letters[:-1]
    return letters if is_name(letters) else "pod"


def free_name(wanted: str, taken: set[str]) -> str:
    """Return ``wanted``, or with ``-2``, ``-3`` ... appended when it is taken (compared without case)."""
    folded = {name.casefold() for name in taken}
    name, number = wanted, 2
    while name.casefold() in folded:
        suffix, stem = f"-{number}", wanted
        while len((stem + suffix).encode()) > LONGEST_NAME_BYTES:
            stem = stem[:-1]
        name, number = stem + suffix, number + 1
    return name
