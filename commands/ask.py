"""Questions to the person at the terminal. Without a terminal a missing answer is an error, never a wait."""

from __future__ import annotations

import sys

from base.errors import RefusedError, UsageError
from commands.invocation import invocation
from commands.output import printable


def at_terminal() -> bool:
    """Return whether somebody can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def answer(question: str, missing: str, advice: str) -> str:
    """Ask for a line. Raises `UsageError` with ``missing`` and ``advice`` without a terminal or without an answer."""
    if not at_terminal():
        raise UsageError(missing, advice)
    sys.stderr.write(printable(question) + " ")
    sys.stderr.flush()
    text = sys.stdin.readline().strip()
    if not text:
        raise UsageError(missing, advice)
    return text


def confirm(question: str) -> None:
    """Ask yes or no; `--yes` answers. Raises `RefusedError` for a no, `UsageError` without a terminal."""
    if invocation().yes:
        return
    text = answer(f"{question} [y/N]", "This needs a yes.", "Say it with `--yes`.")
    if text.lower() not in {"y", "yes"}:
        raise RefusedError("Nothing was done.")
