from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.crdt_meta.pods import Mesh, Pod, mesh


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
