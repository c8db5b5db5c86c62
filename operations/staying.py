"""Files that stay on this pod (``.wormholeignore``), as commands see them: nobody else has a copy, and they say so."""

from __future__ import annotations

import os
from pathlib import Path

from base.home import Home
from base.ids import InodeId
from operations.finding import number_of
from operations.parts import Parts


def count(folder: Path) -> int:
    """Count the files in a folder and below; blocking."""
    return sum(len(names) for _, _, names in os.walk(folder))


def private_files(home: Home) -> int:
    """Count the files that are on this pod only; blocking."""
    return count(home.private)


def warnings(parts: Parts) -> list[str]:
    """Return what a person should know: the folder in which files were is gone, deleted by another pod."""
    tree, found = parts.metadata.tree, []
    for path in sorted(parts.home.private.iterdir()) if parts.home.private.is_dir() else []:
        try:
            inode = InodeId(bytes.fromhex(path.name))
        except ValueError:
            continue
        if tree.path(inode) is None and (files := count(path)):
            found.append(f"The folder of {number_of(files, 'ignored file')} was deleted on another pod: see {path}.")
    return found
