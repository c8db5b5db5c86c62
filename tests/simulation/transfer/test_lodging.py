"""A file larger than its pod's store is written through to another pod, and nothing of it is lost on the way (R26)."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from base.errors import DamagedError, NoSpaceError, RefusedError, UnreachableError, WormholeError
from base.ids import ContentId
from mesh.wire import Tag
from tests.simulation.transfer.local_mesh import Network, Shelf, until
from tests.simulation.transfer.pods import Pod
from transfer.api import ContentInfo
from transfer.draft import Draft
from transfer.lodging import ASK_EVERY_S
from transfer.settings import TransferSettings
from transfer.store import Room

MIB = 1 << 20
LIMIT = 4 * MIB
LARGE = random.Random(1).randbytes(10 * MIB + 12345)
SETTINGS = TransferSettings(packed_bytes=0, pass_every_s=30.0)
SMALL_STORE = replace(SETTINGS, room=Room(LIMIT), draft_bytes=2 * MIB)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    import trio.testing

    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


class House:
    """A pod with a small store, and one with room, that can be started and stopped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = [SMALL_STORE, SETTINGS]
        self.network = Network()
        self.meshes = [self.network.add(1), self.network.add(2)]
        for mesh in self.meshes:
            mesh.up = False
        self.shelf = Shelf([mesh.pod_id for mesh in self.meshes])

    @contextlib.asynccontextmanager
    async def pod(self, number: int) -> AsyncIterator[Pod]:
        mesh, settings = self.meshes[number], self.settings[number]
        pod = Pod(self.folder / str(number), mesh, self.shelf, settings, False)
        mesh.on_content = pod.transfer.noticed
        host = self.meshes[1].pod_id
        pod.transfer.on_full(_nothing, lambda _: _nothing(), lambda: [host])
        self.network.set_up(mesh.pod_id, True)
        async with anyio.create_task_group() as group:
            await group.start(pod.run)
            yield pod
            group.cancel_scope.cancel()
        mesh.listeners.clear()
        self.network.set_up(mesh.pod_id, False)
        pod.transfer.close()

    def publish(self, pod: Pod, draft: Draft, content: ContentId, size: int) -> None:
        self.shelf.add(ContentInfo(content, size, pod.id, 1, True, False), [self.meshes[1].pod_id])
        pod.transfer.published(content)
        draft.discard(abandon=True)
        for mesh in self.meshes:
            if mesh.up and mesh.on_content is not None:
                mesh.on_content([content])


async def _nothing() -> bool:
    return False


