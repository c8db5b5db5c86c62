"""The chain of a pod's starts: what goes on, what was restored, and from which sequence on."""

from __future__ import annotations

from random import Random

import pytest

from base.ids import WriterId
from crdt_meta.incarnation import (
    CHAIN_LIMIT,
    Chain,
    Continuation,
    Restored,
    Start,
    compare,
    contradicts,
    pack,
    parse,
    plain,
    unpack,
)

W1, W2, W3 = (WriterId(bytes((number,)) * 8) for number in (1, 2, 3))


def start(name: str, sequence: int, writer: WriterId = W1) -> Start:
    return Start(name.encode().ljust(16, b"."), writer, sequence)


def chain(*starts: Start) -> Chain:
    return Chain(starts)


ONE, TWO, THREE = start("one", 0), start("two", 5), start("three", 9)


@pytest.mark.parametrize("known", [chain(), chain(ONE), chain(ONE, TWO), chain(TWO), chain(ONE, TWO, THREE)])
def test_what_only_goes_on_is_no_restore(known: Chain) -> None:
    assert compare(chain(ONE, TWO, THREE), known, W1) == Continuation()


def test_a_backup_that_is_started_contradicts_from_its_start_on() -> None:
    mine = chain(ONE, TWO, start("restored", 9))
    assert compare(mine, chain(ONE, TWO, THREE), W1) == Restored(9)
    copied_while_running = chain(ONE, TWO, start("restored", 7))
    assert compare(copied_while_running, chain(ONE, TWO, THREE), W1) == Restored(7)
    started_twice = chain(ONE, TWO, start("restored", 7), start("again", 8))
    assert compare(started_twice, chain(ONE, TWO, THREE, start("four", 30)), W1) == Restored(7)


def test_an_original_that_hears_of_its_copy_contradicts_from_the_copys_start_on() -> None:
    copy = start("copy", 7)
    assert compare(chain(ONE, TWO), chain(ONE, TWO, copy), W1) == Restored(7)
    assert compare(chain(ONE, TWO, THREE), chain(ONE, TWO, copy), W1) == Restored(7)


def test_a_writer_taken_since_the_fork_contradicts_nothing() -> None:
    reborn = chain(ONE, TWO, start("restored", 9), start("reborn", 0, W2))
    assert compare(reborn, chain(ONE, TWO, THREE), W2) == Continuation()
    assert compare(chain(ONE, TWO, start("copy", 0, W2)), chain(ONE, TWO, THREE), W2) == Continuation()
    assert compare(chain(ONE, TWO), chain(ONE, TWO, start("copy", 0, W2)), W1) == Continuation()


def test_a_restore_after_a_rebirth_is_noticed_as_well() -> None:
    before = (ONE, TWO, start("restored", 9), start("reborn", 0, W2))
    mine = chain(*before, start("again", 4, W2))
    assert compare(mine, chain(*before, start("went on", 6, W2)), W2) == Restored(4)
    older = chain(ONE, TWO, start("older", 5))
    assert compare(older, chain(*before), W1) == Restored(5)


def test_the_original_went_on_under_another_writer() -> None:
    """Until it took that, it may have written on under the common one."""
    known = chain(ONE, TWO, start("reborn", 0, W3))
    assert compare(chain(ONE, TWO, start("restored", 7)), known, W1) == Restored(7)


def test_without_a_common_start_only_a_common_writer_counts() -> None:
    assert compare(chain(start("a", 3)), chain(start("b", 8)), W1) == Restored(3)
    assert compare(chain(start("a", 3, W2)), chain(start("b", 8)), W2) == Continuation()


def test_every_pair_of_lines_that_forked_is_told_a_bound_that_is_safe() -> None:
    """Play homes that are copied at random; what both lines wrote under one writer lies behind the bound."""
    rng = Random(7)
    forks = 0
    for round_ in range(400):
        lines: list[tuple[list[Start], list[str]]] = [([start("first", 0)], [])]

        def play(starts: list[Start], written: list[str], name: str) -> None:
            for step in range(rng.randrange(4)):
                written += [name] * rng.randrange(3)
                if rng.random() < 0.6:
                    starts.append(start(f"{name}{step}", len(written)))

        play(*lines[0], "common")
        starts, written = lines[0]
        copy = ([*starts, start("copy", len(written))], [*written])
        play(starts, written, "original")
        play(*copy, "copy")
        for (mine, here), (theirs, there) in ((lines[0], copy), (copy, lines[0])):
            verdict = compare(Chain(tuple(mine)), Chain(tuple(theirs)), W1)
            same = sum(1 for a, b in zip(here, there, strict=False) if a == b == "common")
            if isinstance(verdict, Restored):
                forks += 1
                assert verdict.after_sequence <= same, (round_, mine, theirs)
            else:
                assert theirs[-1] in mine
    assert forks > 300


def test_a_peers_last_transaction_tells_a_copy_that_was_made_while_the_pod_ran() -> None:
    assert not contradicts(0, b"", 0, b"")
    assert not contradicts(5, b"d", 9, b"d")
    assert contradicts(12, b"d", 9, b""), "it has more of me than I"
    assert contradicts(5, b"d", 9, b"e")
    assert not contradicts(5, b"d", 9, b""), "not kept here any more"
    assert not contradicts(5, b"", 9, b"e"), "not kept there any more"


def test_chains_are_bounded_and_survive_the_disk_and_the_wire() -> None:
    long = Chain()
    for number in range(CHAIN_LIMIT + 10):
        long = long.extended(start(str(number), number))
    assert len(long.starts) == CHAIN_LIMIT
    assert long.starts[0] == start("10", 10)
    assert unpack(pack(long)) == long
    assert parse(plain(long.starts)) == long.starts
    assert len(pack(long)) < 150_000


@pytest.mark.parametrize(
    "told",
    [
        None,
        {},
        [1],
        [[b"x" * 16, b"w" * 8]],
        [[b"x" * 15, b"w" * 8, 0]],
        [[b"x" * 16, b"w" * 9, 0]],
        [[b"x" * 16, b"w" * 8, -1]],
        [[b"x" * 16, b"w" * 8, 1 << 62]],
        [[b"x" * 16, b"w" * 8, True]],
        [[b"x" * 16, b"w" * 8, "0"]],
        [[b"x" * 16, b"w" * 8, 0]] * 2,
        [[bytes(14) + number.to_bytes(2, "big"), b"w" * 8, 0] for number in range(CHAIN_LIMIT + 1)],
    ],
)
def test_hostile_chains_are_refused(told: object) -> None:
    with pytest.raises(ValueError, match="start"):
        parse(told)


def test_a_newer_version_is_not_misread() -> None:
    with pytest.raises(ValueError, match="version"):
        unpack(b"\x92\x02\x90")
