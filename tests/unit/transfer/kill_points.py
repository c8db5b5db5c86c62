"""Kills three pods at once before the N-th step that touches a disk or the network, for every N, and starts them again.

    python -m tests.unit.transfer.kill_points STORY FOLDER [FIRST STRIDE]

A *step* is a file written, forced down, renamed or removed, a transaction of the holdings, a message. Each N is a forked
process of its own, in virtual time. After each kill all that the tree named must be there, byte for byte, and whatever a
pod says that it keeps must be whole on its disk. Prints how many steps there were.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import anyio
import trio.testing

from base.ids import ContentId
from tests.simulation.transfer.local_mesh import LocalMesh, Shelf, until
from tests.simulation.transfer.pods import Pod, cluster
from transfer import disk
from transfer.api import ContentInfo
from transfer.draft import Draft
from transfer.gather import is_whole_kept
from transfer.holdings_db import HoldingsDb
from transfer.settings import TransferSettings
from transfer.store import ChunkStore, Room

MIB: Final = 1 << 20
SETTINGS: Final = TransferSettings(packed_bytes=0, pass_every_s=30.0)
STEPS: Final = (
    (disk, "write_file"),
    (disk, "sync_paths"),
    (ChunkStore, "_rename"),
    (ChunkStore, "_unlink"),
    (HoldingsDb, "_transaction"),
    (LocalMesh, "call"),
)
KILLED: Final = 77
MOST: Final = 2000
Tell = Callable[[str], None]


def arm(at: int) -> None:
    """End this process before its step of this number."""
    count = 0

    def counted(work: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                os._exit(KILLED)
            return work(*args, **more)

        return step

    for owner, name in STEPS:
        setattr(owner, name, counted(getattr(owner, name)))


def some_bytes(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


FIRST, SECOND = some_bytes(3 * MIB // 2, 1), some_bytes(MIB, 1)[:MIB] + some_bytes(MIB // 2, 2)
LARGE = some_bytes(6 * MIB, 3)


async def name(pods: list[Pod], pod: Pod, draft: Draft, placed: list[Pod], tell: Tell, what: str) -> ContentId:
    """Do what closing a file does; ``tell`` when the tree has its record."""
    sealed = await draft.seal()
    await pod.transfer.sync()
    info = ContentInfo(sealed.content, sealed.size, pod.id, len(placed), True, False)
    tell(f"{what} {sealed.content.hex()} {sealed.size} {pods.index(pod)}")
    pod.shelf.add(info, [one.id for one in placed])
    pod.transfer.published(sealed.content)
    draft.discard()
    for other in pods:
        other.transfer.noticed([sealed.content])
    return sealed.content


async def moving(pods: list[Pod], tell: Tell) -> None:
    """Write, replicate, move, drop, overwrite, collect."""
    a, b, c = pods
    draft = a.transfer.draft()
    await draft.write(0, FIRST)
    old = await name(pods, a, draft, [a, b], tell, "first")
    await until(lambda: {a.id, b.id} == a.transfer.holders(old).kept == b.transfer.holders(old).kept)
    a.shelf.placement[old] = [b.id, c.id]
    for pod in pods:
        pod.transfer.reconsider()
    await until(lambda: b.transfer.holders(old).kept == {b.id, c.id}, 300)
    await until(lambda: old.hex() not in a.kept())
    draft = b.transfer.draft(old, len(FIRST), a.id)
    await draft.write(MIB, SECOND[MIB:])
    new = await name(pods, b, draft, [b, c], tell, "second")
    tell(f"gone {old.hex()}")
    b.shelf.infos[new] = replace(b.shelf.infos[new])
    del b.shelf.infos[old]
    for pod in pods:
        pod.transfer.noticed([old, new])
    await until(lambda: all(old.hex() not in pod.kept() for pod in pods), 600)


async def lodging(pods: list[Pod], tell: Tell) -> None:
    """Write a file that is larger than its pod's store, through to another pod."""
    a, b, _ = pods
    a.transfer.configure(replace(SETTINGS, room=Room(3 * MIB), draft_bytes=2 * MIB))

    async def no() -> bool:
        return False

    a.transfer.on_full(no, lambda _: no(), lambda: [b.id])
    draft = a.transfer.draft()
    for at in range(0, len(LARGE), MIB):
        await draft.write(at, LARGE[at : at + MIB])
        assert await draft.read(0, MIB) == LARGE[:MIB]
    content = await name(pods, a, draft, [b], tell, "large")
    await until(lambda: a.transfer.holders(content).kept == {b.id})
    await anyio.sleep(30)
    lodging = b.transfer.lodging
    assert lodging is not None
    assert b.transfer._database.lodgers() == []


STORIES: Final[dict[str, Callable[[list[Pod], Tell], Awaitable[None]]]] = {"moving": moving, "lodging": lodging}
DATA: Final = {"first": FIRST, "second": SECOND, "large": LARGE}


def virtually(work: Callable[[], Awaitable[None]]) -> None:
    anyio.run(work, backend="trio", backend_options={"clock": trio.testing.MockClock(autojump_threshold=0)})


def act(story: str, folder: Path, at: int) -> None:
    told = os.open(folder / "told", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def run() -> None:
        async with cluster(folder, 3, settings=SETTINGS) as pods:
            arm(at)
            await STORIES[story](pods, lambda line: (os.write(told, f"{line}\n".encode()), None)[1])
            os._exit(0)

    virtually(run)


def check(folder: Path) -> None:
    lines = (folder / "told").read_text().splitlines()
    gone = {line.split()[1] for line in lines if line.startswith("gone")}
    named = [line.split() for line in lines if not line.startswith("gone")]

    def fill(shelf: Shelf) -> None:
        for _, content, size, author in named:
            if content not in gone:
                one = ContentId(bytes.fromhex(content))
                shelf.add(ContentInfo(one, int(size), shelf.pods[int(author)], 2, True, False))

    async def run() -> None:
        async with cluster(folder, 3, settings=SETTINGS, fill=fill) as pods:
            await anyio.sleep(60)
            for what, content, _, _ in named:
                one = ContentId(bytes.fromhex(content))
                if content in gone:
                    continue
                for pod in pods:
                    assert await pod.read(one) == DATA[what], f"{what} on {pod.id}"
                    if pod.transfer.local(one) == "kept":
                        manifest = pod.transfer._access.manifest_now(one, len(DATA[what]))
                        assert manifest is not None
                        assert is_whole_kept(pod.transfer._store, one, manifest)
                await pods[0].transfer.wait_copies([one], 2, 600)

    virtually(run)


def forked(work: Callable[[], None]) -> int:
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    story, folder = sys.argv[1], Path(sys.argv[2])
    first, stride = map(int, sys.argv[3:5] or (1, 1))
    for at in range(first, MOST, stride):
        place = folder / str(at)
        place.mkdir()
        code = forked(lambda: act(story, place, at))  # noqa: B023
        if code not in (0, KILLED) or forked(lambda: check(place)):  # noqa: B023
            sys.exit(f"{story}: killed before step {at}, exit {code}; see {place}")
        shutil.rmtree(place)
        if code == 0:
            sys.stdout.write(f"{at - 1}\n")
            return
    sys.exit("it never ends")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
