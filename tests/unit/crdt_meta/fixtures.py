"""The pods of the stories, for tests of the engine wherever they stand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.crdt_meta.pods import Mesh, Pod, mesh
from tests.unit.crdt_meta.town import Town


@pytest.fixture
def anyio_backend() -> str:
    return "trio"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Mesh]:
    with mesh(tmp_path) as found:
        yield found


@pytest.fixture
def ann(world: Mesh) -> Pod:
    return world.pod("ann")


@pytest.fixture
def bob(world: Mesh) -> Pod:
    return world.pod("bob")


@pytest.fixture
def eve(world: Mesh) -> Pod:
    return world.pod("eve")


@pytest.fixture
def town(world: Mesh, ann: Pod, bob: Pod, eve: Pod) -> Town:
    """Ann, bob and eve, who reach each other."""
    return Town(world, ann, bob, eve)
