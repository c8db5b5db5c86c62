"""From the words of a command to files of the tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from base.errors import NotFoundError, UsageError, WormholeError
from crdt_meta.node import Kind, Node
from crdt_meta.tree import Tree


def text_of(path: bytes) -> str:
    """Return a path for people and JSON; bytes that are no UTF-8 become lone surrogates, as `os.fsdecode` does."""
    return path.decode("utf-8", "surrogateescape")


def text_argument(args: Mapping[str, object], key: str) -> str | None:
    """Return an optional text argument of an operation."""
    value = args.get(key)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"'{key}' must be a text.")
    return value


def number_argument(args: Mapping[str, object], key: str, default: float) -> float:
    """Return an optional number argument of an operation."""
    value = args.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UsageError(f"'{key}' must be a number.")
    return float(value)


def find(tree: Tree, path: str) -> tuple[bytes, Node]:
    """Return the normalised tree path and what is there; raises `NotFoundError`."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    raw = b"/" + "/".join(parts).encode("utf-8", "surrogateescape")
    try:
        return raw, tree.resolve(raw)
    except WormholeError as error:
        raise NotFoundError(f"There is no '/{'/'.join(parts)}' in the tree.", "Look with 'ls' on the mount.") from error


def files_below(tree: Tree, path: str | None) -> Iterator[tuple[bytes, Node]]:
    """Yield the regular files at and below a path (None: all)."""
    _, node = find(tree, path or "/")
    for below, found in tree.walk(node):
        if found.kind is Kind.FILE:
            yield below, found


def number_of(number: int, one: str) -> str:
    """Return ``1 file``, ``2 files``."""
    return f"{number:,} {one}{'' if number == 1 else 's'}"
