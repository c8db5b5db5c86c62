"""Whatever replicas do, in whatever order they hear of it: one tree, the one that the records must show; nothing lost.

``python -m tests.properties.crdt_meta.test_convergence FIRST LAST`` runs as many seeds as you like.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from base.ids import EMPTY_CONTENT, InodeId
from crdt_meta.node import Kind
from crdt_meta.records import Strategy
from tests.properties.crdt_meta.checks import by_the_rules, check, rows_of, shown_tree
from tests.properties.crdt_meta.oracle import Oracle, Shown, load
from tests.properties.crdt_meta.replica import Replica
from tests.properties.crdt_meta.world import SAME_CONTENT, SENDER, World, seeded_ids

STRATEGIES = (Strategy.KEEP_BOTH, Strategy.KEEP_BOTH, Strategy.LAST_WRITER_WINS, None)
SEEDS = 500
CHUNK = 50


async def converge(world: World, steps: int, check_every: int) -> dict[bytes, Shown]:
    """Work, then exchange everything; return the tree that all show."""
    await world.begin()
    for step in range(steps):
        world.step()
        if world.rng.random() < world.mail_rate:
            replica = world.rng.choice(world.replicas)
            mail = world.mail(replica)
            await replica.log.receive(mail, SENDER)
        if world.rng.random() < 0.1:
            replica = world.rng.choice(world.remaining())
            await replica.meta.tidying.turn(replica.surroundings, world.now_s)
        if world.rng.random() < 0.03:
            world.come_and_go()
        if step % check_every == 0:
            check(world.rng.choice(world.replicas))
    world.away.clear()
    for _ in range(6):
        await exchange(world)
        for one in world.remaining():
            await one.meta.tidying.turn(one.surroundings, world.now_s)
        world.now_s += 1000.0
    for _ in range(6):  # who hears a removal may have to write down what it builds on (`rescue`): that is news, too
        if not await exchange(world):
            break
    trees = [check(one) for one in world.remaining()]
    trashes = [list(rows_of(one.meta.view.trash)) for one in world.remaining()]
    assert all(trash == trashes[0] for trash in trashes), "replicas have another trash"
    assert all(tree == trees[0] for tree in trees), "replicas differ"
    return trees[0]


async def exchange(world: World) -> bool:
    """All who are left hear everything from everybody; return whether there was news."""
    news = False
    for one in world.remaining():
        one.catch_up()
        one.save()
    for one in world.remaining():
        for other in world.remaining():
            if one is other or not one.meet(other):
                continue
            other.save()
            for writer in other.log.vector():
                while entries := other.log.read(writer, one.log.vector().get(writer, 0), 1 << 20):
                    if not await one.log.receive(entries, SENDER):
                        break
                    news = True
    return news


async def check_another_order(world: World) -> None:
    """A replica that hears of everything in another order shows the same; so does a view made anew."""
    other = Replica(world, len(world.replicas))
    world.replicas.append(other)
    first = world.remaining()[0]
    other.surroundings.learn(first.surroundings)
    heaps = [first.log.read(w, 0, 1 << 30) for w in first.log.vector()]
    with by_the_rules(other.meta.view):
        while heaps := [heap for heap in heaps if heap]:
            heap = world.rng.choice(heaps)
            number = world.rng.randrange(1, 6)
            await other.log.receive([heap.pop(0) for _ in range(min(number, len(heap)))], SENDER)
    tree, trash = check(other), list(rows_of(other.meta.view.trash))
    assert trash == list(rows_of(first.meta.view.trash)), "the order of arrival matters for the trash"
    assert tree == shown_tree(first), "the order of arrival matters"
    other.meta.view.rebuild()
    other.tree._nodes.clear()
    assert shown_tree(other) == tree, "the rebuilt view differs"
    assert list(rows_of(other.meta.view.trash)) == trash, "the rebuilt trash differs"


def check_nothing_lost(world: World, tree: dict[bytes, Shown]) -> None:
    """What was saved and neither saved over nor removed by somebody who saw it is shown."""
    visible = {shown.content for shown in tree.values()}
    over = {one.base for one in world.saved} | {one.content for one in world.removed} | world.passed_over
    for one in world.saved:
        assert one.content in visible or one.content in over, "an edit is lost"


def check_nothing_resurrected(world: World, tree: dict[bytes, Shown]) -> None:
    """What somebody saved over or removed is not shown, unless it had got a name of its own before."""
    oracle = Oracle(load(world.remaining()[0].meta.store), world.pod_name)
    over, removed = {one.base for one in world.saved}, {one.content for one in world.removed if one.last}
    for shown in tree.values():
        if shown.content in {EMPTY_CONTENT, SAME_CONTENT, *world.restored, *world.may_return}:
            continue
        owner = world.remaining()[0].meta.view.sibling_owner.get(InodeId(shown.inode), shown.inode)
        settled = shown.inode in oracle.birth and oracle.birth[shown.inode][1].origin is not None
        assert settled or shown.content not in over, "what was saved over is back"
        assert settled or shown.content not in removed or owner in world.linked, "what was removed is back"


async def run(seed: int, folder: Path, *, steps: int | None = None, check_every: int = 9) -> World:
    rng = random.Random(seed)
    strategy = rng.choice(STRATEGIES)
    with seeded_ids(rng):
        world = World(folder, rng, rng.randrange(2, 5), strategy)
        try:
            tree = await converge(world, steps or rng.randrange(10, 130), check_every)
            if strategy is Strategy.KEEP_BOTH:
                check_nothing_lost(world, tree)
                check_nothing_resurrected(world, tree)
            world.counts["conflict"] += any(b".conflict-" in path for path in tree)
            world.counts["merged"] += any(
                len(world.remaining()[0].tree.display.group(InodeId(one.inode))) > 1
                for one in tree.values()
                if one.kind is Kind.DIRECTORY
            )
            world.counts["repaired"] += bool(world.remaining()[0].meta.view.demoted)
            await check_another_order(world)
        finally:
            world.close()
    return world


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_replicas_converge(first: int) -> None:
    """Two processes share the seeds of a chunk."""
    commands = [
        [sys.executable, "-m", __spec__.name, str(start), str(start + CHUNK // 2)]
        for start in (first, first + CHUNK // 2)
    ]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for command in commands]
    said = [one.communicate()[0].decode() for one in running]
    assert all(one.returncode == 0 for one in running), "\n".join(text[-3000:] for text in said)


@pytest.mark.parametrize("order", ["3", "5", "6"])
def test_merged_directories_that_move_into_each_other_whatever_order_a_set_has(order: str) -> None:
    """Half of all orders had a pod look at groups of directories for ever that no longer are any."""
    command = [sys.executable, "-m", __spec__.name, "355355135", "355355136"]
    environment = {**os.environ, "PYTHONHASHSEED": order}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(min_value=10**6, max_value=1 << 60), steps=st.integers(min_value=2, max_value=80))
def test_replicas_converge_on_new_seeds(seed: int, steps: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(partial(run, seed, Path(folder), steps=steps), backend="trio")


def main() -> None:
    """Run the seeds from FIRST to LAST; stop at the first that fails."""
    first, last = (int(text) for text in sys.argv[1:3])
    every = int(sys.argv[3]) if len(sys.argv) > 3 else 9
    total: Counter[str] = Counter()
    started = time.monotonic()
    for seed in range(first, last):
        folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").exists() else None))
        try:
            total += anyio.run(partial(run, seed, folder, check_every=every), backend="trio").counts
        except BaseException:
            print("SEED", seed)  # noqa: T201
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    print(last - first, "seeds in", round(time.monotonic() - started, 1), "s;", dict(total))  # noqa: T201


if __name__ == "__main__":
    main()
