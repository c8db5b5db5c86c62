"""`wormhole import`: bring existing files into the tree, with progress.

The bytes go straight into the chunk store; a file appears in the tree once its content is durable. With ``move`` a source
file is removed only after that, and only if it did not change meanwhile.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio import to_thread

from base.errors import NotFoundError, UsageError, WormholeError
from base.ids import EMPTY_CONTENT, ContentId, InodeId
from control.server import Emit
from crdt_meta.node import Kind, Node
from operations.finding import text_argument
from operations.parts import Parts

PIECE_BYTES = 1 << 20
BATCH_FILES = 200
BATCH_BYTES = 64 << 20
REPORT_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Ready:
    """A source entry whose bytes are stored; it waits to be shown in the tree, or to be freed if it is there already."""

    path: Path
    found: os.stat_result
    parent: InodeId
    content: ContentId | None
    """None for what has no bytes and is in the tree already."""
    size: int
    is_there: bool


@dataclass
class Import:
    """The state of one import."""

    parts: Parts
    move: bool
    emit: Emit
    total_files: int = 0
    total_bytes: int = 0
    files: int = 0
    bytes: int = 0
    skipped: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    batch: list[Ready] = field(default_factory=list)
    batch_bytes: int = 0
    reported_s: float = 0.0

    async def report(self, current: str, *, always: bool = False) -> None:
        """Tell the caller how far it is, a few times a second."""
        now = anyio.current_time()
        if always or now - self.reported_s >= REPORT_EVERY_S:
            self.reported_s = now
            await self.emit(
                {
                    "files": self.files,
                    "bytes": self.bytes,
                    "total_files": self.total_files,
                    "total_bytes": self.total_bytes,
                    "current": current,
                }
            )


async def import_files(parts: Parts, args: dict[str, object], emit: Emit) -> dict[str, object]:
    """Import the folder ``source`` as ``path``; files already there with the same content are left, others listed."""
    source = Path(text_argument(args, "source") or "")
    target = text_argument(args, "path")
    if not source.is_absolute() or not target:
        raise UsageError("An import needs an absolute source folder and a path in the tree.")
    if not await to_thread.run_sync(source.is_dir):
        raise NotFoundError(f"{source} is not a folder.", "Name an existing folder.")
    mount = parts.mounts.directory
    if mount is not None and (await to_thread.run_sync(source.resolve)).is_relative_to(mount):
        raise UsageError(f"{source} lies in the mount itself.", "Move files within the mount with 'mv'.")
    work = Import(parts, args.get("move") is True, emit)
    work.total_files, work.total_bytes = await to_thread.run_sync(measure, source)
    await work.report("", always=True)
    root = make_path(parts, target.encode("utf-8", "surrogateescape"), await to_thread.run_sync(os.lstat, source))
    await import_directory(work, source, root)
    await finish_batch(work)
    await parts.metadata.committer.durable()
    if work.move:
        await to_thread.run_sync(remove_empty, source)
    await work.report("", always=True)
    return {"files": work.files, "bytes": work.bytes, "skipped": work.skipped, "different": work.different}


def measure(source: Path) -> tuple[int, int]:
    """Count files and bytes below a folder, without following links."""
    files = size = 0
    for folder, _, names in os.walk(source):
        for name in names:
            try:
                found = os.lstat(Path(folder) / name)
            except OSError:
                continue
            files += 1
            size += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return files, size


def make_path(parts: Parts, path: bytes, like: os.stat_result) -> Node:
    """Return the directory ``path``, made with its parents where missing."""
    tree = parts.metadata.tree
    node = tree.resolve(b"/")
    for name in filter(None, path.split(b"/")):
        found = tree.lookup(node.inode, name)
        node = found if found is not None else make_directory(parts, node.inode, name, like)
        if node.kind is not Kind.DIRECTORY:
            raise UsageError(f"'{os.fsdecode(name)}' in the tree is no folder.", "Choose another place.")
    return node


def make_directory(parts: Parts, parent: InodeId, name: bytes, like: os.stat_result) -> Node:
    """Create a directory with the attributes of the source."""
    return parts.metadata.tree.create(
        parent,
        name,
        Kind.DIRECTORY,
        mode=like.st_mode & 0o7777,
        uid=like.st_uid,
        gid=like.st_gid,
        mtime_ns=like.st_mtime_ns,
    )


def scan(folder: Path) -> list[tuple[str, os.stat_result]]:
    """Return the entries of a folder with what they are, sorted by name."""
    with os.scandir(folder) as entries:
        return sorted((entry.name, entry.stat(follow_symlinks=False)) for entry in entries)


async def import_directory(work: Import, source: Path, target: Node) -> None:
    """Import what is in one folder; folders are walked with a list, not with recursion, so depth is no limit."""
    todo = [(source, target)]
    while todo:
        folder, node = todo.pop()
        try:
            entries = await to_thread.run_sync(scan, folder)
        except OSError as error:
            work.skipped.append(f"{folder}: {error.strerror}")
            continue
        for name, found in entries:
            path = folder / name
            below = await import_entry(work, path, found, node)
            if below is not None:
                todo.append((path, below))


async def import_entry(work: Import, path: Path, found: os.stat_result, parent: Node) -> Node | None:
    """Import one entry; return the directory node to go on with when it is a folder."""
    tree = work.parts.metadata.tree
    name = os.fsencode(path.name)
    there = tree.lookup(parent.inode, name)
    mode = found.st_mode
    if stat.S_ISDIR(mode):
        if there is None:
            return make_directory(work.parts, parent.inode, name, found)
        if there.kind is Kind.DIRECTORY:
            return there
        work.different.append(str(path))
        return None
    try:
        if stat.S_ISREG(mode):
            await import_file(work, path, found, parent, there)
        elif stat.S_ISLNK(mode) or stat.S_ISFIFO(mode):
            import_special(work, path, found, parent, there)
        else:
            work.skipped.append(f"{path}: neither file, folder, link nor pipe")
    except OSError as error:
        work.skipped.append(f"{path}: {error.strerror}")
    await work.report(path.name)
    return None


def import_special(work: Import, path: Path, found: os.stat_result, parent: Node, there: Node | None) -> None:
    """Import a symbolic link or a pipe."""
    link = stat.S_ISLNK(found.st_mode)
    target = os.fsencode(os.readlink(path)) if link else b""  # noqa: PTH115 (bytes that are no UTF-8 must survive)
    kind = Kind.SYMLINK if link else Kind.FIFO
    if there is None:
        work.parts.metadata.tree.create(
            parent.inode,
            os.fsencode(path.name),
            kind,
            mode=found.st_mode & 0o7777,
            uid=found.st_uid,
            gid=found.st_gid,
            mtime_ns=found.st_mtime_ns,
            target=target,
        )
    elif there.kind is not kind or there.target != target:
        work.different.append(str(path))
        return
    work.files += 1
    work.batch.append(Ready(path, found, parent.inode, None, 0, is_there=True))


async def import_file(work: Import, path: Path, found: os.stat_result, parent: Node, there: Node | None) -> None:
    """Store a file's bytes and queue it for the tree."""
    content, size = await store(work, path)
    if there is not None and (there.kind is not Kind.FILE or there.content != content):
        work.different.append(str(path))
        return
    work.batch.append(Ready(path, found, parent.inode, content, size, is_there=there is not None))
    work.batch_bytes += size
    if len(work.batch) >= BATCH_FILES or work.batch_bytes >= BATCH_BYTES:
        await finish_batch(work)


