"""A home comes into being whole or not at all: it is built in a directory inside itself and then moved into place.

Inside, not beside: a home may be a mount point of its own, and files can't be renamed across file systems. The
identity moves last; a home has a pod exactly when it has an identity.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from base.errors import MachineError, RefusedError
from base.home import Home

_PREFIX: Final = ".draft-"


def has_pod(home: Home) -> bool:
    """Return whether there is a pod in this home already."""
    return home.identity.exists()


@contextmanager
def drafted(home: Home) -> Iterator[Home]:
    """Yield an empty home; when the block ends well its roster and identity become those of ``home``.

    When it raises, nothing of it is left, nor of ``home`` if that did not exist. Raises `RefusedError` when there is a
    pod already, `MachineError` when the files can't be made.
    """
    if has_pod(home):
        raise RefusedError(f"There is a pod in {home.path} already.", "Start it with `wormhole up`.")
    made = [folder for folder in (home.path, *home.path.parents) if not folder.exists()]
    draft: Path | None = None
    try:
        try:
            home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=home.path))
        except OSError as error:
            raise MachineError(f"{home.path} can't be made: {error.strerror}.", "Choose another `--home`.") from error
        yield Home(draft)
        _move(Home(draft), home)
    except BaseException:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    for other in home.path.glob(_PREFIX + "*"):  # this one, and what a killed attempt left
        shutil.rmtree(other, ignore_errors=True)


def _move(draft: Home, home: Home) -> None:
    try:
        # the journal of an earlier file must not be taken for one of this
        for leftover in home.path.glob(home.roster_db.name + "-*"):
            leftover.unlink()
        draft.roster_db.replace(home.roster_db)
        _sync(home.path)
        draft.identity.rename(home.identity)
        _sync(home.path)
    except OSError as error:
        raise MachineError(f"The pod can't be put into {home.path}: {error.strerror}.") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
