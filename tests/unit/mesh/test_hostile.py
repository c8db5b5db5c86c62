"""What strangers, broken peers and cut cables do to a listening node: nothing."""

from __future__ import annotations

import contextlib
import logging
import resource
import socket
import ssl
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import anyio
import pytest
from anyio.abc import SocketStream

from base.errors import RefusedError, UnreachableError
from base.ids import PodId
from mesh import link, listener, peers, switchboard, tls
from mesh.api import Lane, State
from mesh.channel import Channel, ConnectionLostError
from mesh.handshake import Dial, Hello, Local, common_version, greet, new_process_id
from mesh.link import JoinStream
from mesh.listener import GRACE_S, MAX_STRANGERS, MAX_STRANGERS_OF_HOST
from mesh.node import MeshNode
from mesh.records import EVERYBODY, Config, seal
from mesh.wire import ProtocolError, Tag, encode, unpack
from tests.golden.make import FORMS
from tests.unit.mesh.cluster import Home, admit, found, linked, running, until
from tests.unit.mesh.test_node import state_of


async def ended(stream: SocketStream) -> None:
    """Wait until the other side closes."""
    with anyio.fail_after(60):
        try:
            while True:
                await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(range(256)) * 4096, b"\x00" * 10, b"\x16\x03\x01\xff\xff"]
)
async def test_garbage_is_closed_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, garbage: bytes
) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    async with running(a) as (node_a,):
        for _ in range(5):
            async with await anyio.connect_tcp("127.0.0.1", node_a.port) as stream:
                try:
                    await stream.send(garbage)
                    await stream.send_eof()
                except (anyio.BrokenResourceError, OSError):
                    continue
                await ended(stream)
        await until(lambda: "was closed" in caplog.text)
        async with running(b, peers=[node_a.address]) as (node_b,):
            await linked(node_a, node_b)
    closed = [record for record in caplog.records if "was closed" in record.getMessage()]
    assert len(closed) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_of_too_many_unfinished_connections_the_oldest_gives_way(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    async with running(a) as (node_a,):
        streams = [await anyio.connect_tcp("127.0.0.1", node_a.port) for _ in range(MAX_STRANGERS_OF_HOST)]
        await until(lambda: len(node_a._door._strangers) == MAX_STRANGERS_OF_HOST)
        await anyio.sleep(GRACE_S)
        streams.append(await anyio.connect_tcp("127.0.0.1", node_a.port))
        await ended(streams[0])
        for stream in streams:
            await stream.aclose()


async def test_ten_thousand_half_open_connections_keep_nobody_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """From eight addresses; two linked pods go on, a third one comes in meanwhile."""
    a = found(tmp_path / "a")
    b, c = admit(a, tmp_path / "b"), admit(a, tmp_path / "c")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 30_000), hard))
    opened: list[socket.socket] = []
    try:
        async with running(a, b) as (node_a, node_b):
            await linked(node_a, node_b)
            took_s, strangers = list[float](), 0
            for number in range(10_000):
                stream = socket.socket()
                stream.setblocking(False)
                stream.bind((f"127.0.1.{number % 8}", 0))
                stream.connect_ex(("127.0.0.1", node_a.port))
                opened.append(stream)
                if number % 100 == 99:
                    started = anyio.current_time()
                    await node_b.call(a.pod, Tag.CLOCK, None, timeout_s=60)
                    took_s.append(anyio.current_time() - started)
                    strangers = max(strangers, len(node_a._door._strangers))
            assert strangers <= MAX_STRANGERS
            assert statistics.median(took_s) < 2.0
            async with running(c, peers=[node_a.address]) as (node_c,):
                await linked(node_a, node_c)
            assert node_b.pod_id in node_a.alive()
    finally:
        for stream in opened:
            stream.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len([record for record in caplog.records if "too many unfinished" in record.getMessage()]) <= 8