async def store(work: Import, path: Path) -> tuple[ContentId, int]:
    """Copy a file's bytes into the chunk store (not yet synced) and return their content id and number."""
    draft = work.parts.transfer.draft(EMPTY_CONTENT, 0, None)
    try:
        async with await anyio.open_file(path, "rb") as file:
            offset = 0
            while piece := await file.read(PIECE_BYTES):
                await draft.write(offset, piece)
                offset += len(piece)
                work.bytes += len(piece)
                await work.report(path.name)
        sealed = await draft.seal()
    finally:
        draft.discard()
    return sealed.content, sealed.size


async def finish_batch(work: Import) -> None:
    """Sync the stored chunks, then let their files appear in the tree; with ``move`` sync that, too, and free the source."""
    batch, work.batch, work.batch_bytes = work.batch, [], 0
    if not batch:
        return
    await work.parts.transfer.sync()
    for one in batch:
        if one.content is not None and show(work, one, one.content):
            work.files += 1
    work.parts.metadata.committer.request()
    if work.move:
        await work.parts.metadata.committer.durable()
        await to_thread.run_sync(free, [one for one in batch if str(one.path) not in work.different])


def show(work: Import, one: Ready, content: ContentId) -> bool:
    """Let an imported file appear in the tree; False when somebody made one of that name meanwhile."""
    tree, found = work.parts.metadata.tree, one.found
    if not one.is_there:
        try:
            node = tree.create(
                one.parent,
                os.fsencode(one.path.name),
                Kind.FILE,
                mode=found.st_mode & 0o7777,
                uid=found.st_uid,
                gid=found.st_gid,
                mtime_ns=found.st_mtime_ns,
            )
        except WormholeError:
            work.different.append(str(one.path))
            return False
        if content != EMPTY_CONTENT:
            tree.publish(node.inode, node.link, content, one.size, found.st_mtime_ns, node.shown)
    work.parts.transfer.published(content)
    return True


def free(imported: list[Ready]) -> None:
    """Remove source files that are still what was imported."""
    for one in imported:
        was = one.found
        try:
            now = os.lstat(one.path)
            if (now.st_size, now.st_mtime_ns, now.st_ino) == (was.st_size, was.st_mtime_ns, was.st_ino):
                one.path.unlink()
        except OSError:
            continue


def remove_empty(source: Path) -> None:
    """Remove the folders that an import with ``move`` emptied."""
    for folder, _, _ in os.walk(source, topdown=False):
        try:
            Path(folder).rmdir()
        except OSError:
            continue
