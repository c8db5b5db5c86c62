from __future__ import annotations

from tests.unit.crdt_meta.fixtures import ann, anyio_backend, bob, eve, town, world

__all__ = ["ann", "anyio_backend", "bob", "eve", "town", "world"]
