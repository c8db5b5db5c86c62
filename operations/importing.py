"""`wormhole import`: bring existing files into the tree, with progress.

The bytes go straight into the chunk store; a file appears in the tree once its content is durable. With ``move`` a source
file is removed only after that, once its bytes were read back from the disk, and only if it did not change meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio import to_thread

from base.errors import FileSystemError, NoSpaceError, NotFoundError, UsageError, WormholeError
from base.ids import EMPTY_CONTENT, ContentId, InodeId
from control.server import Emit
from crdt_meta.node import Kind, Node
from operations import import_source, making
from operations.finding import text_argument
from operations.parts import Parts
from policies.ignoring import NAME, Ignored
from vfs.ignoring import Ignoring

PIECE_BYTES = 1 << 20
TRIES = 3
"""A file that changed while it was read is read anew so often."""
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
    own: frozenset[import_source.FolderId]
    """The pod's own folders, which are not imported when they lie in the source."""
    total_files: int = 0
    total_bytes: int = 0
    files: int = 0
    bytes: int = 0
    skipped: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    rules: dict[Path, Ignored] = field(default_factory=dict)
    """Folders of the source with a .wormholeignore of their own."""
    batch: list[Ready] = field(default_factory=list)
    made: list[tuple[InodeId, int]] = field(default_factory=list)
    """Directories made here with the time that they get back once they are filled."""
    batch_bytes: int = 0
    reported_s: float = 0.0

    def skip(self, path: Path, error: OSError | FileSystemError) -> None:
        """Note that an entry is left out. Raises `NoSpaceError` when there is no room for any further one."""
        if isinstance(error, FileSystemError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise refused(error, os.fsencode(path.name)) from error
        self.skipped.append(f"{path}: {os.strerror(error.errno or errno.EIO)}")

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
    own = await to_thread.run_sync(
        import_source.own_folders, [parts.home.path, *([Path(mount)] if mount is not None else [])]
    )
    work = Import(parts, args.get("move") is True, emit, own)
    work.total_files, work.total_bytes = await to_thread.run_sync(import_source.measure, source, own)
    await work.report("", always=True)
    root = await make_path(parts, target.encode("utf-8", "surrogateescape"), await to_thread.run_sync(os.lstat, source))
    try:
        await import_directory(work, source, root)
    except WormholeError:
        with suppress(WormholeError):  # what got as far as the disk is not thrown away
            await finish_batch(work)
        for one in work.batch:
            abandon(work, one.content)
        raise
    await finish_batch(work)
    for inode, mtime_ns in work.made:
        if parts.metadata.tree.get(inode) is not None:
            await making.set_mtime(parts, inode, mtime_ns)
    await parts.metadata.committer.durable()
    if work.move:
        await to_thread.run_sync(import_source.remove_empty, source)
    await work.report("", always=True)
    return {"files": work.files, "bytes": work.bytes, "skipped": work.skipped, "different": work.different}


async def make_path(parts: Parts, path: bytes, like: os.stat_result) -> Node:
    """Return the directory ``path``, made with its parents where missing."""
    tree = parts.metadata.tree
    node = tree.resolve(b"/")
    for name in filter(None, path.split(b"/")):
        found = tree.lookup(node.inode, name)
        try:
            node = found if found is not None else await make_directory(parts, node.inode, name, like)
        except FileSystemError as error:
            raise refused(error, name) from error
        if node.kind is not Kind.DIRECTORY:
            raise UsageError(f"'{os.fsdecode(name)}' in the tree is no folder.", "Choose another place.")
    return node


def refused(error: FileSystemError, name: bytes) -> WormholeError:
    """Return, for people, why the tree takes no entry of a name."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError("The disk of this pod is full.", "Free some space on it.")
    reason = os.strerror(error.errno).lower()
    return UsageError(f"'{os.fsdecode(name)}' can't be made in the tree: {reason}.", "Choose another place.")


async def make_directory(parts: Parts, parent: InodeId, name: bytes, like: os.stat_result) -> Node:
    """Create a directory with the attributes of the source."""
    return await making.create(
        parts,
        parent,
        name,
        Kind.DIRECTORY,
        mode=like.st_mode & 0o7777,
        uid=like.st_uid,
        gid=like.st_gid,
        mtime_ns=like.st_mtime_ns,
    )


async def stays(work: Import, source: Path, root: Node, ignoring: Ignoring, path: Path, *, folder: bool) -> bool:
    """Tell whether an entry is ignored: by the source's own rules, or else by those of the tree above it."""
    for above in path.parents:
        rules = work.rules.get(above)
        relative = str(path.relative_to(above)) + ("/" if folder else "")
        decided = None if rules is None or path.name == NAME else rules.decision(relative)
        if decided is not None:
            return decided
        if above == source:
            break
    return await ignoring.is_ignored(root.inode, os.fsencode(path.relative_to(source)), folder=folder)


async def import_directory(work: Import, source: Path, target: Node) -> None:
    """Import what is in one folder; folders are walked with a list, not with recursion, so depth is no limit."""
    target_root, todo = target, [(source, target)]
    ignoring = Ignoring(work.parts.metadata.tree, work.parts.transfer)
    while todo:
        folder, node = todo.pop()
        try:
            entries = await to_thread.run_sync(import_source.scan, folder)
        except OSError as error:
            work.skip(folder, error)
            continue
        if any(name == NAME for name, _ in entries):
            work.rules[folder] = Ignored(await to_thread.run_sync(import_source.rules, folder / NAME))
        for name, found in entries:
            path = folder / name
            if await stays(work, source, target_root, ignoring, path, folder=stat.S_ISDIR(found.st_mode)):
                work.skipped.append(f"{path}: ignored by a .wormholeignore")
                continue
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
        if (found.st_dev, found.st_ino) in work.own:
            work.skipped.append(f"{path}: this pod's own home or mount")
            return None
        if there is None:
            try:
                made = await make_directory(work.parts, parent.inode, name, found)
            except FileSystemError as error:
                work.skip(path, error)
                return None
            work.made.append((made.inode, found.st_mtime_ns))
            await copy_xattrs(work.parts, path, made.inode)
            return made
        if there.kind is Kind.DIRECTORY:
            return there
        work.different.append(str(path))
        return None
    try:
        if stat.S_ISREG(mode):
            await import_file(work, path, found, parent, there)
        elif stat.S_ISLNK(mode) or stat.S_ISFIFO(mode):
            await import_special(work, path, found, parent, there)
        else:
            work.skipped.append(f"{path}: neither file, folder, link nor pipe")
    except (OSError, FileSystemError) as error:
        work.skip(path, error)
    await work.report(path.name)
    return None


async def import_special(work: Import, path: Path, found: os.stat_result, parent: Node, there: Node | None) -> None:
    """Import a symbolic link or a pipe."""
    link = stat.S_ISLNK(found.st_mode)
    target = os.fsencode(os.readlink(path)) if link else b""  # noqa: PTH115 (bytes that are no UTF-8 must survive)
    kind = Kind.SYMLINK if link else Kind.FIFO
    if there is None:
        await making.create(
            work.parts,
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
    """Store a file's bytes and queue it for the tree; one that somebody is writing to meanwhile is left out."""
    for _ in range(TRIES):
        content, size = await store(work, path)
        now = os.lstat(path)
        if import_source.is_same(found, now) and size == found.st_size:
            break
        abandon(work, content)
        found = now
    else:
        work.skipped.append(f"{path}: it changes while it is read")
        return
    if there is not None and (there.kind is not Kind.FILE or there.content != content):
        work.different.append(str(path))
        abandon(work, content)
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
    batch = work.batch
    if not batch:
        return
    await work.parts.transfer.sync()
    work.batch, work.batch_bytes = [], 0
    for one in batch:
        if one.content is not None and await show(work, one, one.content):
            work.files += 1
        else:
            abandon(work, one.content)
    work.parts.metadata.committer.request()
    if work.move:
        await work.parts.metadata.committer.durable()
        left = []
        for one in batch:
            if str(one.path) in work.different:
                continue
            if one.content is None or await work.parts.transfer.reread(one.content, one.size):
                left.append((one.path, one.found))
            else:
                work.skipped.append(f"{one.path}: imported, but it can't be read back, so the source stays")
        work.skipped += await to_thread.run_sync(import_source.free, left)


def abandon(work: Import, content: ContentId | None) -> None:
    """Free the bytes that were stored for a file which won't be shown."""
    if content is not None:
        work.parts.transfer.abandon(content)


async def show(work: Import, one: Ready, content: ContentId) -> bool:
    """Let an imported file appear in the tree; False when somebody made one of that name meanwhile."""
    found = one.found
    if not one.is_there:
        try:
            node = await making.create(
                work.parts,
                one.parent,
                os.fsencode(one.path.name),
                Kind.FILE,
                mode=found.st_mode & 0o7777,
                uid=found.st_uid,
                gid=found.st_gid,
                mtime_ns=found.st_mtime_ns,
            )
        except FileSystemError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise refused(error, os.fsencode(one.path.name)) from error
            work.different.append(str(one.path))
            return False
        await copy_xattrs(work.parts, one.path, node.inode)
        if content != EMPTY_CONTENT:
            await making.publish(work.parts, node, content, one.size, found.st_mtime_ns)
    work.parts.transfer.published(content)
    return True


async def copy_xattrs(parts: Parts, path: Path, inode: InodeId) -> None:
    """Take over extended attributes."""
    for name, value in import_source.xattrs(path):
        with suppress(WormholeError):
            await making.set_xattr(parts, inode, name, value)
