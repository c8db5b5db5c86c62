"""Which rules a path falls under: gitignore patterns, compiled once, answers remembered.

Patterns are translated by pathspec, which follows git. Its regular expressions are changed where git differs, and
because the file names that they meet are anybody's: a name may contain a newline, no pattern may take exponential time.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from functools import lru_cache

from pathspec.patterns.gitignore.base import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

MAX_PATTERN = 1024
MAX_DOUBLE_STARS = 3
MEMO_LIMIT = 8192

_STAR = "[^/]*"
_CLASS = re.compile(r"\\.|(\[\^?\]?[^\]]*\])", re.DOTALL)
_END = "(?:(?P<ps_d>/)|$)"


class PatternError(ValueError):
    """A pattern that can't be used; ``text`` finishes the sentence "PATTERN ..."."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint


@lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return what finds ``pattern`` in a path without a leading slash (``search``; a directory's path ends in one).

    Raises `PatternError`.
    """
    if not pattern.strip():
        raise PatternError("is empty, so it matches nothing", "**")
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"is longer than {MAX_PATTERN} characters")
    if pattern.startswith("!"):
        raise PatternError("begins with '!', which has no meaning here: a later rule wins over it", pattern[1:])
    if pattern.startswith("#"):
        raise PatternError("is a comment, so it matches nothing", f"\\{pattern}")
    if pattern.split("/").count("**") > MAX_DOUBLE_STARS:
        raise PatternError(f"has more than {MAX_DOUBLE_STARS} '**'")
    if pattern.rstrip().endswith("/**/"):
        pattern = f"{pattern.rstrip()}*/"  # as in git: the directories below, which pathspec takes for all below
    try:
        regex, _ = GitIgnoreSpecPattern.pattern_to_regex(pattern)
    except GitIgnorePatternError:
        raise PatternError("isn't a pattern as in .gitignore") from None
    if regex is None:
        raise PatternError("matches nothing", "**" if pattern.strip() == "/" else "")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        try:
            return re.compile(_bounded(regex), re.DOTALL)
        except (re.error, FutureWarning, RecursionError, OverflowError):
            raise PatternError("has brackets that can't be used; allowed are [abc], [a-z] and [!abc]") from None


def _bounded(regex: str) -> str:
    r"""Return ``regex`` without classes that match a slash or stars that backtrack into each other; ``\Z`` at its end.

    Of several stars in one path segment all but the last may stop at the first place where the fixed text after
    them fits: if any place leads to a match, that one does. Atomic groups say so (as `fnmatch.translate` does).
    """
    if regex.endswith(_END):
        regex = regex[: -len(_END)] + r"(?:/|\Z)"
    regex = _CLASS.sub(lambda found: f"(?!/){found[0]}" if found[1] and found[1] != "[^/]" else found[0], regex)
    head, *pieces = regex.split(_STAR)
    parts = [head]
    for index, fixed in enumerate(pieces):
        last_of_segment = index == len(pieces) - 1 or "/" in fixed.replace("[^/]", "").replace("(?!/)", "")
        parts.append(f"{_STAR}{fixed}" if last_of_segment else f"(?>{_STAR}?{fixed})")
    return "".join(parts)


class RuleBook:
    """The patterns of one configuration, in order."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [compile_pattern(pattern) for pattern in patterns]
        self._memo: dict[str, tuple[int, ...]] = {}

    def matching(self, path: str) -> tuple[int, ...]:
        """Return the indexes of the rules that ``path`` falls under, in order.

        ``path`` is the path in the tree, with or without a leading slash; a directory's own path ends in a slash.
        """
        if not self._patterns:
            return ()
        known = self._memo.get(path)
        if known is not None:
            return known
        relative = path.removeprefix("/")
        found = tuple(index for index, pattern in enumerate(self._patterns) if pattern.search(relative))
        if len(self._memo) >= MEMO_LIMIT:
            self._memo.clear()
        self._memo[path] = found
        return found
