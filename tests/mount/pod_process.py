"""A single pod with the real tree, byte store and mount, driven by JSON lines; and the metadata of a second pod.

    python tests/mount/pod_process.py HOME MOUNT OWNERSHIP

What is trivial here is the mesh (nobody else is there), the catalogue (one copy, here) and the signatures. The second
pod (``remote``) has a tree and a log of its own; its entries reach this pod by way of ``MetadataLog.receive``.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import anyio
import anyio.to_thread

from base.errors import FileSystemError, WormholeError
from base.home import Home
from base.ids import EMPTY_CONTENT, ClusterId, PodId, WriterId, hash_bytes
from crdt_meta.metadata import Metadata, Roots
from crdt_meta.node import Kind
from crdt_meta.records import Strategy
from mesh.api import Member, Role, State
from policies.config import ClusterConfig, parse_cluster
from transfer.api import ContentInfo
from transfer.service import Transfer
from transfer.settings import TransferSettings
from vfs.attributes import TYPE_BITS
from vfs.gate import Gate
from vfs.mount import Mount, MountSettings

HERE = PodId("1" * 32)
THERE = PodId("2" * 32)


def say(answer):
    """Send one line to the tests."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


class Alone:
    """The mesh of a pod without others."""

    pod_id = HERE
    cluster_id = ClusterId("c" * 32)

    def members(self):
        return [Member(HERE, "here", Role.FULL, State.ALIVE, "", None, None, {})]

    def is_behind(self) -> bool:
        return False

    def alive(self):
        return frozenset()

    def on_change(self, listener):
        pass

    def publish_meta(self, values):
        pass

    def handle(self, tag, handler):
        pass

    async def call(self, pod, tag, body, **_):
        raise AssertionError("nobody to call")

    def publish_log(self, entries):
        pass


class Catalogue:
    """One copy of everything, here."""

    def __init__(self, tree):
        self._tree = tree

    def info(self, content):
        for inode in self._tree.showing(content):
            node = self._tree.get(inode)
            if node is not None:
                return ContentInfo(content, node.size, HERE, 1, True, False)
        return None

    def page(self, after, limit):
        return [
            ContentInfo(content, size, HERE, 1, True, False) for content, size, _ in self._tree.contents(after, limit)
        ]

    def is_behind(self) -> bool:
        return False

    def place(self, info):
        return [HERE]


def metadata(path: Path) -> Metadata:
    """Open a tree; a signature is a hash."""
    roots = Roots(
        sign=hash_bytes,
        verify=lambda _, signature, data: signature == hash_bytes(data),
        pod_of_writer=lambda _: HERE,
        pod_name_of=lambda _: "there",
        strategy_for=lambda _: Strategy.KEEP_BOTH,
    )
    return Metadata(path, roots)


