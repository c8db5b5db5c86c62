"""Which place in the tree a PATH on the command line means."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

from base.errors import UsageError
from base.home import Home
from control.client import call
from vfs import mountpoint

TREE_PREFIX = "tree:"


def tree_path(given: str, mount: str | None, cwd: str) -> str:
    """Return the tree path (``/photos/a.jpg``) that ``given`` means in the directory ``cwd``.

    An absolute path below ``mount``, or a relative one while ``cwd`` is inside it, means that file; anything else, with
    or without a leading ``/``, is a path in the tree, and so is what follows ``tree:``. Raises `UsageError` for a
    relative path that leads out of the mount.
    """
    if given.startswith(TREE_PREFIX):
        return _normal(given.removeprefix(TREE_PREFIX))
    if mount is None:
        return _normal(given)
    if given.startswith("/"):
        inside = _below(given, mount)
        return _normal(given) if inside is None else inside
    if _below(cwd, mount) is None:
        return _normal(given)
    inside = _below(posixpath.join(cwd, given), mount)
    if inside is None:
        raise UsageError(f"{given!r} leads out of the mount {mount}.", "Name a path below it, or `tree:/PATH`.")
    return inside


def of_running_pod(home: Home, given: str) -> str:
    """Return the tree path that ``given`` means here and now; asks the pod of ``home`` where it is mounted."""
    if given.startswith(TREE_PREFIX):
        return tree_path(given, None, "/")
    cwd = _cwd()
    if not _on_fuse(posixpath.join(cwd, given)) and not _on_fuse(cwd):
        return tree_path(given, None, "/")  # asking takes the pod a while when it has many files
    mount = call(home, "status").get("mount")
    return tree_path(given, mount if isinstance(mount, str) and mount else None, cwd)


def _on_fuse(path: str) -> bool:
    """Return whether an absolute path lies on or below a FUSE mount of anybody."""
    place = Path(_resolved(path))
    return any((mountpoint.mounted_at(folder) or "").startswith("fuse") for folder in (place, *place.parents))


def _cwd() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # the directory is gone
        return "/"


def _normal(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))


def _below(path: str, mount: str) -> str | None:
    """Return the tree path of an absolute ``path`` below ``mount``, else None."""
    for candidate in (posixpath.normpath(path), _resolved(path)):
        for root in (posixpath.normpath(mount), os.path.realpath(mount)):
            if candidate == root or candidate.startswith(root.rstrip("/") + "/"):
                return _normal(candidate[len(root) :])
    return None


def _resolved(path: str) -> str:
    """Resolve symbolic links but the last: a link in the tree is itself what is asked about."""
    parent, name = posixpath.split(posixpath.normpath(path))
    return posixpath.join(os.path.realpath(parent), name)
