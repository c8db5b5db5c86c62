"""Client pods with full pods over real links: what they do, what they may not, and full pods that die meanwhile."""

from __future__ import annotations

import errno
import logging
import os
import time
from pathlib import Path

import anyio
import pytest

from base.errors import DamagedError, FileSystemError, NoSpaceError, RefusedError, UnreachableError
from base.ids import ROOT_INODE, ContentId, author_of, new_inode_id, new_writer_id
from crdt_meta.node import Kind as NodeKind
from crdt_meta.operation import Create, Link, pack
from mesh.api import Entry, State
from mesh.broadcast import Broadcast
from mesh.gossip_messages import Kind
from mesh.records import Config, Writer, seal
from mesh.wire import Tag
from operations.settings import transfer_settings
from policies.config import parse_cluster, parse_pod
from tests.unit.mesh.cluster import failing, until
from tests.unit.operations.pods import Pod, cluster
from transfer.holdings import Holding, Page
from transfer.holdings import pack as pack_page

LARGE = (2 << 20) + 77


def request(pod: Pod, name: str, *, ahead_s: float = 0.0, again: bool = False) -> list[object]:
    """Return a well-formed request to make a file."""
    stamp = int((time.time() + ahead_s) * 1000) << 16
    create = Create(new_inode_id(), ROOT_INODE, name.encode(), NodeKind.FILE, 0o644, 1, 1, 1, b"", 0)
    return [stamp, again, [], pack(create), None]


def size_at(pod: Pod, name: str) -> int | None:
    """Return the size that a pod shows: a name is there before its content."""
    node = pod.tree.lookup(ROOT_INODE, name.encode())
    return None if node is None else node.size


def kept_at(pod: Pod, name: str) -> str:
    node = pod.tree.lookup(ROOT_INODE, name.encode())
    return "" if node is None else pod.transfer.local(node.content)


async def test_a_client_writes_through_a_full_pod_and_keeps_nothing(tmp_path: Path) -> None:
    async with cluster(tmp_path, "desktop") as made:
        laptop, desktop = made.pods
        client = await made.client("client")
        for name, data in (("small", b"hello"), ("large", os.urandom(LARGE)), ("empty", b"")):
            node = await client.save(name, data)
            assert client.tree.lookup(ROOT_INODE, name.encode()) == node, "its own writes are seen at once"
            assert node.author == client.home.pod or not data
            for pod in (laptop, desktop):
                await until(lambda pod=pod, name=name, data=data: size_at(pod, name) == len(data))  # type: ignore[misc]
                await until(lambda pod=pod, name=name: kept_at(pod, name) == "kept")  # type: ignore[misc]
                assert await pod.read(name) == data
        content = client.tree.resolve(b"/large").content
        (first,) = {info.author for pod in made.pods[:2] if (info := pod.catalogue.info(content)) is not None}
        assert first in {laptop.home.pod, desktop.home.pod}, "all agree whose is the first copy: not the client's"
        assert client.names() == desktop.names() == ["empty", "large", "small"]
        await until(lambda: kept_at(client, "large") == "cached")
        holders = laptop.transfer.holders(client.tree.resolve(b"/large").content)
        assert client.home.pod not in holders.kept | holders.cached | holders.absent
        assert not client.home.roster.writers().get(client.metadata.writer)
        laptop.tree.unlink(ROOT_INODE, b"empty")
        laptop.metadata.committer.request()
        await until(lambda: "empty" not in client.names())


