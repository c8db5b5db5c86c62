"""`wormhole prepare DIR --for offline`: keep a folder here, and say exactly what of it will work without a network.

What counts is what lies in this pod's store when the answer is made, piece by piece, not what is known of holdings.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import anyio
from anyio import lowlevel

from base.errors import FileSystemError, UsageError
from base.ids import EMPTY_CONTENT
from control.server import Emit
from crdt_meta.node import Kind, Node
from operations import pinning
from operations.finding import find, number_argument, text_argument, text_of
from operations.mount_facts import limit_bytes, local_space
from operations.parts import Parts
from operations.where import names
from policies.offline import Missing, cautions, changes

LOOK_EVERY_S: Final = 0.25
HOPELESS_S: Final = 3.0
"""When nothing that is missing can come for so long, nobody waits for it any more."""
SLICE: Final = 200
NAMED: Final = 1000
"""Files named in the answer; all are counted."""


class File(NamedTuple):
    """A file below the folder, or one that a link in it leads to."""

    path: bytes
    node: Node
    link: bytes | None = None
    """The link that leads to it from inside the folder."""


class Report(NamedTuple):
    """How the files stand."""

    files: int
    bytes: int
    missing: list[tuple[File, Missing]]

    @property
    def missing_bytes(self) -> int:
        """Bytes of the files that aren't whole here."""
        return sum(one.node.size for one, _ in self.missing)


async def prepare(parts: Parts, args: dict[str, object], emit: Emit) -> dict[str, object]:
    """Pin a folder or file, wait for it as long as something may come (``timeout_s``), and report."""
    if text_argument(args, "for") != "offline":
        raise UsageError("A folder can be prepared for one thing only.", "Say `--for offline`.")
    timeout_s = number_argument(args, "timeout_s", 3600.0)
    raw, node = find(parts.metadata.tree, text_argument(args, "path") or "/")
    await pinning.add(parts, raw, node)
    with anyio.move_on_after(timeout_s):
        await _arrived(parts, raw, emit)
    report = await _look(parts, raw)
    return _answer(parts, text_of(raw), report)


async def _arrived(parts: Parts, path: bytes, emit: Emit) -> None:
    """Return when everything is here, or nothing that is missing may come."""
    hopeless_since: float | None = None
    asked = False
    while True:
        report = await _look(parts, path)
        if not asked:
            parts.transfer.noticed([one.node.content for one, _ in report.missing])
            asked = True
        await emit(
            {
                "files": report.files - len(report.missing),
                "total_files": report.files,
                "bytes": report.bytes - report.missing_bytes,
                "total_bytes": report.bytes,
            }
        )
        now = anyio.current_time()
        if not report.missing:
            return
        if any(missing.may_come for _, missing in report.missing):
            hopeless_since = None
        else:
            hopeless_since = hopeless_since or now
            if now - hopeless_since >= HOPELESS_S:
                return
        await anyio.sleep(LOOK_EVERY_S)


async def _look(parts: Parts, path: bytes) -> Report:
    """Look at every file below a path, in slices."""
    files = size = 0
    missing: list[tuple[File, Missing]] = []
    for file in _files(parts, path):
        files, size = files + 1, size + file.node.size
        if not _is_whole(parts, file.node):
            missing.append((file, _missing(parts, file)))
        if files % SLICE == 0:
            await lowlevel.checkpoint()
    return Report(files, size, missing)


def _files(parts: Parts, path: bytes) -> list[File]:
    """Return the files at and below a path, and those elsewhere in the tree that links below it lead to."""
    tree = parts.metadata.tree
    _, node = find(tree, text_of(path))
    found: list[File] = []
    seen = set()
    links: list[tuple[bytes, Node]] = []
    for below, one in tree.walk(node):
        if one.kind is Kind.FILE:
            found.append(File(below, one))
            seen.add(one.inode)
        elif one.kind is Kind.SYMLINK:
            links.append((below, one))
    for below, one in links:
        target = _target(parts, below, one)
        if target is not None and target.node.inode not in seen:
            found.append(target)
            seen.add(target.node.inode)
    return found


def _target(parts: Parts, path: bytes, link: Node) -> File | None:
    """Return the file in the tree that a link leads to; None for a folder, what isn't there, or isn't in the tree."""
    to = link.target
    if to.startswith(b"/"):
        mount = (parts.mounts.directory or "").encode("utf-8", "surrogateescape")
        if not mount or not to.startswith(mount + b"/"):
            return None
        to = to.removeprefix(mount)
    else:
        to = path.rpartition(b"/")[0] + b"/" + to
    names_: list[bytes] = []
    for name in to.split(b"/"):
        if name == b"..":
            if not names_:
                return None
            names_.pop()
        elif name not in (b"", b"."):
            names_.append(name)
    try:
        node = parts.metadata.tree.resolve(b"/" + b"/".join(names_))
    except FileSystemError:
        return None
    return File(b"/" + b"/".join(names_), node, path) if node.kind is Kind.FILE else None


def _is_whole(parts: Parts, node: Node) -> bool:
    if node.content == EMPTY_CONTENT:
        return True
    return parts.transfer.is_whole(node.content, node.size) and (
        pinning.is_here(parts, node.content) or parts.transfer.local(node.content) == "cached"
    )


def _missing(parts: Parts, file: File) -> Missing:
    holders = parts.transfer.holders(file.node.content)
    here, away = holders.kept | holders.cached, holders.absent
    author = file.node.author
    if not here and author is not None and author != parts.mesh.pod_id:
        here, away = (here | {author}, away) if author in parts.mesh.alive() else (here, away | {author})
    return Missing(
        size=file.node.size,
        keep=parts.catalogue.wanted(file.node.inode, text_of(file.path)).keep,
        here=names(parts, here - {parts.mesh.pod_id}),
        away=names(parts, away),
        free_bytes=_free_bytes(parts),
    )


def _free_bytes(parts: Parts) -> int:
    """Return the room for what is pinned: of a client pod, which has a cache only, what that may grow by."""
    if parts.editor is not None:
        return max(0, limit_bytes(parts) - parts.transfer.bytes_used())
    return local_space(parts)[1]


def _answer(parts: Parts, path: str, report: Report) -> dict[str, object]:
    mount, is_client = parts.mounts.directory, parts.editor is not None
    others = [pod for pod in parts.catalogue.full_pods() if pod != parts.mesh.pod_id]
    can = changes(parts.pod, is_client=is_client, is_alone=not others)
    return {
        "path": path,
        "for": "offline",
        "pinned": pinning.is_pinned(parts, path),
        "works": not report.missing and can.answer != "no",
        "files": report.files,
        "bytes": report.bytes,
        "ready": {"files": report.files - len(report.missing), "bytes": report.bytes - report.missing_bytes},
        "missing_files": len(report.missing),
        "missing_bytes": report.missing_bytes,
        "missing": [_row(file, missing) for file, missing in report.missing[:NAMED]],
        "changes": can.answer,
        "changes_reason": can.reason,
        "free_bytes": _free_bytes(parts),
        "mount": mount,
        "warnings": cautions(parts.cluster, is_client=is_client, mount=mount),
    }


def _row(file: File, missing: Missing) -> dict[str, object]:
    reason = missing.reason
    if file.link is not None:
        reason = f"{text_of(file.link)} is a link to it, and it is not among what is prepared"
    return {"path": text_of(file.path), "size": file.node.size, "reason": reason}
