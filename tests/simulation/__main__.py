"""Runs the simulator by hand: ``python -m tests.simulation --pods 1000 --seed 7``.

Prints what `docs/benchmarks.md` has; a story that goes wrong prints its seed and ends with exit code 1.
"""

from __future__ import annotations

import argparse
import gc
import resource
import sys
import time
from collections.abc import Callable

from tests.simulation.mesh import figures
from tests.simulation.mesh.simulator import World
from tests.simulation.mesh.story import failures, play


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--pods", type=int, help="how many pods (stories: by the seed, 2 to 50)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stories", type=int, metavar="COUNT", help="play so many stories, from the seed on")
    parser.add_argument("--figure", choices=sorted(FIGURES), action="append", help="all but endurance by default")
    chosen = parser.parse_args()
    gc.disable()  # everything stays anyway, and looking through it takes a third of the time
    if chosen.stories:
        wrong = failures(range(chosen.seed, chosen.seed + chosen.stories), lambda seed: play(seed, chosen.pods))
        sys.stdout.write(("\n".join(wrong) or f"{chosen.stories} stories from seed {chosen.seed} on: all well") + "\n")
        return 1 if wrong else 0
    for name in chosen.figure or [name for name in FIGURES if name != "endurance"]:
        began, worked = time.monotonic(), time.process_time()
        try:
            said = FIGURES[name](chosen.pods or 50, chosen.seed)
        except AssertionError as error:
            sys.stdout.write(f"{name}: {error}\n")
            return 1
        took_s, worked_s = time.monotonic() - began, time.process_time() - worked
        most_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        cost = f"{took_s:.0f} s, {worked_s:.0f} s of the processor, at most {most_gb:.1f} GB"
        sys.stdout.write(f"{name}, {chosen.pods or 50} pods, seed {chosen.seed}: {said} [{cost}]\n")
        sys.stdout.flush()
    return 0


def spread(pods: int, seed: int) -> str:
    return figures.spread(World(pods, seed, network=figures.LOSSY, warm=True), 100).text()


def traffic(pods: int, seed: int) -> str:
    world = World(pods, seed, network=figures.LINK, warm=True)
    world.run(5.0)
    return figures.traffic(world, 20.0).text()


def deaths(pods: int, seed: int) -> str:
    world = World(pods, seed, network=figures.LOSSY, warm=True)
    world.run(2.0)
    count = max(1, pods // 200)
    return f"{count} deaths at once known to all after {figures.deaths(world, count):.1f} s"


def halves(pods: int, seed: int) -> str:
    world = World(pods, seed, network=figures.LOSSY, warm=True)
    world.run(2.0)
    return f"half cut away for 20 s: all agree again {figures.halves(world, 20.0):.1f} s after healing"


def endurance(pods: int, seed: int) -> str:
    return figures.endurance(World(pods, seed, network=figures.LINK, warm=True), 60.0)


FIGURES: dict[str, Callable[[int, int], str]] = {
    "spread": spread,
    "traffic": traffic,
    "deaths": deaths,
    "halves": halves,
    "endurance": endurance,
}

if __name__ == "__main__":
    sys.exit(main())