async def test_what_the_tree_refuses_reaches_the_client(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        client = await made.client("client")
        await client.create("a")
        for attempt, number in (
            (lambda: client.create("a"), errno.EEXIST),
            (lambda: client.editor.rmdir(ROOT_INODE, b"a"), errno.ENOTDIR),
            (lambda: client.editor.unlink(ROOT_INODE, b"b"), errno.ENOENT),
        ):
            error = await failing(attempt)
            assert isinstance(error, FileSystemError)
            assert error.errno == number
        with pytest.raises(FileSystemError) as own:
            client.tree.unlink(ROOT_INODE, b"a")
        assert own.value.errno == errno.EROFS, "a client writes no log"


async def test_a_full_pod_refuses_a_client_what_a_rule_forbids(tmp_path: Path) -> None:
    """Whatever the client's own mount believes; but what was written before the rule came is published."""
    async with cluster(tmp_path) as made:
        (laptop,) = made.pods
        client = await made.client("client")
        folder = await client.create("archive", kind=NodeKind.DIRECTORY)
        old, other = await client.create("old", folder.inode), await client.create("other")
        laptop.cluster = parse_cluster('[[rule]]\nmatch = "/archive/"\nread_only = true\n')
        editor = client.editor
        for attempt in (
            lambda: client.create("new", folder.inode),
            lambda: editor.unlink(folder.inode, b"old"),
            lambda: editor.rmdir(ROOT_INODE, b"archive"),
            lambda: editor.rename(folder.inode, b"old", ROOT_INODE, b"out"),
            lambda: editor.rename(ROOT_INODE, b"archive", ROOT_INODE, b"out"),
            lambda: editor.rename(ROOT_INODE, b"other", folder.inode, b"in"),
            lambda: editor.link(old.inode, ROOT_INODE, b"out"),
            lambda: editor.link(other.inode, folder.inode, b"in"),
            lambda: editor.set_attributes(old.inode, mode=0),
            lambda: editor.set_xattr(old.inode, b"user.a", b"b"),
        ):
            error = await failing(attempt)
            assert (type(error), error.errno) == (FileSystemError, errno.EROFS)
        content, size = await client.store(b"hello")
        await editor.publish(old.inode, old.link, content, size, 1, old.shown, 1)
        assert sorted(client.names()) == ["archive", "other"]


async def test_a_client_holds_what_is_pinned_in_its_cache(tmp_path: Path) -> None:
    """It is there unread, stays when the cache is too small for the rest, and a pin that doesn't fit is left alone."""
    rules = '[cache]\nlimit = "1 MB"\n[[rule]]\nmatch = "/pinned*"\nkeep = true\n'
    async with cluster(tmp_path) as made:
        (laptop,) = made.pods
        client = await made.client("client")
        pod = parse_pod(rules, "pod.toml")
        client.catalogue.configure(client.cluster, pod)
        client.transfer.configure(transfer_settings(pod, keeps=False))
        writer = await made.client("writer")
        data = os.urandom(600_000)
        await writer.save("pinned", data)
        await until(lambda: kept_at(client, "pinned") == "cached")
        for number in range(4):
            await writer.save(f"other{number}", os.urandom(300_000))
            await until(lambda number=number: size_at(client, f"other{number}") == 300_000)  # type: ignore[misc]
            await client.read(f"other{number}")
            await until(lambda number=number: kept_at(client, f"other{number}") == "cached")  # type: ignore[misc]
        assert kept_at(client, "pinned") == "cached"
        assert kept_at(client, "other0") == "none", "the cache was full"
        await writer.save("pinned too", os.urandom(700_000))
        await until(lambda: size_at(client, "pinned too") == 700_000)
        info = client.catalogue.info(client.tree.resolve(b"/pinned too").content)
        assert info is not None
        error = await failing(lambda: client.transfer._caching.hold(info))
        assert isinstance(error, NoSpaceError | UnreachableError), "the latter if the pod itself let go of it meanwhile"
        await until(lambda: (kept_at(client, "pinned too"), kept_at(client, "pinned")) == ("none", "cached"))
        await laptop.kill()
        assert await client.read("pinned") == data


async def test_a_full_pod_dies_and_the_client_goes_on_with_the_other(tmp_path: Path) -> None:
    """Nothing that was closed is lost: not even what only the dead pod's disk and the client's cache have."""
    async with cluster(tmp_path, "desktop") as made:
        client = await made.client("client")
        await client.save("first", b"one")
        serving = next(pod for pod in made.pods if pod.tree.lookup(ROOT_INODE, b"first") is not None)
        (other,) = [pod for pod in made.pods[:2] if pod is not serving]
        data = os.urandom(LARGE)
        await client.save("second", data)
        async with anyio.create_task_group() as group:
            group.start_soon(client.save, "third", b"three")  # under way while it dies
            await serving.kill()
        await client.save("first", b"changed")
        await until(lambda: other.names() == ["first", "second", "third"])
        assert [await other.read(name) for name in other.names()] == [b"changed", data, b"three"]
        assert not other.tree.conflicts()


async def test_an_operation_whose_answer_was_lost_is_done_once(tmp_path: Path) -> None:
    async with cluster(tmp_path, "desktop") as made:
        laptop, desktop = made.pods
        client = await made.client("client")
        body = request(client, "note")
        await client.mesh.call(laptop.home.pod, Tag.OPERATION, body)
        answer = await client.mesh.call(laptop.home.pod, Tag.OPERATION, [body[0], True, *body[2:]])
        assert isinstance(answer, list)
        await until(lambda: desktop.names() == ["note"])
        await client.mesh.call(desktop.home.pod, Tag.OPERATION, [body[0], True, *body[2:]])
        for pod in made.pods:
            await until(lambda pod=pod: pod.names() == ["note"])  # type: ignore[misc]
            assert not pod.tree.conflicts()
        content, node = await client.store(b"hello"), client.tree.resolve(b"/note")
        replaces, later = [list(dot) for dot in node.shown], request(client, "x", ahead_s=1.0)[0]
        publish = [7, node.inode, node.link, *content, 1, replaces, 1]
        for again in (False, True):
            await client.mesh.call(desktop.home.pod, Tag.OPERATION, [later, again, [], publish, None])
        assert len(desktop.tree.resolve(b"/note").shown) == 1
        contents = desktop.tree.view.records.of(node.inode, "c")
        assert [body.clock for _, body in contents] == [later]
        assert desktop.tree.view.records.of(desktop.tree.resolve(b"/note").inode, "i")[0][0] == author_of(
            client.home.pod
        )


async def test_a_pod_that_lacks_what_the_client_saw_gets_it_from_the_client(tmp_path: Path) -> None:
    """The pod that made the folder is gone before the other one heard of it."""
    async with cluster(tmp_path) as made:
        (laptop,) = made.pods
        client = await made.client("client")
        folder = await client.create("folder", kind=NodeKind.DIRECTORY)
        await laptop.kill()
        made.pods.remove(laptop)
        desktop = await made.add("desktop")
        await until(lambda: desktop.home.pod in client.mesh.alive())
        await client.create("file", folder.inode)
        assert [name for name, _ in desktop.tree.children(folder.inode)] == [b"file"]


async def test_without_a_full_pod_a_client_only_reads(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        (laptop,) = made.pods
        client = await made.client("client")
        await client.save("note", b"hello")
        await until(lambda: kept_at(client, "note") == "cached")
        await laptop.kill()
        await until(lambda: not client.mesh.alive())
        error = await failing(lambda: client.create("more"))
        assert error.errno == errno.EROFS
        assert await client.read("note") == b"hello"


async def test_clients_come_and_go_without_an_event(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with cluster(tmp_path, "desktop") as made:
        laptop, desktop = made.pods
        changes: list[object] = []
        clients = [await made.client(f"client-{number}") for number in range(4)]
        caplog.clear()
        caplog.set_level(logging.INFO)
        before = [one.mesh._membership.view(two.home.pod).incarnation for one in made.pods[:2] for two in made.pods[:2]]
        for client in clients:
            await client.save(f"of {client.home.name}", b"x")
        for client in clients:
            await client.kill()
            made.pods.remove(client)
        await until(lambda: all(state_of(pod, one) is State.ABSENT for pod in (laptop, desktop) for one in clients))
        for pod in (laptop, desktop):
            assert len(pod.names()) == 4
            assert pod.mesh.alive() == {laptop.home.pod, desktop.home.pod} - {pod.home.pod}
            assert {one.home.pod for one in clients}.isdisjoint(pod.catalogue.full_pods())
            assert len(pod.home.roster.writers()) == 2
        after = [one.mesh._membership.view(two.home.pod).incarnation for one in made.pods for two in made.pods]
        assert (before, changes) == (after, [])
        ids = [client.home.pod for client in clients]
        of_full = [one.getMessage() for one in caplog.records if one.name.startswith("mesh")]
        assert not [text for text in of_full if any(pod in text for pod in ids)]


def state_of(pod: Pod, other: Pod) -> State:
    return next(member.state for member in pod.mesh.members() if member.pod == other.home.pod)


# -- hostile clients --------------------------------------------------------------------------------------------------


async def test_a_client_that_sends_what_it_may_not_is_refused_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with cluster(tmp_path, "desktop") as made:
        laptop, desktop = made.pods
        client = await made.client("client")
        here, mesh = laptop.home.pod, client.mesh

        def ask(body: object, tag: Tag = Tag.OPERATION) -> object:
            return lambda: mesh.call(here, tag, body)

        for body in (None, [], [1, 2, 3], request(client, "a")[:4], [*request(client, "a")[:3], [99], None]):
            assert isinstance(await failing(ask(body)), DamagedError)  # type: ignore[arg-type]
        assert isinstance(await failing(ask(request(client, "a", ahead_s=3600.0))), RefusedError)  # type: ignore[arg-type]
        root = [*request(client, "a")[:3], pack(Link(new_inode_id(), ROOT_INODE, ROOT_INODE, b"x")), None]  # type: ignore[arg-type]
        assert (await failing(ask(root))).errno == errno.EPERM  # type: ignore[arg-type]
        holdings = pack_page(Page(b"12345678", 0, 1, False, [(ContentId(os.urandom(32)), Holding.KEPT)]))
        assert isinstance(await failing(ask(holdings, Tag.HOLDINGS_PUSH)), RefusedError)  # type: ignore[arg-type]
        refused = [one for one in caplog.records if "was refused" in one.getMessage()]
        assert {client.home.pod in one.getMessage() for one in refused} == {True}
        assert len(refused) == 2, "logged once for each reason"
        full = await failing(lambda: desktop.mesh.call(here, Tag.OPERATION, request(desktop, "b")))
        assert isinstance(full, RefusedError)
        backwards = await failing(lambda: laptop.mesh.call(client.home.pod, Tag.OPERATION, request(laptop, "b")))
        assert isinstance(backwards, RefusedError)
        assert laptop.names() == []


async def test_a_client_forges_neither_log_entries_nor_records(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with cluster(tmp_path, "desktop") as made:
        laptop, desktop = made.pods
        client = await made.client("client")
        identity, roster = client.home.identity, client.home.roster
        forged = [
            seal(payload, roster.cluster_id, identity.pod_id, identity.sign)
            for payload in (Writer(new_writer_id()), Config(roster.config_id(), "[cluster]\nname = 'mine'\n", 0))
        ]
        digests = [pod.home.roster.digest() for pod in (laptop, desktop)]
        client.mesh._tell(laptop.home.pod, Tag.ROSTER, {"records": forged})
        desktop.tree.create(ROOT_INODE, b"true", NodeKind.FILE, mode=0o644, uid=1, gid=1)
        desktop.metadata.committer.request()
        await until(lambda: laptop.names() == ["true"])
        vector = laptop.metadata.log.vector()
        entry = desktop.metadata.log.read(desktop.metadata.writer, 0, 1 << 20)[0]
        forger = Broadcast(client.home.pod, client.mesh._rng)
        forger.link_up(laptop.home.pod, 0.0)
        bad = [Entry(entry.writer, entry.sequence + 1, entry.blob[:-5] + b"xxxxx")]
        for send in forger.publish(bad, 0.0):
            client.mesh._tell(*send)
        await until(lambda: "refused a transaction" in caplog.text and caplog.text.count("is a client") == 1)
        await client.mesh.call(laptop.home.pod, Tag.CLOCK, None)
        assert [pod.home.roster.digest() for pod in (laptop, desktop)] == digests
        assert laptop.metadata.log.vector() == vector
        assert client.home.pod in next(one.getMessage() for one in caplog.records if "refused a" in one.getMessage())


async def test_a_client_can_make_nobody_suspect(tmp_path: Path) -> None:
    async with cluster(tmp_path, "desktop") as made:
        laptop, desktop = made.pods
        client = await made.client("client")
        before = desktop.mesh._membership.view(desktop.home.pod).incarnation
        accusation = [1, bytes.fromhex(desktop.home.pod), before, bytes.fromhex(client.home.pod), 60_000]
        client.mesh._tell(laptop.home.pod, Tag.GOSSIP, [Kind.GOSSIP, [accusation]])
        known = [bytes.fromhex(desktop.home.pod), before, 1 << 20, before, bytes.fromhex(client.home.pod), 60_000]
        client.mesh._tell(laptop.home.pod, Tag.GOSSIP, [Kind.DIGEST, [known]])
        await client.mesh.call(laptop.home.pod, Tag.CLOCK, None)
        await laptop.mesh.call(desktop.home.pod, Tag.CLOCK, None)  # what laptop would pass on is there before this
        assert desktop.mesh._membership.view(desktop.home.pod).incarnation == before, "nothing to be refuted"
        assert laptop.mesh._membership.view(desktop.home.pod).state is State.ALIVE


async def test_the_bytes_must_be_those_that_were_announced(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        (laptop,) = made.pods
        client = await made.client("client")
        node = await client.create("note")
        content, size = await client.store(b"what it says")
        publish = [7, node.inode, node.link, content, size, 1, [[*dot] for dot in node.shown], 1]
        body = [request(client, "x")[0], False, [], publish, b"what it sends"]
        with pytest.raises(DamagedError):
            await client.mesh.call(laptop.home.pod, Tag.OPERATION, body)
        assert laptop.tree.resolve(b"/note").size == 0
