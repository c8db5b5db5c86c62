"""A pod's home with a tree of many files, made with the engine itself and kept below the folder for temporary files.

The tree: ``home/user/d-00012/s-34/file-56.txt``, a hundred entries in each directory. Each file is created and
gets a content of 4 KiB, which the pod says it keeps (there are no bytes: only metadata is measured).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path

import anyio

from base.home import Home
from base.ids import ROOT_INODE, ContentId, InodeId
from benchmarks.targets import one_copy, wormhole
from crdt_meta import store
from crdt_meta.chronicle import PLACE_KEY
from crdt_meta.metadata import Metadata
from crdt_meta.node import Kind
from crdt_meta.tree import Tree
from mesh.identity import Identity
from mesh.roster_store import RosterStore
from operations.settings import engine_roots, usable_configuration
from operations.soundness import check_complete
from transfer.holdings import Holding
from transfer.holdings_db import HoldingsDb
from transfer.offload import Offload

FAN: int = 100
"""Entries in a directory."""
GROUP: int = 100
"""Operations a commit."""


def prepared(files: int) -> Path:
    """Return the folder of a stopped pod with so many files; made when it isn't there (a minute for 200,000 files)."""
    key = hashlib.sha256(store.SCHEMA.encode()).hexdigest()[:8]
    place = Path(tempfile.gettempdir()) / f"wormhole-million-{store.FORMAT}-{key}-{files}"
    if not (place / "complete").exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        make(place, files)
        (place / "complete").touch()
    return place / "home"


def copied(prepared_home: Path, home: Path) -> None:
    """Copy a prepared home so that it isn't taken for a restored one, which would write all its records anew."""
    shutil.copytree(prepared_home, home)
    with contextlib.closing(sqlite3.connect(home / "metadata.db")) as database, database:
        database.execute("DELETE FROM meta WHERE key = ?", (PLACE_KEY,))


def make(place: Path, files: int) -> None:
    """Found a cluster and fill its tree."""
    home = place / "home"
    toml = one_copy(place, "million")
    wormhole(home, "new", "million", "--from", str(toml), "--no-mount", "--listen", "127.0.0.1:0", "--pod", "a")
    wormhole(home, "down")
    metadata = open_metadata(Home(home))
    started = time.perf_counter()
    contents = fill(metadata, files)
    metadata.store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    metadata.close()
    print(f"prepared {files:,} files in {time.perf_counter() - started:.0f} s", flush=True)
    anyio.run(keep, Home(home), contents, backend="trio")


def open_metadata(home: Home) -> Metadata:
    """Open the metadata of a pod that doesn't run."""
    identity, roster = Identity.load(home.identity), RosterStore(home.roster_db)
    check_complete(home, roster.roster, identity.pod_id)
    cluster = usable_configuration(roster.roster).config
    return Metadata(home.metadata_db, engine_roots(identity, roster.roster, lambda: cluster))


def fill(metadata: Metadata, files: int, prefix: bytes = b"d", group: int = GROUP) -> list[ContentId]:
    """Make files in directories of their own below ``home/user``; return their contents."""
    tree, contents = metadata.tree, []
    base = ROOT_INODE
    for name in (b"home", b"user"):
        found = tree.lookup(base, name)
        base = directory(tree, base, name) if found is None else found.inode
    top = parent = base
    for index in range(files):
        if index % (FAN * FAN) == 0:
            top = directory(tree, base, prefix + b"-%05d" % (index // FAN**2))
        if index % FAN == 0:
            parent = directory(tree, top, b"s-%02d" % (index // FAN % FAN))
        contents.append(add_file(tree, parent, b"file-%02d.txt" % (index % FAN)))
        if index % group == group - 1:
            metadata.log.commit()
        if index % 5000 == 4999:
            metadata.store.sync()  # copies the write-ahead log into the file, as in a running pod
    metadata.log.commit()
    return contents


def directory(tree: Tree, parent: InodeId, name: bytes) -> InodeId:
    """Make a directory."""
    return tree.create(parent, name, Kind.DIRECTORY, mode=0o755, uid=0, gid=0, mtime_ns=time.time_ns()).inode


def add_file(tree: Tree, parent: InodeId, name: bytes) -> ContentId:
    """Make a file and give it a content."""
    now_ns, content = time.time_ns(), ContentId(os.urandom(32))
    node = tree.create(parent, name, Kind.FILE, mode=0o644, uid=1000, gid=1000, mtime_ns=now_ns)
    tree.publish(node.inode, node.link, content, 4096, now_ns, node.shown)
    return content


async def keep(home: Home, contents: list[ContentId]) -> None:
    """Note that the pod keeps contents."""
    offload = Offload()
    database = HoldingsDb(home.holdings_db, offload)
    for at in range(0, len(contents), 20_000):
        await database.record(dict.fromkeys(contents[at : at + 20_000], Holding.KEPT))
    database.close(database.bytes_used)
    offload.close()
