"""What goes through one TLS connection when it is sent at once, and when the network takes no more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketStream

from mesh import tls
from mesh.channel import Channel, ConnectionLostError
from mesh.wire import Kind, Tag, encode
from tests.unit.mesh.cluster import found

PART_BYTES = 4000


@asynccontextmanager
async def two_ends(folder: Path) -> AsyncIterator[tuple[Channel, Channel]]:
    home = found(folder)
    server = tls.server_context(home.identity, home.roster.anchors())
    client = tls.client_context(home.identity, home.roster.anchors())
    ends: list[Channel] = []
    done = anyio.Event()

    async def accept(stream: SocketStream) -> None:
        ends.append(await Channel.open(stream, server, server_side=True))
        ends[0].set_kind(Kind.CONTROL)
        done.set()
        await anyio.sleep_forever()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, accept)
        here = await Channel.open(await anyio.connect_tcp("127.0.0.1", port), client, server_side=False)
        await done.wait()
        yield here, ends[0]
        await here.close()
        await ends[0].close()
        group.cancel_scope.cancel()


def part(number: int) -> bytes:
    return encode(Tag.GOSSIP, [number, bytes(PART_BYTES)])


async def test_little_and_much_by_turns_arrives_whole(tmp_path: Path) -> None:
    sizes = [10, 100_000, 10, 10, 16 << 10, 1, 2_000_000, 5]
    async with two_ends(tmp_path) as (here, there), anyio.create_task_group() as group:

        async def send() -> None:
            for size in sizes:
                await here.send(encode(Tag.REQUEST, [0, int(Tag.KEEP), bytes(size)], Kind.BULK))

        there.set_kind(Kind.BULK)
        group.start_soon(send)
        with anyio.fail_after(60):
            assert [len((await there.receive()).body[2]) for _ in sizes] == sizes


async def test_a_channel_that_is_closed_while_it_is_waited_for_says_so(tmp_path: Path) -> None:
    async with two_ends(tmp_path) as (here, there), anyio.create_task_group() as group:
        ended: list[str] = []

        async def wait(channel: Channel) -> None:
            with pytest.raises(ConnectionLostError):
                await channel.receive()
            ended.append("ended")

        group.start_soon(wait, here)
        group.start_soon(wait, there)
        await anyio.wait_all_tasks_blocked()
        await there.close()  # its own task is told, and the other end
        with anyio.fail_after(60):
            while len(ended) < 2:
                await anyio.wait_all_tasks_blocked()


async def test_what_the_network_does_not_take_at_once_follows_in_order(tmp_path: Path) -> None:
    async with two_ends(tmp_path) as (here, there):
        taken = 0
        while here.send_now(part(taken)):
            taken += 1
        assert taken > 1
        assert here.unsent, "the last was taken, but only in part"
        assert not here.send_now(part(taken)), "nothing overtakes it"
        got: list[int] = []

        async def read() -> None:
            while len(got) < taken + 1:
                got.append((await there.receive()).body[0])

        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(read)
                await here.flush()
                assert not here.unsent
                await here.send(part(taken))
        assert got == list(range(taken + 1))


async def test_after_a_break_nothing_is_taken(tmp_path: Path) -> None:
    async with two_ends(tmp_path) as (here, there):
        assert here.send_now(part(0))
        await there.close()
        with anyio.fail_after(10):
            while here.send_now(part(1)):
                await anyio.sleep(0.01)
        with pytest.raises(ConnectionLostError):
            await here.send(part(2))
        with pytest.raises(ConnectionLostError):
            await here.flush()
