"""What commands print: one JSON document, or tables for people; progress and remarks on stderr.

A terminal gets colour and boxes, a pipe plain text. Names from the tree are shown without control characters, so that
no file name can steer a terminal.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

DOCUMENT_VERSION = 1
_PLAIN_PROGRESS_S = 5.0


def document(body: Mapping[str, object]) -> None:
    """Print the one JSON document of a command."""
    say(json.dumps({"version": DOCUMENT_VERSION, **body}, indent=2))


def say(text: str) -> None:
    """Print a line to stdout."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def step(text: str) -> None:
    """Tell a person who waits what goes on; a pipe is spared."""
    if sys.stderr.isatty():
        note(text)


def note(text: str) -> None:
    """Print a remark to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def printable(text: object) -> str:
    """Return ``text`` without what could steer a terminal."""
    return "".join(symbol if symbol.isprintable() or "\udc80" <= symbol <= "\udcff" else "?" for symbol in str(text))


def table(headings: Sequence[str], rows: Sequence[Sequence[object]], *, right: frozenset[str] = frozenset()) -> None:
    """Print rows under headings; the columns in ``right`` are aligned to the right."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        _plain_table(headings, cells, right)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for heading in headings:
        drawn.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console().print(drawn)


def facts(pairs: Mapping[str, object]) -> None:
    """Print names and values, one a line."""
    width = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        text = printable(value)
        say(f"{painted(name.ljust(width), 'dim')}  {painted(text, _STYLES.get(text, ''))}")


def painted(text: str, style: str) -> str:
    """Return ``text`` in a style of `_CODES` when stdout is a terminal that wants colour."""
    if not style or not sys.stdout.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m"


_CODES = {"green": "32", "yellow": "33", "red": "31", "bold": "1", "dim": "2"}
_STYLES = {
    "favourable": "green",
    "degraded": "yellow",
    "critical": "red",
    "alive": "green",
    "suspect": "yellow",
    "maintenance": "yellow",
    "absent": "red",
    "evicted": "red",
}


def _plain_table(headings: Sequence[str], cells: Sequence[Sequence[str]], right: frozenset[str]) -> None:
    rows = [[heading.upper() for heading in headings], *cells]
    widths = [max(len(row[column]) for row in rows) for column in range(len(headings))]
    for row in rows:
        placed = [
            cell.rjust(width) if heading in right else cell.ljust(width)
            for cell, width, heading in zip(row, widths, headings, strict=True)
        ]
        say("  ".join(placed).rstrip())


def size(number_bytes: object) -> str:
    """Return a size for people: powers of 1000, three digits."""
    if not isinstance(number_bytes, int | float):
        return "-"
    value = float(number_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"


def moment(time_s: object) -> str:
    """Return a time (seconds since the epoch) in the local zone for people."""
    if not isinstance(time_s, int | float):
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_s))


def ago(time_s: object) -> str:
    """Return how long ago a time (seconds since the epoch) was, in the largest unit that it fills."""
    if not isinstance(time_s, int | float):
        return "-"
    passed_s = max(0.0, time.time() - time_s)
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if passed_s >= length_s:
            return f"{passed_s / length_s:.0f} {unit} ago"
    return f"{passed_s:.0f} s ago" if passed_s >= 1 else "now"


def count(number: int, one: str, many: str = "") -> str:
    """Return ``1 file``, ``2 files``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


class Progress:
    """How far a long operation is: a bar on a terminal, a line every few seconds elsewhere; always on stderr."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._told_s = time.monotonic()

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[files]}"), console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=None, files="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done_bytes: int, total_bytes: int, text: str) -> None:
        """Show ``done_bytes`` of ``total_bytes`` (0: not known yet) and a text."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done_bytes, total=total_bytes or None, files=text)
        elif time.monotonic() - self._told_s >= _PLAIN_PROGRESS_S:
            self._told_s = time.monotonic()
            note(f"{self._title}: {size(done_bytes)} of {size(total_bytes)}, {text}")
