"""`wormhole conflicts`: versions that stand side by side, and deciding which one stays."""

from __future__ import annotations

import errno
import posixpath

from base.errors import FileSystemError, NotFoundError, RefusedError, UsageError
from base.ids import PodId
from crdt_meta.node import Conflict, Version
from operations.finding import text_argument, text_of
from operations.making import keep
from operations.parts import Parts
from operations.trash import is_content, is_moment, pod_names


async def conflicts(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """List the conflicts with their versions, who has the name first."""
    names = pod_names(parts)
    found = parts.metadata.tree.conflicts()
    return {"conflicts": [_facts(conflict, names) for conflict in found]}


async def conflicts_keep(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Give the name of the conflict at ``path`` to ``version``; the others go to the trash."""
    path, wanted = text_argument(args, "path"), text_argument(args, "version")
    if not path or not wanted:
        raise UsageError("Which version of which file?", "Say `wormhole conflicts keep PATH VERSION`.")
    await parts.mounts.settle()
    tree, names = parts.metadata.tree, pod_names(parts)
    raw = posixpath.normpath("/" + path.lstrip("/")).encode("utf-8", "surrogateescape")
    conflict = _at(tree.conflicts(), raw)
    if conflict is None:
        raise NotFoundError(f"There is no conflict at '{text_of(raw)}'.", "`wormhole conflicts` lists them.")
    version = _version(conflict, wanted, names)
    try:
        await keep(parts, conflict.path, version.inode)
    except FileSystemError as error:
        if error.errno != errno.EISDIR:
            raise NotFoundError(
                "The conflict has changed meanwhile.", "Look again with `wormhole conflicts`."
            ) from error
        raise RefusedError(
            f"'{text_of(conflict.path)}' is a folder, which keeps its name.", "Rename or delete the file beside it."
        ) from error
    await parts.metadata.committer.durable()
    lost = [one for one in conflict.versions if one.inode != version.inode]
    return {
        "path": text_of(conflict.path),
        "kept": _version_facts(version, names),
        "trashed": [_version_facts(one, names) for one in lost],
    }


def _at(found: list[Conflict], path: bytes) -> Conflict | None:
    """Return the conflict of a name, or the one that has a version shown under it."""
    by_name = next((one for one in found if one.path == path), None)
    return by_name or next((one for one in found if path in (version.path for version in one.versions)), None)


def _version(conflict: Conflict, wanted: str, names: dict[PodId, str]) -> Version:
    """Return the version that a person means. Raises `NotFoundError` and `UsageError` when it is none or several."""

    def by_name(one: Version) -> bool:
        return wanted in (text_of(one.path), text_of(one.path).lstrip("/"), text_of(one.path).rpartition("/")[2])

    def by_pod(one: Version) -> bool:
        return one.pod is not None and wanted in (names.get(one.pod), one.pod)

    ways = (by_name, by_pod, lambda one: is_moment(one.time_ns, wanted), lambda one: is_content(one.content, wanted))
    for way in ways:
        found = [one for one in conflict.versions if way(one)]
        if len(found) == 1:
            return found[0]
        if found:
            shown = ", ".join(f"'{text_of(one.path).rpartition('/')[2]}'" for one in found)
            raise UsageError(f"'{wanted}' may be {len(found)} versions.", f"Name one as it is shown: {shown}.")
    shown = ", ".join(f"'{text_of(one.path).rpartition('/')[2]}'" for one in conflict.versions)
    raise NotFoundError(
        f"'{text_of(conflict.path)}' has no version '{wanted}'.",
        f"Name a pod, a time, the beginning of a content's id, or one of {shown}.",
    )


def _facts(conflict: Conflict, names: dict[PodId, str]) -> dict[str, object]:
    return {
        "path": text_of(conflict.path),
        "versions": [_version_facts(version, names) for version in conflict.versions],
    }


def _version_facts(version: Version, names: dict[PodId, str]) -> dict[str, object]:
    return {
        "pod": None if version.pod is None else names.get(version.pod, version.pod),
        "time": version.time_ns / 1e9,
        "size": version.size,
        "content": version.content.hex(),
        "shown_as": text_of(version.path),
    }
