"""A configuration text as a tree of values with the line of each, and the collection of what is wrong with it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from typing import Any, NoReturn

from base.errors import ConfigError
from policies.forms import shown
from policies.locate import Lines, Path, TooComplexError

MAX_TEXT_BYTES = 1 << 20
MAX_PROBLEMS = 100

ADVICE = "Correct what is named; nothing was changed."
_POSITION = re.compile(r" \(at (?:line ([0-9]+), column [0-9]+|end of document)\)$")
_BARE = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Document:
    """A text that is TOML."""

    file: str
    tree: dict[str, Any]
    lines: Lines


@dataclass(slots=True)
class Problems:
    """What is wrong in one file, gathered to be told at once."""

    file: str
    lines: Lines
    found: list[tuple[int, str]] = field(default_factory=list)
    left_out: int = 0

    @property
    def full(self) -> bool:
        """Whether further problems are only counted."""
        return len(self.found) >= MAX_PROBLEMS

    def add(self, path: Path, key: str, text: str, hint: str = "") -> None:
        """Note a problem of the value at ``path``, called ``key``; ``hint`` is what was probably meant."""
        if self.full:
            self.left_out += 1
            return
        self.found.append((self.lines.of(path), f"{key}: {text}" + (f"; did you mean {hint}?" if hint else "")))

    def raise_if_any(self) -> None:
        """Raise `ConfigError` with a line for each problem, in the order of the file."""
        if not self.found:
            return
        ordered = sorted(self.found, key=lambda found: found[0])
        lines = [f"{self.file}:{line}: {text}" for line, text in ordered]
        if self.left_out:
            lines.append(f"{self.file}:{ordered[-1][0]}: more: {self.left_out} further problems are left out")
        raise ConfigError("\n".join(lines), ADVICE)


def dotted(*parts: str) -> str:
    """Return the full name of a key as TOML writes it, on one line."""
    return ".".join(part if _BARE.fullmatch(part) else shown(part) for part in parts)


def load(text: str, file: str) -> Document:
    """Return ``text`` as a tree; ``file`` is how messages call it. Raises `ConfigError`."""
    try:
        length = len(text.encode())
    except UnicodeEncodeError as error:
        _refuse(file, text.count("\n", 0, error.start) + 1, "contains a character that isn't valid Unicode")
    if length > MAX_TEXT_BYTES:
        _refuse(file, 1, f"is larger than {MAX_TEXT_BYTES >> 20} MiB")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    try:
        lines = Lines(text)
    except TooComplexError as error:
        _refuse(file, error.line, error.text)
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, line = _syntax(str(error), text)
        _refuse(file, line, message)
    except (ValueError, RecursionError, OverflowError):
        _refuse(file, 1, "contains a value that no configuration needs")
    return Document(file, tree, lines)


def _syntax(message: str, text: str) -> tuple[str, int]:
    """Return what the parser found wrong, and its line."""
    position = _POSITION.search(message)
    last = text.rstrip("\n").count("\n") + 1
    line = int(position[1]) if position and position[1] else last
    what = message[: position.start()] if position else message
    what = "".join(char if char.isprintable() else " " for char in what)[:200]
    return f"isn't valid TOML: {what[:1].lower()}{what[1:]}", min(line, last)


def _refuse(file: str, line: int, what: str) -> NoReturn:
    raise ConfigError(f"{file}:{line}: syntax: {what}", ADVICE)
