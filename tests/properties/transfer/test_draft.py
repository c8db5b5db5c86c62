"""A draft behaves like a byte array, whatever is written, cut, sealed or spilled, and seals to what it shows."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import anyio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from base.ids import EMPTY_CONTENT, ChunkId, ContentId, hash_bytes
from transfer import chunking
from transfer.access import Access
from transfer.draft import Draft
from transfer.draft_bytes import DraftMemory
from transfer.fetch import Candidates
from transfer.fetcher import Fetcher
from transfer.manifest import content_id
from transfer.offload import Offload
from transfer.reader import Reader
from transfer.settings import TransferSettings
from transfer.store import Room
from transfer.store_open import open_store

MIB = 1 << 20
NOBODY = Candidates(frozenset(), frozenset())


def make_access(folder: Path, *, threads: bool, draft_bytes: int) -> Access:
    offload = Offload(threads=threads)
    store = open_store(folder / "store", expected_id=None, offload=offload, room=Room())
    fetcher = Fetcher(None, offload, 1.0, lambda _wanted, _urgency: NOBODY)  # type: ignore[arg-type]
    return Access(store, fetcher, offload, TransferSettings(draft_bytes=draft_bytes))


offsets = st.one_of(
    st.integers(0, 4 * MIB),
    st.sampled_from([0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB - 3, 2 * MIB, 3 * MIB]),
)
lengths = st.one_of(st.integers(0, 5000), st.sampled_from([MIB, MIB + 1, 2 * MIB, 3 * MIB - 5]))
steps = st.one_of(
    st.tuples(st.just("write"), offsets, lengths),
    st.tuples(st.just("append"), lengths, st.booleans()),
    st.tuples(st.just("truncate"), offsets, st.none()),
    st.tuples(st.just("read"), offsets, lengths),
    st.tuples(st.just("seal"), st.none(), st.none()),
    st.tuples(st.just("reopen"), st.none(), st.none()),
)


async def put(draft: Draft, offset: int, data: bytes, now: bool) -> None:
    if not now or not draft.write_now(offset, data):
        await draft.write(offset, data)


def expected_id(data: bytes) -> ContentId:
    size = len(data)
    chunk_bytes = chunking.chunk_bytes_for(size)
    chunks = [ChunkId(hash_bytes(data[at : at + chunk_bytes])) for at in range(0, size, chunk_bytes)]
    return content_id(size, chunks)


async def play(folder: Path, script: list[tuple[str, int | None, int | bool | None]], seed: int, threads: bool) -> None:
    rng = random.Random(seed)
    access = make_access(folder, threads=threads, draft_bytes=2 * MIB)
    memory = DraftMemory(3 * MIB)
    draft = Draft(access, memory, EMPTY_CONTENT, 0, None, 0)
    model = bytearray()
    for kind, first, second in script:
        if kind in {"write", "append"}:
            offset = len(model) if kind == "append" else first or 0
            length = int((first if kind == "append" else second) or 0)
            data = rng.randbytes(length) if rng.random() < 0.9 else bytes(length)
            await put(draft, offset, data, rng.random() < 0.7)
            if data:
                model.extend(bytes(max(0, offset + length - len(model))))
                model[offset : offset + length] = data
        elif kind == "truncate":
            size = first or 0
            await draft.truncate(size)
            del model[size:]
            model.extend(bytes(size - len(model)))
        elif kind == "read":
            offset, length = first or 0, int(second or 0)
            found = draft.read_now(offset, length)
            assert found is None or found == model[offset : offset + length]
            assert await draft.read(offset, length) == model[offset : offset + length]
        else:
            sealed = await draft.seal()
            assert sealed == (expected_id(bytes(model)), len(model))
            assert await Reader(access, sealed.content, sealed.size, None).read(0, sealed.size + 1) == model
            if kind == "reopen":
                draft.discard()
                assert memory.used == 0
                draft = Draft(access, memory, sealed.content, sealed.size, None, 0)
        assert draft.size == len(model)
        assert 0 <= memory.used == draft._used <= 3 * MIB
    sealed = await draft.seal()
    assert sealed == (expected_id(bytes(model)), len(model))
    await access.store.sync()
    assert await Reader(access, sealed.content, sealed.size, None).read(0, sealed.size) == model
    draft.discard()
    assert memory.used == 0
    assert not access.pinned
    access.offload.close()
    access.store.close()


SHRINK_AND_GROW = [
    ("write", 0, 3 * MIB - 5),
    ("seal", None, None),
    ("truncate", MIB + 7, None),
    ("truncate", 4 * MIB, None),
    ("read", 0, 3 * MIB - 5),
    ("append", 10, False),
    ("seal", None, None),
    ("truncate", 5, None),
    ("reopen", None, None),
    ("truncate", 9, None),
]
OVERFLOW = [
    *(("write", index * MIB // 2 + 1, MIB - 3) for index in (6, 0, 4, 2, 8, 1, 5, 3)),
    ("truncate", 3 * MIB + 9, None),
    ("truncate", 4 * MIB, None),
    ("read", 0, 2 * MIB),
    ("read", 3 * MIB, MIB),
]

ACROSS_TWO_THAT_ARE_WHOLE = [("write", 0, 2 * MIB), ("write", 3 * MIB, MIB + 1), ("write", MIB - 3, 4)]


@settings(max_examples=120, deadline=None)
@example(SHRINK_AND_GROW, 1, False)
@example(ACROSS_TWO_THAT_ARE_WHOLE, 0, False)
@example(OVERFLOW, 1, True)
@given(st.lists(steps, max_size=12), st.integers(0, 2**32), st.booleans())
def test_a_draft_is_a_byte_array(
    script: list[tuple[str, int | None, int | bool | None]], seed: int, threads: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(play, Path(folder), script, seed, threads, backend="trio")
