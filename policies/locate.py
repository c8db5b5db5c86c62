"""Where each key of a TOML text stands: a scanner that knows just enough TOML to find lines.

TOML parsers give positions for syntax errors only. The scanner reads the text in one linear pass, before the parser:
so it also refuses what would cost the parser unbounded memory or stack (thousands of dots in one key, deep nesting).
It never judges syntax: where it doesn't understand the text it stops, and the parser says why.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Path = tuple[str | int, ...]
"""Where a value stands: table keys as text, elements of arrays as numbers from 0."""

MAX_DEPTH = 8
MAX_KEYS = 20_000

_BLANK = re.compile(r"[ \t]*")
_BLANK_LINES = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_LITERAL = re.compile(r"'([^'\n]*)'")
_BASIC = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_MULTILINE = re.compile(r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})|\'\'\'.*?\'\'\'(?:\'{0,2})', re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\n]+")
_ESCAPE = re.compile(r'\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(["\\bfnrt]))')
_ESCAPED = {'"': '"', "\\": "\\", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class TooComplexError(ValueError):
    """A text that no configuration needs; ``line`` counts from 1."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line
        self.text = text


class _StopError(Exception):
    """The scanner met something that isn't TOML."""


class Lines:
    """The line of each key of a text."""

    def __init__(self, text: str) -> None:
        self._lines: dict[Path, int] = {}
        _Scanner(text, self._lines).run()

    def of(self, path: Path) -> int:
        """Return the line (from 1) where ``path`` or else the nearest of its parents stands; 1 for an unknown one."""
        while path:
            if path in self._lines:
                return self._lines[path]
            path = path[:-1]
        return 1

    def __iter__(self) -> Iterator[Path]:
        return iter(self._lines)


class _Scanner:
    def __init__(self, text: str, lines: dict[Path, int]) -> None:
        self._text = text
        self._lines = lines
        self._at = 0
        self._line = 1
        self._counted = 0
        self._arrays: dict[Path, int] = {}
        self._keys = 0

    def run(self) -> None:
        """Note all keys up to the end, or to where the text is no TOML."""
        table: Path = ()
        try:
            while True:
                self._skip(_BLANK_LINES)
                if self._at >= len(self._text):
                    return
                if self._text[self._at] == "[":
                    table = self._header()
                else:
                    self._pair(table, 1)
        except (_StopError, IndexError):
            return

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise _StopError
        self._at = match.end()
        return match[0]

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _expect(self, char: str) -> None:
        if not self._text.startswith(char, self._at):
            raise _StopError
        self._at += len(char)

    def _note(self, path: Path) -> None:
        self._keys += 1
        if self._keys > MAX_KEYS:
            raise TooComplexError(self._here(), f"has more than {MAX_KEYS} keys")
        self._lines.setdefault(path, self._here())

    def _check_depth(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise TooComplexError(self._here(), f"is nested more than {MAX_DEPTH} deep")

    def _header(self) -> Path:
        self._here()
        double = self._text.startswith("[[", self._at)
        self._at += 2 if double else 1
        self._skip(_BLANK)
        parts = self._key()
        self._expect("]]" if double else "]")
        path: Path = ()
        for index, part in enumerate(parts):
            path = (*path, part)
            self._note(path)
            if index == len(parts) - 1 and double:
                self._arrays[path] = self._arrays.get(path, -1) + 1
            if path in self._arrays:
                path = (*path, self._arrays[path])
        self._note(path)
        return path

    def _key(self) -> list[str]:
        parts: list[str] = []
        while True:
            self._check_depth(len(parts) + 1)
            char = self._text[self._at]
            if char == '"':
                parts.append(_unescape(self._skip(_BASIC)[1:-1]))
            elif char == "'":
                parts.append(self._skip(_LITERAL)[1:-1])
            else:
                parts.append(self._skip(_BARE))
            self._skip(_BLANK)
            if not self._text.startswith(".", self._at):
                return parts
            self._at += 1
            self._skip(_BLANK)

    def _pair(self, table: Path, depth: int) -> None:
        self._here()
        path = table
        for part in self._key():
            path = (*path, part)
            self._note(path)
        self._expect("=")
        self._skip(_BLANK)
        self._value(path, depth)

    def _value(self, path: Path, depth: int) -> None:
        self._check_depth(depth)
        char = self._text[self._at]
        if self._text.startswith(('"""', "'''"), self._at):
            self._skip(_MULTILINE)
        elif char == '"':
            self._skip(_BASIC)
        elif char == "'":
            self._skip(_LITERAL)
        elif char == "[":
            self._array(path, depth)
        elif char == "{":
            self._inline_table(path, depth)
        else:
            self._skip(_SCALAR)

    def _array(self, path: Path, depth: int) -> None:
        self._at += 1
        index = 0
        while True:
            self._skip(_BLANK_LINES)
            if self._text[self._at] == "]":
                self._at += 1
                return
            self._note((*path, index))
            self._value((*path, index), depth + 1)
            index += 1
            self._skip(_BLANK_LINES)
            if self._text[self._at] != "]":
                self._expect(",")

    def _inline_table(self, path: Path, depth: int) -> None:
        self._at += 1
        self._skip(_BLANK)
        while self._text[self._at] != "}":
            self._pair(path, depth + 1)
            self._skip(_BLANK)
            if self._text[self._at] != "}":
                self._expect(",")
                self._skip(_BLANK)
        self._at += 1


def _unescape(text: str) -> str:
    def char(match: re.Match[str]) -> str:
        if match[3]:
            return _ESCAPED[match[3]]
        code = int(match[1] or match[2], 16)
        return chr(code) if code < 0x110000 else ""

    return _ESCAPE.sub(char, text)
