"""Many small meshes and one large one. A failure names its seed: ``python -m tests.simulation --stories 1 --seed N``."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.simulation.mesh import figures
from tests.simulation.mesh.simulator import World
from tests.simulation.mesh.story import failures, play

STORIES = 300
BATCH = 15
PROCESSES = 2


def batch(first: int) -> list[str]:
    return failures(range(first, first + BATCH))


def large(seed: int) -> tuple[figures.Traffic, figures.Spread, float]:
    world = World(1000, seed, network=figures.LINK, warm=True)
    world.run(1.0)
    quiet = figures.traffic(world, 5.0)
    world.network = figures.LOSSY
    spread = figures.spread(world, 12, pause_s=0.05)
    return quiet, spread, figures.deaths(world, 3)


def test_stories_of_small_meshes_and_a_thousand_pods():
    """One test, so that the large one and the many small ones share the processor's cores."""
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        thousand = pool.submit(large, 1)
        wrong = [one for found in pool.map(batch, range(0, STORIES, BATCH)) for one in found]
        quiet, spread, known_s = thousand.result()
    assert not wrong, "\n".join(wrong)
    assert max(spread.seconds) <= 1.0, spread.text()
    assert spread.pushes_per_pod <= 1.5, spread.text()
    assert known_s <= 5.0
    few = World(50, 1, network=figures.LINK, warm=True)
    few.run(5.0)  # until everybody has found who is linked to whom
    assert quiet.bytes_per_s == pytest.approx(figures.traffic(few, 5.0).bytes_per_s, rel=0.2)


@pytest.mark.parametrize("seed", range(2))
def test_halves_of_a_large_mesh_agree_soon_after_healing(seed):
    world = World(100, seed, network=figures.LOSSY, warm=True)
    world.run(1.0)
    assert figures.halves(world, 12.0) <= 30.0


def test_a_large_mesh_grows_from_nothing():
    world = World(60, 4, network=figures.LOSSY, views=True)
    world.settle()
    world.run(5.0)
    degrees = [len(links) for links in world.links.values()]
    assert min(degrees) >= 4
    assert sum(degrees) / len(degrees) <= 9
    figures.spread(world, 5)


def test_a_mesh_of_few_is_fully_linked():
    world = World(16, 4, views=True)
    world.settle()
    assert all(len(links) == 15 for links in world.links.values())


def test_the_same_seed_tells_the_same_story():
    one, other = play(77), play(77)
    assert [(pod.messages, pod.bytes_sent) for pod in one.pods.values()] == [
        (pod.messages, pod.bytes_sent) for pod in other.pods.values()
    ]
