"""The metadata can't be written for a moment: nothing is taken from then on, and the next start has what was committed."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest

from base.errors import NoSpaceError
from crdt_meta.log import MetadataLog
from tests.unit.crdt_meta.pods import SENDER, Mesh, Pod


@contextmanager
def full(pod: Pod) -> Iterator[None]:
    """Let the write-ahead log of a pod's metadata grow no further."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat(f"{pod.meta.store.path}-wal").st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def written(pod: Pod, number: int) -> None:
    for one in range(number):
        pod.save(f"/{pod.name}{one}", f"{one}")
        pod.log.commit()


def opened_again(pod: Pod) -> Pod:
    pod.close()
    return pod.mesh.pod(pod.name)


@pytest.mark.parametrize("known", [True, False])
def test_what_comes_while_the_disk_is_full_is_fetched_again(world: Mesh, known: bool) -> None:
    """Also of a writer who was unheard-of until then, whose number in the file another one gets."""
    ann, bob, zoe = (world.pod(name) for name in ("ann", "bob", "zoe"))
    written(ann, 40)
    written(zoe, 3)
    entries = ann.tell()
    bob.save("/own", "own")
    bob.tell()
    before, lost = (10, 20) if known else (0, 10)
    bob.hear(entries[:before])
    with full(bob), pytest.raises(NoSpaceError, match="metadata can't be written"):
        bob.hear(entries[before:lost])
    for attempt in (lambda: bob.hear(entries[lost:]), lambda: bob.hear(zoe.tell()), lambda: bob.save("/new", "new")):
        with pytest.raises(NoSpaceError):  # there is room again, but memory isn't what the file has
            attempt()
    bob = opened_again(bob)
    assert bob.log.vector().get(ann.writer, 0) == before
    assert set(bob.files()) == {"/own", *(f"/ann{one}" for one in range(before))}
    for pod in (zoe, ann):
        bob.hear(pod.tell())
    bob.tell()
    bob = opened_again(bob)
    assert set(bob.files()) == {"/own", *zoe.files(), *ann.files()}


def fill(pod: Pod) -> None:
    for one in range(20_000):
        pod.save(f"/{one}", f"{one}")
        if not one % 100:
            pod.log.commit()


def test_changes_that_find_the_disk_full(world: Mesh) -> None:
    ann = world.pod("ann")
    written(ann, 3)
    with full(ann), pytest.raises(NoSpaceError):
        fill(ann)
    with pytest.raises(NoSpaceError):
        ann.save("/new", "new")
    assert {"/ann0", "/ann1", "/ann2"} <= set(opened_again(ann).files())


def test_the_pod_hears_of_it(world: Mesh) -> None:
    """The task that commits ends with the error, though it was another one that failed."""
    ann, bob = world.pod("ann"), world.pod("bob")
    written(ann, 1)
    bob.save("/own", "own")
    failed: list[bool] = []

    async def receiving(log: MetadataLog) -> None:
        with full(bob):
            try:
                await log.receive(ann.tell(), SENDER)
            except NoSpaceError:
                failed.append(True)

    async def run() -> None:
        async with anyio.create_task_group() as group:
            await group.start(bob.meta.committer.run)
            await bob.meta.committer.durable()
            bob.meta.store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # what was reserved ahead, too
            group.start_soon(receiving, bob.log)
            await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        anyio.run(run, backend="trio")
    assert failed
    assert caught.group_contains(NoSpaceError)


def test_the_number_of_a_writer_is_taken_back_with_all_else(world: Mesh) -> None:
    store, (ann, bob) = world.pod("eve").meta.store, (world.pod(name).writer for name in ("ann", "bob"))
    store.savepoint()
    taken = store.number_of(ann)
    store.undo()
    assert store.number_of(bob) == taken
    assert store.number_of(ann) != taken
    assert {store.writer_of(store.number_of(one)) for one in (ann, bob)} == {ann, bob}
