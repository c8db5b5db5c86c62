"""Pods with real files and real signatures, and the few words in which stories about them are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import anyio
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from base.errors import FileSystemError
from base.ids import ROOT_INODE, ContentId, Dot, PodId, WriterId, hash_bytes
from crdt_meta.metadata import Metadata, Roots
from crdt_meta.node import Delta, Kind, Node
from crdt_meta.records import Strategy
from crdt_meta.trash import TrashEntry
from mesh.api import Entry

START_S = 1_800_000_000.0
SENDER = PodId("5e" * 16)


def content(text: str) -> ContentId:
    """Return the id of a content."""
    return ContentId(hash_bytes(text.encode()))


class Mesh:
    """Who signs as what; the clock that all share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_s = START_S
        self.names: dict[WriterId, str] = {}
        self.keys: dict[WriterId, Ed25519PrivateKey] = {}
        self.strategy = Strategy.KEEP_BOTH
        self.versions = 10
        self.opened: list[Pod] = []

    def pod(self, name: str) -> Pod:
        """Open the pod of this name, new or as it was left."""
        pod = Pod(self, name)
        self.opened.append(pod)
        return pod

    def verify(self, writer: WriterId, signature: bytes, data: bytes) -> bool:
        """Tell whether the pod of a writer signed."""
        try:
            self.keys[writer].public_key().verify(signature, data)
        except (KeyError, InvalidSignature):
            return False
        return True


class Pod:
    """One pod; paths are text, contents are told by a word."""

    def __init__(self, mesh: Mesh, name: str) -> None:
        self.mesh = mesh
        self.name = name
        self.skew_s = 0.0
        self.folder = mesh.folder / name
        self.folder.mkdir(exist_ok=True)
        self.key = Ed25519PrivateKey.from_private_bytes(hash_bytes(name.encode()))
        roots = Roots(
            sign=self.key.sign,
            verify=mesh.verify,
            pod_of_writer=lambda writer: PodId(writer.hex() * 2),
            pod_name_of=lambda writer: mesh.names.get(writer, "unknown"),
            strategy_for=lambda path: mesh.strategy,
            versions=lambda: mesh.versions,
        )
        now: Callable[[], float] = lambda: mesh.now_s + self.skew_s  # noqa: E731
        self.meta = Metadata(self.folder / "metadata.db", roots, now=now, has_room=lambda: True)
        self.tree, self.log, self.writer = self.meta.tree, self.meta.log, self.meta.writer
        mesh.names[self.writer], mesh.keys[self.writer] = name, self.key
        self.deltas: list[Delta] = []
        self.tree.on_delta(self.deltas.append)

    def close(self) -> None:
        self.mesh.opened.remove(self)
        self.meta.close()

    # -- words --------------------------------------------------------------------------------------------------------

    def at(self, path: str) -> Node:
        """Return what a path shows."""
        return self.tree.resolve(path.encode())

    def _above(self, path: str) -> tuple[Node, bytes]:
        above, _, name = path.rpartition("/")
        return self.at(above), name.encode()

    def make(self, path: str, kind: Kind = Kind.FILE, mode: int = 0o644, target: bytes = b"") -> Node:
        parent, name = self._above(path)
        return self.tree.create(parent.inode, name, kind, mode=mode, uid=1, gid=1, mtime_ns=1, target=target)

    def mkdir(self, path: str) -> Node:
        return self.make(path, Kind.DIRECTORY, 0o755)

    def save(self, path: str, text: str, over: Node | None = None) -> Node:
        """Save a file: in place of what it shows, or of what an earlier look (``over``) showed."""
        try:
            node = over or self.at(path)
        except FileSystemError:
            node = self.make(path)
        dots: Sequence[Dot] = node.shown
        return self.tree.publish(node.inode, node.link, content(text), len(text), 1, dots)

    def rename(self, path: str, new: str, *, exchange: bool = False) -> Node | None:
        (parent, name), (into, new_name) = self._above(path), self._above(new)
        return self.tree.rename(parent.inode, name, into.inode, new_name, exchange=exchange)

    def unlink(self, path: str) -> Node:
        parent, name = self._above(path)
        return self.tree.unlink(parent.inode, name)

    def rmdir(self, path: str) -> None:
        parent, name = self._above(path)
        self.tree.rmdir(parent.inode, name)

    def link(self, path: str, new: str) -> Node:
        parent, name = self._above(new)
        return self.tree.link(self.at(path).inode, parent.inode, name)

    def ls(self, path: str = "") -> list[str]:
        return [name.decode(errors="surrogateescape") for name, _ in self.tree.children(self.at(path).inode)]

    def files(self) -> dict[str, ContentId]:
        """Return path → content of all files."""
        return {
            path.decode(errors="surrogateescape"): node.content for path, node in self.walk() if node.kind is Kind.FILE
        }

    def walk(self) -> Iterator[tuple[bytes, Node]]:
        root = self.tree.get(ROOT_INODE)
        assert root is not None
        return self.tree.walk(root)

    def shape(self) -> list[tuple[bytes, Node]]:
        """Return everything that is the same on all pods."""
        return [(path, node) for path, node in self.walk() if not node.is_directory] + [
            (path, node) for path, node in self.walk() if node.is_directory and node.inode != ROOT_INODE
        ]

    def trash(self) -> list[tuple[str, str, ContentId]]:
        """Return (path, reason, content) of what is in the trash, sorted."""
        return sorted((one.path.decode(), one.reason, one.content) for one in self.tree.trash())

    def entry(self, path: str, text: str | None = None) -> TrashEntry:
        """Return the latest entry of a path, or the one of a content."""
        found = self.tree.trash_of(path.encode())
        return next(one for one in found if text is None or one.content == content(text))

    def restore(self, path: str, text: str | None = None) -> str:
        """Restore it; return where it is then."""
        node = self.tree.restore(self.entry(path, text))
        found = self.tree.path(node.inode)
        assert found is not None
        return found.decode()

    # -- mail ---------------------------------------------------------------------------------------------------------

    def tell(self) -> list[Entry]:
        """Commit; return all that this pod ever wrote."""
        self.log.durable(self.log.commit())
        return self.log.read(self.writer, 0, 1 << 30)

    def hear(self, entries: Sequence[Entry]) -> list[Entry]:
        """Receive entries; return those applied."""
        return anyio.run(self.log.receive, entries, SENDER, backend="trio")


def exchange(*pods: Pod) -> None:
    """Everybody hears everything; then all show the same."""
    told = [pod.tell() for pod in pods]
    for pod in pods:
        for entries in told:
            pod.hear(entries)
    for pod in pods[1:]:
        assert dict(pod.shape()).keys() == dict(pods[0].shape()).keys()
        assert pod.files() == pods[0].files()
        assert list(pod.tree.trash()) == list(pods[0].tree.trash())


@contextmanager
def mesh(folder: Path) -> Iterator[Mesh]:
    """A mesh whose pods are closed at the end."""
    found = Mesh(folder)
    try:
        yield found
    finally:
        for pod in tuple(found.opened):
            pod.close()
