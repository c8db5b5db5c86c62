"""``.wormholeignore``: which names in a directory stay on this pod. The syntax of gitignore. Pure."""

from __future__ import annotations

import re
from typing import Final

from policies.patterns import PatternError, compile_pattern

NAME: Final = ".wormholeignore"
MAX_BYTES: Final = 64 << 10
"""What stands behind that in a file isn't read."""
MAX_LINES: Final = 1000


class Ignored:
    """One such file; paths are relative to its directory, those of directories end in a slash."""

    def __init__(self, text: str) -> None:
        self.wrong: list[str] = []
        """Lines that are no patterns; they match nothing."""
        self._patterns: list[tuple[bool, re.Pattern[str]]] = []
        for line in text.splitlines()[:MAX_LINES]:
            if not line.strip() or line.startswith("#"):
                continue
            negated = line.startswith("!")
            try:
                self._patterns.append((not negated, compile_pattern(line[1:] if negated else line)))
            except PatternError:
                self.wrong.append(line)

    def decision(self, path: str) -> bool | None:
        """Return whether a path is ignored, by the last pattern that matches; None when none does."""
        found = [ignored for ignored, pattern in self._patterns if pattern.search(path)]
        return found[-1] if found else None