@pytest.mark.parametrize("tls_first", [False, True], ids=["bytes", "frames"])
async def test_who_dawdles_is_let_go_and_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls_first: bool
) -> None:
    """A slowloris: one byte after the other, of the TLS handshake or of the first frame of a join."""
    monkeypatch.setattr(listener, "HANDSHAKE_S", 1.0)
    monkeypatch.setattr(listener, "LIFETIME_S", 1.0)

    async def serve(stream: JoinStream) -> None:
        await stream.receive()

    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    async with running(a) as (node_a,):
        node_a.set_join_handler(serve)
        stream = await anyio.connect_tcp("127.0.0.1", node_a.port)
        if tls_first:
            channel = await Channel.open(stream, tls.join_context(), server_side=False)
            saying = dawdle(channel.send, encode(Tag.JOIN_START, {"x": "y" * 1000}))
        else:
            saying = dawdle(stream.send, client_hello())
        started = anyio.current_time()
        async with running(b, peers=[node_a.address]) as (node_b,):
            await linked(node_a, node_b)
            with pytest.raises((anyio.BrokenResourceError, UnreachableError)):
                await saying
            assert 0.9 < anyio.current_time() - started < 60
            assert node_b.pod_id in node_a.alive()
        await stream.aclose()


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    hello = tls.join_context().wrap_bio(ssl.MemoryBIO(), outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    return outgoing.read()


async def dawdle(send: Callable[[bytes], Awaitable[None]], data: bytes) -> None:
    for byte in data:
        await send(bytes([byte]))
        await anyio.sleep(0.05)


async def test_a_member_that_sends_garbage_of_every_kind_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Messages of the golden files, broken in all ways: ignored or answered, logged once for each reason."""
    a = found(tmp_path / "a")
    b, c = admit(a, tmp_path / "b"), admit(a, tmp_path / "c")
    rng = Random(5)
    frames = [path.read_bytes() for path in sorted(FORMS.glob("message-1-*.bin"))]
    async with running(a, c) as (node_a, node_c):
        await linked(node_a, node_c)
        for _ in range(3):
            channel = await greeted(b, node_a)
            with contextlib.suppress(ConnectionLostError):
                for _ in range(300):
                    body = bytearray(rng.choice(frames)[4:])
                    for _ in range(rng.randint(1, 4)):
                        body[rng.randrange(1, len(body))] = rng.randrange(256)
                    with contextlib.suppress(ProtocolError):
                        unpack(body[1:])  # what isn't msgpack ends the link at once: that is tested above
                        await channel.send(len(body).to_bytes(4, "big") + bytes(body))
            await channel.close()
        assert await node_c.call(a.pod, Tag.CLOCK, None)
        await until(lambda: node_a.alive() == {c.pod})
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    said = Counter(record.getMessage() for record in caplog.records if "ignored" in record.getMessage())
    assert said
    assert max(said.values()) == 1


async def connect(home: Home, node: MeshNode) -> Channel:
    stream = await anyio.connect_tcp("127.0.0.1", node.port)
    context = tls.client_context(home.identity, home.roster.anchors())
    return await Channel.open(stream, context, server_side=False)


async def greeted(home: Home, node: MeshNode) -> Channel:
    async def learn(records: list[bytes], sender: PodId) -> None:
        home.store.add(records)

    channel = await connect(home, node)
    await greet(channel, Local(home.pod, new_process_id(), 1, home.roster, learn), Dial(Lane.CONTROL, 1))
    return channel


async def drained(channel: Channel) -> None:
    """Read until the other side closes the connection."""
    with anyio.fail_after(60):
        try:
            while True:
                await channel.receive()
        except ConnectionLostError:
            await channel.close()


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff\xff\xff\xff\x02",
        b"\x00\x00\x00\x00\x02",
        b"\x00\x00\x00\x03\x02\xc1\xc1",
        encode(Tag.REQUEST, ["no", "request"]),
        encode(Tag.ANSWER, None),
        encode(Tag.HELLO, {}),
    ],
)
async def test_a_member_that_breaks_the_protocol_loses_its_link(tmp_path: Path, frame: bytes) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    async with running(a) as (node_a,):
        channel = await greeted(b, node_a)
        await channel.send(frame)
        await drained(channel)
        async with running(b, peers=[node_a.address]) as (node_b,):
            await linked(node_a, node_b)


@pytest.mark.parametrize("tag", [20, 21, 30, 31, 32, 99, 200])
async def test_malformed_messages_do_no_harm(tmp_path: Path, tag: int) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    async with running(a) as (node_a,):
        channel = await greeted(b, node_a)
        bodies: list[object] = [None, 7, [], {}, {"ids": b"x"}, {"records": [1, b"x"]}, [[[]]], {"digest": b""}, [1, 2]]
        for body in bodies:
            await channel.send(encode(tag, body))
        await channel.send(encode(Tag.REQUEST, [1, tag, [1]]))
        with anyio.fail_after(60):
            while (frame := await channel.receive()).tag != Tag.FAILURE:
                assert frame.tag != Tag.GOODBYE
        await channel.close()


async def test_forged_and_unlawful_configurations_are_refused_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a = found(tmp_path / "a")
    b, stranger = admit(a, tmp_path / "b"), found(tmp_path / "stranger")
    first = a.roster.next_config("first", [EVERYBODY], 0)
    a.store.add([seal(first, a.roster.cluster_id, a.pod, a.identity.sign)])
    old = a.roster.config_id()
    a.store.add([seal(a.roster.next_config("second", ["a"], 0), a.roster.cluster_id, a.pod, a.identity.sign)])
    in_force = a.roster.config_id()
    before = a.roster.records()
    unlawful = [
        seal(Config(in_force, "by b", 0), a.roster.cluster_id, b.pod, b.identity.sign),
        seal(Config(b"", "a beginning by b", 0), a.roster.cluster_id, b.pod, b.identity.sign),
        seal(Config(in_force, "forged", 0), a.roster.cluster_id, a.pod, b.identity.sign),
        seal(Config(in_force, "elsewhere", 0), stranger.roster.cluster_id, a.pod, a.identity.sign),
        b"garbage",
    ]
    early = [seal(Config(bytes(16), "early", 0), a.roster.cluster_id, b.pod, b.identity.sign)]
    backdated = [seal(Config(old, "backdated", 0), a.roster.cluster_id, b.pod, b.identity.sign)]
    async with running(a) as (node_a,):
        channel = await greeted(b, node_a)
        for _ in range(3):
            await channel.send(encode(Tag.ROSTER, {"records": [*unlawful, *early, *before]}))
        await channel.send(encode(Tag.ROSTER, {"records": backdated}))
        await until(lambda: len(a.roster) > len(before))
        await channel.close()
    assert a.roster.config_id() == in_force
    refused = [one.getMessage() for one in caplog.records if "was refused" in one.getMessage()]
    assert sorted(one.partition("refused: ")[2] for one in refused) == [
        "b does not administer by the configuration that it follows",
        "it is malformed",
        "it is of another cluster",
        "its signature is wrong",
    ]


async def test_messages_without_a_certificate_close_the_connection(tmp_path: Path) -> None:
    async def serve(stream: JoinStream) -> None:
        await stream.receive()

    a = found(tmp_path / "a")
    async with running(a) as (node_a,):
        node_a.set_join_handler(serve)
        for frame in (encode(Tag.REQUEST, [1, 42, None]), b"\x00\x00\x40\x01\x0a", encode(Tag.JOIN_START, 5)):
            stream = await anyio.connect_tcp("127.0.0.1", node_a.port)
            channel = await Channel.open(stream, tls.join_context(), server_side=False)
            await channel.send(frame)
            with anyio.fail_after(60):
                assert (await channel.receive()).tag == Tag.GOODBYE
                with pytest.raises(ConnectionLostError):
                    await channel.receive()
            await channel.close()


async def test_old_tls_is_refused(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with running(a) as (node_a,):
        stream = await anyio.connect_tcp("127.0.0.1", node_a.port)
        with anyio.fail_after(60), pytest.raises(UnreachableError):
            await Channel.open(stream, context, server_side=False)


def test_versions_are_negotiated_or_clearly_refused(tmp_path: Path) -> None:
    a = found(tmp_path / "a")

    def hello(oldest: int, newest: int) -> Hello:
        return Hello(oldest, newest, a.roster.cluster_id, a.pod, bytes(8), Lane.CONTROL, b"", 1, 1)

    assert common_version(hello(1, 3), hello(2, 5)) == 3
    assert common_version(hello(2, 5), hello(1, 3)) == 3
    with pytest.raises(RefusedError, match="This pod speaks"):
        common_version(hello(1, 1), hello(2, 3))
    with pytest.raises(RefusedError, match=f"The pod {a.pod} speaks"):
        common_version(hello(2, 3), hello(1, 1))


class Cable:
    """A relay before a node that can stop carrying anything while both connections stay open."""

    def __init__(self) -> None:
        self.whole = anyio.Event()
        self.whole.set()
        self.port = 0

    def cut(self) -> None:
        self.whole = anyio.Event()

    def mend(self) -> None:
        self.whole.set()

    async def carry(self, source: SocketStream, target: SocketStream) -> None:
        try:
            while True:
                data = await source.receive()
                await self.whole.wait()
                await target.send(data)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            await anyio.aclose_forcefully(target)


@asynccontextmanager
async def cable(port: int, host: str = "127.0.0.1") -> AsyncIterator[Cable]:
    relay = Cable()

    async def serve(stream: SocketStream) -> None:
        await relay.whole.wait()
        async with stream, await anyio.connect_tcp(host, port) as onward, anyio.create_task_group() as both:
            both.start_soon(relay.carry, stream, onward)
            both.start_soon(relay.carry, onward, stream)

    listeners = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    relay.port = listeners.extra(anyio.abc.SocketAttribute.local_port)
    async with anyio.create_task_group() as group:
        group.start_soon(listeners.serve, serve)
        yield relay
        group.cancel_scope.cancel()
    await listeners.aclose()


async def test_a_cut_cable_is_noticed_within_five_seconds_and_mends(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    async with running(a) as (node_a,), cable(node_a.port) as wire:
        # b's own address is one that a can't dial, so all goes through the cable
        node_b = MeshNode(
            b.identity,
            b.store,
            listen="127.0.0.1:0",
            advertise=["127.0.0.1:1"],
            peers=[f"127.0.0.1:{wire.port}"],
        )
        async with anyio.create_task_group() as group:
            await group.start(lambda task_status: node_b.run(task_status=task_status))
            await linked(node_a, node_b)
            took_s: list[float] = []
            while not took_s or (min(took_s) >= 5 and len(took_s) < 3):  # this machine may have something else to do
                wire.cut()
                started = anyio.current_time()
                await until(lambda: state_of(node_a, b.pod) is State.SUSPECT)
                await until(lambda: state_of(node_b, a.pod) is State.SUSPECT)
                took_s.append(anyio.current_time() - started)
                with pytest.raises(UnreachableError):
                    await node_a.call(b.pod, Tag.KEEP, None)
                wire.mend()
                await linked(node_a, node_b)
            assert min(took_s) < 5
            group.cancel_scope.cancel()


async def test_who_has_another_address_is_linked_anew_before_the_others_miss_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "SILENT_S", 3600.0)
    monkeypatch.setattr(peers, "SILENT_S", 1.0)
    homes = [found(tmp_path / "a")]
    homes.append(admit(homes[0], tmp_path / "b"))
    at_home, roaming = sorted(homes, key=lambda home: home.pod)  # a link dialled by the lesser name is preferred
    here = MeshNode(at_home.identity, at_home.store, listen="127.0.0.1:0", advertise=["127.0.0.1:1"])
    there = MeshNode(roaming.identity, roaming.store, listen="0.0.0.0:0", advertise=["127.0.0.1:1"])
    async with anyio.create_task_group() as group:
        for one in (here, there):
            await group.start(lambda task_status, one=one: one.run(task_status=task_status))
        async with cable(there.port, "127.0.0.3") as wire:
            here.set_addresses(["127.0.0.1:1"], [f"127.0.0.1:{wire.port}"])
            await linked(here, there)
            here.set_addresses(["127.0.0.1:1"], [])
            there.set_addresses(["127.0.0.1:1"], [f"127.0.0.1:{here.port}"])
            wire.cut()
            lost = here._table.control(roaming.pod)
            monkeypatch.setattr(switchboard, "is_own", lambda host: host != "127.0.0.3")
            await until(lambda: here._table.control(roaming.pod) not in (lost, None))
            await linked(here, there)
        group.cancel_scope.cancel()