class Driver:
    """The pod and what the tests may ask of it."""

    def __init__(self, home: Home, directory: Path, ownership: str) -> None:
        home.path.mkdir(parents=True, exist_ok=True)
        self.meta = metadata(home.metadata_db)
        self.far = metadata(home.path / "far.db")
        self.transfer = Transfer(home, Alone(), Catalogue(self.meta.tree), TransferSettings())
        settings = MountSettings(directory, ownership, 10.0, os.getuid(), os.getgid(), "wormhole", home.private)
        self.config = ClusterConfig()
        self.mount = Mount(
            self.meta.tree,
            self.meta.committer,
            self.transfer,
            settings,
            self,
            space=lambda: (1 << 40, 1 << 39),
            gate=Gate(self.meta.tree, lambda: self.config),
        )

    def value(self, name, node):
        """Answer for an attribute of our own."""
        if name == b"user.wormhole.copies":
            return self.meta.tree.marks(node.inode).get(name, b"0")
        return node.content.hex().encode() if name == b"user.wormhole.content" else None

    def accepted(self, name, value, node):
        """Take over any value of one of them."""
        if name != b"user.wormhole.copies":
            raise FileSystemError(errno.EPERM)
        return value

    async def do_configure(self, text):
        """Put a cluster.toml in force."""
        self.config = parse_cluster(text)
        return {}

    async def do_settle(self):
        await self.mount.filesystem.publisher.settle_all()
        await self.meta.committer.durable()
        return {}

    async def do_forget(self):
        await self.mount.filesystem.changes.forget_everything()
        await anyio.to_thread.run_sync(self.mount.notifier.wait_empty, 10.0)
        return {}

    async def do_unpublished(self):
        return {"count": len(self.mount.filesystem.publisher)}

    async def do_unmount(self, force):
        await self.mount.unmount(force=force)
        return {}

    async def do_far_tree(self):
        """Bring the second pod up to date and tell what it shows."""
        await self.meta.committer.durable()
        await self.pass_on(self.meta, self.far, HERE)
        tree = self.far.tree
        shown = {}
        for path, node in tree.walk(tree.resolve(b"/")):
            facts = (TYPE_BITS[node.kind] | node.mode, node.uid, node.gid, node.nlink, node.mtime_ns, node.ctime_ns)
            shown[path.decode()] = [*facts, 0 if node.is_directory else node.size]
        del shown["/"]
        return {"shown": shown}

    async def do_remote(self, what, words):
        """Bring the second pod up to date, let it act, and apply what it did."""
        await self.meta.committer.durable()
        await self.pass_on(self.meta, self.far, HERE)
        return await self.do_apart(what, words)

    async def do_apart(self, what, words):
        """Let the second pod act on what it knows, and apply what it did."""
        await getattr(self, f"far_{what}")(*words)
        self.far.log.durable(self.far.log.commit())
        await self.pass_on(self.far, self.meta, THERE)
        return {}

    async def pass_on(self, source, target, sender):
        while True:
            vector = target.log.vector()
            entries = []
            for writer, upto in source.log.vector().items():
                if upto > vector.get(writer, 0) and writer != target.writer:
                    entries += source.log.read(WriterId(writer), vector.get(writer, 0), 1 << 20)
            if not entries:
                return
            assert await target.log.receive(entries, sender)
            target.log.commit()

    def far_at(self, path):
        above, _, name = path.encode().rpartition(b"/")
        return self.far.tree.resolve(above or b"/").inode, name

    async def far_write(self, path, data):
        data = bytes.fromhex(data)
        draft = self.transfer.draft(EMPTY_CONTENT, 0, None)
        await draft.write(0, data)
        content, size = await draft.seal()
        await self.transfer.sync()
        draft.discard()
        parent, name = self.far_at(path)
        tree = self.far.tree
        node = tree.lookup(parent, name)
        if node is None:
            node = tree.create(parent, name, Kind.FILE, mode=0o644, uid=0, gid=0, mtime_ns=1)
        tree.publish(node.inode, node.link, content, size, node.mtime_ns + 1_000_000_000, node.shown)

    async def far_unlink(self, path):
        self.far.tree.unlink(*self.far_at(path))

    async def far_rmdir(self, path):
        self.far.tree.rmdir(*self.far_at(path))

    async def far_rename(self, path, new):
        self.far.tree.rename(*self.far_at(path), *self.far_at(new))

    async def far_chmod(self, path, mode):
        node = self.far.tree.lookup(*self.far_at(path))
        assert node is not None
        self.far.tree.set_attributes(node.inode, mode=mode)

    # -- running

    async def serve(self, scope, *, task_status):
        await self.mount.run(task_status=task_status)
        scope.cancel()

    async def listen(self):
        while True:
            line = await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
            if not line:
                return
            request = json.loads(line)
            with anyio.CancelScope(shield=True):
                try:
                    answer = await getattr(self, f"do_{request.pop('do')}")(**request)
                except WormholeError as error:
                    answer = {"error": str(error)}
                say(answer)

    async def terminate(self, scope, *, task_status):
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                scope.cancel()
                return

    async def run(self):
        async with anyio.create_task_group() as below:
            await below.start(self.meta.committer.run)
            await below.start(self.transfer.run)
            async with anyio.create_task_group() as group:
                await group.start(self.terminate, group.cancel_scope)
                await group.start(self.serve, group.cancel_scope)
                say({"ready": True})
                group.start_soon(self.listen)
            below.cancel_scope.cancel()
        await self.meta.committer.finish()
        self.meta.close()
        self.transfer.close()


async def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    home, directory, ownership = sys.argv[1:]
    await Driver(Home(Path(home)), Path(directory), ownership).run()


if __name__ == "__main__":
    anyio.run(main, backend="trio")
    sys.stdout.flush()
    os._exit(0)  # A thread may still wait for standard input.
