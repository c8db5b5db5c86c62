"""`script/hash-store HOME`: one line per stored piece, read and hashed from the disk."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from base.home import Home
from transfer.store_open import listing


def main(arguments: list[str]) -> int:
    """Print the listing of one home; returns the exit code (2 wrong usage, 3 no such store)."""
    if len(arguments) != 1:
        sys.stderr.write("usage: script/hash-store HOME\n")
        return 2
    store = Home(Path(arguments[0])).store
    if not store.is_dir():
        sys.stderr.write(f"There is no store at {store}. Name the home directory of a pod.\n")
        return 3
    try:
        for name, size in listing(store):
            sys.stdout.write(f"{name} {size}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
