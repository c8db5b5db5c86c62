"""What a round of dropping or freeing costs with a large tree: finding out what else needs the pieces that may go.

.venv/bin/python -m benchmarks.freeing [--files 100000] [--rounds 5]

Works on a copy of a prepared tree, whose contents have no bytes. Prints the processor's time of a round, and its growth
from a tree of 10,000 files; run in turn with an earlier version, its before and after.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

import anyio

from base.home import Home
from base.ids import ChunkId, ContentId
from benchmarks.metadata import open_roots
from benchmarks.prepared import copied, prepared
from crdt_meta.metadata import Metadata
from operations.catalogue import TreeCatalogue
from policies.config import parse_cluster, parse_pod
from tests.simulation.transfer.local_mesh import Network
from transfer.dropping import BATCH
from transfer.service import Transfer
from transfer.settings import TransferSettings

SMALL = 10_000


async def measure(home: Path, rounds: int) -> list[float]:
    """Return what a round of dropping takes, one of freeing, and the one look after a start (ms)."""
    metadata = Metadata(Home(home).metadata_db, open_roots())
    mesh = Network().add(1)
    cluster = parse_cluster('[cluster]\nname = "freeing"\n')
    transfer = Transfer(
        Home(home), mesh, TreeCatalogue(metadata.tree, mesh, cluster, parse_pod("", "pod.toml")), TransferSettings()
    )
    releasing, draw = transfer.releasing, random.Random(1)
    assert releasing is not None
    contents: list[ContentId] = []
    while page := metadata.tree.contents(contents[-1] if contents else None, 1000):
        contents += [content for content, _, _ in page]
    took: dict[str, list[float]] = {"dropping": [], "freeing": []}
    for _ in range(rounds):
        dropped = frozenset(draw.sample(contents, BATCH))
        gone = {ChunkId(draw.randbytes(32)) for _ in range(BATCH)}
        start = time.process_time()
        assert not await releasing._needed({ChunkId(content) for content in dropped}, dropped)
        took["dropping"].append(time.process_time() - start)
        start = time.process_time()
        assert not await releasing._needed(gone)
        took["freeing"].append(time.process_time() - start)
    start = time.process_time()
    await releasing._look()
    took["the look after a start"] = [time.process_time() - start]
    transfer.close()
    metadata.close()
    return [1000 * statistics.median(one) for one in took.values()]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="whb-") as folder:
        found = []
        for files in (SMALL, options.files):
            home = Path(folder) / str(files)
            copied(prepared(files), home)
            found.append(anyio.run(measure, home, options.rounds, backend="trio"))
    least, most = found
    print(f"a round of {BATCH} contents, {options.files:,} files (processor; ratio to {SMALL:,} files):")
    for name, little, much in zip(("dropping", "freeing", "the look after a start"), least, most, strict=True):
        print(f"{name}: {much:.1f} ms ({much / little:.1f} times)")


if __name__ == "__main__":
    main()