async def write(pod: Pod, draft: Draft, start: int = 0, stop: int = len(LARGE)) -> None:
    for at in range(start, stop, MIB // 2):
        part = LARGE[at : min(stop, at + MIB // 2)]
        if not draft.write_now(at, part):
            await draft.write(at, part)
        assert pod.transfer.bytes_used() <= LIMIT


async def test_it_goes_through_and_is_read_back_while_it_is_open(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.pod(1) as b, house.pod(0) as a:
        draft = a.transfer.draft()
        await write(a, draft)
        assert await draft.read(0, len(LARGE)) == LARGE
        await draft.write(5, b"changed")
        changed = LARGE[:5] + b"changed" + LARGE[12:]
        sealed = await draft.seal()
        await a.transfer.sync()
        assert b.transfer.local(sealed.content) != "kept", "nothing names it yet"
        house.publish(a, draft, sealed.content, sealed.size)
        await until(lambda: a.transfer.holders(sealed.content).kept == {b.id})
        assert await a.read(sealed.content) == await b.read(sealed.content) == changed
        await until(lambda: b.transfer._database.lodgers() == [])
        await anyio.sleep(60)
        pieces = await b.transfer.chunks(sealed.content)
        assert pieces is not None
        assert {*(piece.hex() for piece in pieces), sealed.content.hex()} == b.kept(), "what was overwritten is gone"
        assert a.transfer.bytes_used() <= LIMIT
        assert await b.read(sealed.content) == changed


async def test_what_nobody_publishes_is_let_go(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.pod(1) as b, house.pod(0) as a:
        draft = a.transfer.draft()
        await write(a, draft)
        await draft.seal()
        assert b.transfer.bytes_used() > len(LARGE)
        await anyio.sleep(5 * ASK_EVERY_S)
        assert b.transfer.bytes_used() > len(LARGE), "it is open still"
        draft.discard(abandon=True)
        await until(lambda: b.transfer.bytes_used() == 0)


async def test_what_a_host_took_in_before_it_was_full_is_let_go(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.settings[1] = replace(SETTINGS, room=Room(2 * MIB))
    async with house.pod(1) as b, house.pod(0) as a:
        draft = a.transfer.draft()
        with pytest.raises(NoSpaceError):
            await write(a, draft)
        assert draft.host is None
        assert len(b.transfer._database.lodgers()) == 1
        await anyio.sleep(3 * ASK_EVERY_S)
        assert len(b.transfer._database.lodgers()) == 1, "it is open still, and may try again"
        draft.discard(abandon=True)
        await until(lambda: b.transfer._database.lodgers() == [] and b.transfer.bytes_used() == 0)


async def test_the_host_is_killed_and_starts_again_while_the_file_is_open(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.pod(0) as a:
        draft = a.transfer.draft()
        async with house.pod(1) as b:
            await a.write(b"something that the tree knows" * 1000)  # without it nothing is swept
            await write(a, draft, 0, 8 * MIB)
            held = b.kept()
        b_database = tmp_path / "1" / "holdings.db"
        _was_killed(b_database)
        with pytest.raises(UnreachableError):
            await draft.read(0, MIB)
        async with house.pod(1) as b:
            assert b.kept() >= held
            await write(a, draft, 8 * MIB)
            sealed = await draft.seal()
            house.publish(a, draft, sealed.content, sealed.size)
            await until(lambda: b.transfer.local(sealed.content) == "kept")
            assert await a.read(sealed.content) == LARGE


def _was_killed(path: Path) -> None:
    import sqlite3

    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE meta SET value = 0 WHERE key = 'clean'")


async def test_what_fsync_wrote_down_outlives_its_writer(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.pod(1) as b:
        async with house.pod(0) as a:
            draft = a.transfer.draft()
            await write(a, draft)
            sealed = await draft.seal()
            await a.transfer.sync()
            house.shelf.journal = {sealed.content: sealed.size}
        _was_killed(tmp_path / "0" / "holdings.db")
        await anyio.sleep(5 * ASK_EVERY_S)
        async with house.pod(0) as a:
            await anyio.sleep(5 * ASK_EVERY_S)
            house.shelf.journal = {}
            house.shelf.add(ContentInfo(sealed.content, sealed.size, a.id, 1, True, False), [b.id])
            a.transfer.published(sealed.content)
            b.transfer.noticed([sealed.content])
            await until(lambda: b.transfer.local(sealed.content) == "kept")
            assert await a.read(sealed.content) == LARGE
            assert a.transfer.bytes_used() <= LIMIT


async def test_a_close_fails_while_the_host_is_away_and_succeeds_later(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.pod(1) as b, house.pod(0) as a:
        draft = a.transfer.draft()
        await write(a, draft)
        house.network.set_up(b.id, False)
        with pytest.raises((UnreachableError, NoSpaceError)):
            await draft.seal()
        house.network.set_up(b.id, True)
        sealed = await draft.seal()
        house.publish(a, draft, sealed.content, sealed.size)
        await until(lambda: b.transfer.local(sealed.content) == "kept")
        assert await b.read(sealed.content) == LARGE


async def test_without_a_host_the_write_fails_and_what_was_written_stays(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.pod(0) as a:
        draft = a.transfer.draft()
        with pytest.raises(NoSpaceError):
            await write(a, draft)
        written = draft.size
        assert await draft.read(0, written) == LARGE[:written]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (None, DamagedError),
        ([b"short", []], DamagedError),
        ([b"d" * 16, [[b"p" * 32]]], DamagedError),
        ([b"d" * 16, [[b"p" * 32, 0]]], DamagedError),
        ([b"d" * 16, [], b"c" * 32, -1], DamagedError),
        ([b"d" * 16, [[b"p" * 32, 5]] * 100], DamagedError),
        ([b"d" * 16, [], b"c" * 32, 5], RefusedError),
    ],
)
async def test_what_cannot_be_held_is_refused(tmp_path: Path, body: object, error: type[WormholeError]) -> None:
    house = House(tmp_path)
    async with house.pod(1) as b, house.pod(0) as a:
        with pytest.raises(error):
            await a.mesh.call(b.id, Tag.LODGE, body)
        with pytest.raises(DamagedError):
            await b.mesh.call(a.id, Tag.LODGE_ASK, [[b"d" * 16, [b"c"]]])
        await b.transfer._database.lodge(a.id, b"e" * 16, [], None, most_pieces=9, most_contents=9)
        with pytest.raises(RefusedError):
            await b.mesh.call(b.id, Tag.LODGE, [b"e" * 16, []])
