"""What pods with real metadata tell each other of their starts; homes are restored by copying files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from base.errors import RefusedError, WormholeError
from base.ids import PodId, WriterId
from crdt_meta.chronicle import Chronicle, forgotten
from crdt_meta.peers import Retired
from crdt_meta.transaction import digest_of_signed
from mesh.introduction import RestoredError
from mesh.records import Void
from mesh.wire import ProtocolError, encode, unpack
from tests.unit.crdt_meta.pods import Mesh, Pod, exchange

HOME = b"this home"
IDS = {name: PodId(name[:1] * 32) for name in ("ann", "bob", "eve")}


def began(pod: Pod, place: bytes = HOME) -> Chronicle:
    chronicle = Chronicle(pod.meta, place, lambda: {IDS[one] for one in IDS if one != pod.name})
    pod.mesh.names[pod.log.writer], pod.mesh.keys[pod.log.writer] = pod.name, pod.key
    pod.writer = pod.log.writer
    return chronicle


def carried(body: object) -> object:
    return unpack(encode(9, body)[5:])


def introduced(mine: Chronicle, me: str, theirs: Chronicle, other: str) -> list[WormholeError | None]:
    """Carry an introduction; return what each side raises."""
    openings = carried(mine.opening(IDS[other])), carried(theirs.opening(IDS[me]))
    accounts = (carried(mine.account(IDS[other], openings[1])), carried(theirs.account(IDS[me], openings[0])))
    found: list[WormholeError | None] = []
    for side, pod, told, opening, account in (
        (mine, other, *openings, accounts[1]),
        (theirs, me, *openings[::-1], accounts[0]),
    ):
        try:
            side.settle(IDS[pod], told, opening, account)
            found.append(None)
        except WormholeError as error:
            found.append(error)
    return found


def meet(*pods: Pod) -> None:
    """Give each what the other has, of all writers."""
    for pod in pods:
        pod.tell()
    for to, source in (pods, pods[::-1]):
        for writer in source.log.vector():
            to.hear(source.log.read(writer, to.log.vector().get(writer, 0), 1 << 20))


def again(pod: Pod, place: bytes = HOME) -> tuple[Pod, Chronicle]:
    """Start a pod anew."""
    pod.tell()
    pod.close()
    pod = pod.mesh.pod(pod.name)
    return pod, began(pod, place)


def backup(pod: Pod, folder: Path) -> None:
    pod.tell()
    shutil.copytree(pod.folder, folder)


def restore(pod: Pod, folder: Path, place: bytes = HOME) -> tuple[Pod, Chronicle]:
    pod.close()
    shutil.rmtree(pod.folder)
    shutil.copytree(folder, pod.folder)
    pod = pod.mesh.pod(pod.name)
    return pod, began(pod, place)


def test_ordinary_starts_are_no_restores(ann: Pod, bob: Pod) -> None:
    of_ann, of_bob = began(ann), began(bob)
    for turn in range(4):
        ann.save(f"/{turn}", "x")
        assert introduced(of_ann, "ann", of_bob, "bob") == [None, None]
        exchange(ann, bob)
        assert introduced(of_ann, "ann", of_bob, "bob") == [None, None], "another link in the same run"
        if turn % 2:
            ann, of_ann = again(ann)
        else:
            bob, of_bob = again(bob)
            bob.save(f"/bob{turn}", "x")
    assert of_bob.known(IDS["ann"]).starts[:2] == of_ann.chain.starts[:2]
    assert len(of_ann.chain.starts) == 3


def test_what_is_known_of_others_survives_a_start(ann: Pod, bob: Pod) -> None:
    of_ann, of_bob = began(ann), began(bob)
    introduced(of_ann, "ann", of_bob, "bob")
    bob, of_bob = again(bob)
    assert of_bob.known(IDS["ann"]) == of_ann.chain


def reborn(pod: Pod, chronicle: Chronicle, error: RestoredError) -> None:
    pod.meta.reborn(error.after, error.owed)
    chronicle.append()
    pod.writer = pod.log.writer
    pod.mesh.names[pod.writer], pod.mesh.keys[pod.writer] = pod.name, pod.key


@pytest.mark.parametrize("heard", [0, 1, 2])
def test_a_backup_that_goes_on_is_noticed_by_both(ann: Pod, bob: Pod, tmp_path: Path, heard: int) -> None:
    """Bob heard of ann's second start, and of ``heard`` of her two transactions."""
    of_ann, of_bob = began(ann), began(bob)
    ann.save("/one", "x")
    introduced(of_ann, "ann", of_bob, "bob")
    backup(ann, tmp_path / "backup")
    ann, of_ann = again(ann)
    ann.save("/two", "x")
    introduced(of_ann, "ann", of_bob, "bob")
    bob.hear(ann.tell()[:heard])
    ann, of_ann = restore(ann, tmp_path / "backup")
    ann.save("/other", "x")
    ann.tell()
    mine, theirs = introduced(of_ann, "ann", of_bob, "bob")
    assert isinstance(mine, RestoredError)
    assert (mine.after, mine.owed) == (min(heard, 1), heard)
    assert isinstance(theirs, RefusedError)
    assert not isinstance(theirs, RestoredError)
    ann, of_ann = again(ann)
    mine, theirs = introduced(of_ann, "ann", of_bob, "bob")
    assert isinstance(mine, RestoredError), "a crash before the rebirth forgets nothing"
    assert (mine.after, mine.owed) == (min(heard, 1), heard)
    reborn(ann, of_ann, mine)
    assert introduced(of_ann, "ann", of_bob, "bob") == [None, None]
    meet(ann, bob)
    meet(ann, bob)
    assert ann.shape() == bob.shape()
    assert sorted(bob.ls()) == ["one", "other", *["two"] * (heard == 2)]
    ann, of_ann = again(ann)
    assert introduced(of_ann, "ann", of_bob, "bob") == [None, None]


def test_a_home_copied_while_the_pod_ran_is_noticed_by_what_others_have(ann: Pod, bob: Pod, tmp_path: Path) -> None:
    of_ann, of_bob = began(ann), began(bob)
    ann.save("/one", "x")
    introduced(of_ann, "ann", of_bob, "bob")
    backup(ann, tmp_path / "backup")
    ann.save("/two", "x")
    exchange(ann, bob)
    ann, of_ann = restore(ann, tmp_path / "backup")
    mine, _ = introduced(of_ann, "ann", of_bob, "bob")
    assert isinstance(mine, RestoredError), "bob has more of ann than ann"
    assert mine.after == 1
    ann.save("/other", "x")
    ann.tell()
    ann.save("/more", "x")
    ann.tell()
    mine, _ = introduced(of_ann, "ann", of_bob, "bob")
    assert isinstance(mine, RestoredError), "bob has another second transaction of ann"
    assert (mine.after, mine.owed) == (1, 2)
    ann.log.compact(0)
    ann.tell()
    mine, _ = introduced(of_ann, "ann", of_bob, "bob")
    assert isinstance(mine, RestoredError), "it is dropped here since, but its digest is remembered"
    assert (mine.after, mine.owed) == (1, 2)
    reborn(ann, of_ann, mine)
    assert introduced(of_ann, "ann", of_bob, "bob") == [None, None]
    meet(ann, bob)
    meet(ann, bob)
    assert ann.shape() == bob.shape()
    assert sorted(bob.ls()) == ["more", "one", "other", "two"]


@pytest.mark.parametrize("while_running", [False, True])
def test_a_copy_takes_a_new_writer_at_once(ann: Pod, bob: Pod, eve: Pod, tmp_path: Path, while_running: bool) -> None:
    """Bob has what ann wrote after the backup, eve has not: ann writes, and links up with eve first."""
    of_ann, of_bob, of_eve = began(ann), began(bob), began(eve)
    ann.save("/one", "x")
    exchange(ann, eve)
    introduced(of_ann, "ann", of_eve, "eve")
    backup(ann, tmp_path / "backup")
    if not while_running:
        ann, of_ann = again(ann)
    ann.save("/two", "x")
    introduced(of_ann, "ann", of_bob, "bob")
    exchange(ann, bob)
    before = ann.writer
    ann, of_ann = restore(ann, tmp_path / "backup", b"another home")
    assert of_ann.is_copy
    assert ann.log.writer != before
    ann.save("/three", "x")
    assert introduced(of_ann, "ann", of_eve, "eve") == [None, None]
    meet(ann, eve)
    meet(eve, bob)
    assert introduced(of_ann, "ann", of_bob, "bob") == [None, None]
    meet(ann, bob)
    meet(ann, eve)
    for pod in (ann, bob, eve):
        assert sorted(pod.ls()) == ["one", "three", "two"]
    assert ann.shape() == bob.shape() == eve.shape()
    writer = ann.log.writer
    ann, of_ann = again(ann, b"another home")
    assert not of_ann.is_copy
    assert ann.log.writer == writer
    assert introduced(of_ann, "ann", of_bob, "bob") == [None, None]


def test_who_took_what_is_void_fetches_the_other_history(world: Mesh, tmp_path: Path) -> None:
    """Bob knows all of ann's first life, eve only its beginning: the restored ann meets eve first, and then bob."""
    voids: dict[WriterId, list[Void]] = {}
    sound = world.verify

    def verify(writer: WriterId, signature: bytes, data: bytes) -> bool:
        void = digest_of_signed(data) in {one.digest for one in voids.get(writer, [])}
        return sound(writer, signature, data) and not void

    world.verify = verify  # type: ignore[method-assign]
    ann, bob, eve = (world.pod(name) for name in ("ann", "bob", "eve"))
    of_ann, of_bob, of_eve = began(ann), began(bob), began(eve)
    ann.save("/one", "x")
    introduced(of_ann, "ann", of_eve, "eve")
    meet(ann, eve)
    backup(ann, tmp_path / "backup")
    for name in ("/two", "/three", "/four"):
        ann.save(name, "first life")
        ann.tell()
    introduced(of_ann, "ann", of_bob, "bob")
    meet(ann, bob)
    ann, of_ann = restore(ann, tmp_path / "backup")
    for name in ("/two", "/six"):
        ann.save(name, "second life")
        ann.tell()
    assert introduced(of_ann, "ann", of_eve, "eve") == [None, None]
    meet(ann, eve)
    mine, _ = introduced(of_ann, "ann", of_bob, "bob")
    assert isinstance(mine, RestoredError)
    void = of_ann.void(mine)
    assert void is not None
    voids[void.writer] = [void]
    reborn(ann, of_ann, mine)
    for chronicle in (of_bob, of_eve, of_ann):
        chronicle.put_right(voids)
    for _ in range(3):
        meet(ann, eve)
        meet(eve, bob)
        meet(ann, bob)
    assert ann.shape() == bob.shape() == eve.shape()
    assert len(bob.files()) == 6, "both files named two, too"
    for chronicle in (of_bob, of_eve):
        chronicle.put_right(voids)
    assert len(eve.files()) == 6


def test_nothing_is_void_where_the_fork_is_not_known_exactly(ann: Pod) -> None:
    of_ann = began(ann)
    ann.save("/one", "x")
    ann.tell()
    assert of_ann.void(RestoredError(0, 5)) is None
    void = of_ann.void(RestoredError(0, 5, 0))
    assert void is not None
    assert (void.writer, void.sequence, void.owed) == (ann.writer, 1, 5)
    assert of_ann.void(RestoredError(1, 5, 1)) is None


def test_what_somebody_has_heard_of_proves_a_restore_too(
    ann: Pod, bob: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bob has a transaction without one of its parts, and has heard of a later one, where that is written anew."""
    monkeypatch.setattr("crdt_meta.log.RECORDS_PER_SEGMENT", 1)
    of_ann, of_bob = began(ann), began(bob)
    ann.save("/one", "x")
    introduced(of_ann, "ann", of_bob, "bob")
    backup(ann, tmp_path / "backup")
    ann.log.compact(0)
    first, _ = ann.tell()
    bob.hear([first])
    assert bob.files() == {}
    ann, of_ann = restore(ann, tmp_path / "backup")
    mine, _ = introduced(of_ann, "ann", of_bob, "bob")
    assert isinstance(mine, RestoredError)
    assert (mine.after, mine.owed) == (1, 2)


def test_since_when_a_forgotten_pod_was_set_back(ann: Pod, bob: Pod, eve: Pod, tmp_path: Path) -> None:
    """What counts is the first start that somebody wasn't told of; and what shows that others have the very same."""
    other = WriterId(b"somebody")

    def known(upto: int, digest: bytes = b"") -> tuple[int, bool] | None:
        return forgotten(ann.meta, {ann.log.writer: {Retired(upto, other, 9, digest=digest)}}, lambda by: False)

    of_ann, of_bob, of_eve = began(ann), began(bob), began(eve)
    ann.save("/one", "x")
    introduced(of_ann, "ann", of_bob, "bob")
    ann.tell()
    assert known(4) == (0, True), "of that start eve wasn't told"
    introduced(of_ann, "ann", of_eve, "eve")
    assert known(4) == (0, True), "that start is the last one, and it was after the set back"
    backup(ann, tmp_path / "backup")
    ann, of_ann = restore(ann, tmp_path / "backup")
    ann.save("/two", "x")
    ann, of_ann = again(ann)
    introduced(of_ann, "ann", of_bob, "bob")
    ann.save("/three", "x")
    ann.tell()
    same = ann.log.table.digest(ann.log.writer, 3)
    assert known(3, same) == known(3) == (3, False)
    assert known(4) == known(4, b"d" * 16) == known(3, b"d" * 16) == (1, True)
    assert known(1, b"d" * 16) == (0, True), "it was set back before that start, without having noticed"
    of_an_early_one = {Retired(2, other, 9), Retired(4, other, 11)}
    assert forgotten(ann.meta, {ann.log.writer: of_an_early_one}, lambda by: False) == (1, True), "which one is unknown"
    assert forgotten(ann.meta, {other: {Retired(4, ann.log.writer, 9)}}, lambda by: False) is None
    assert forgotten(ann.meta, {ann.log.writer: {Retired(4, other, 9)}}, lambda by: True) == (0, False)
    earlier = ((3, b"d" * 16), (2, ann.log.table.digest(ann.log.writer, 2)), (1, b""))
    with_earlier = {Retired(4, other, 9, digest=b"d" * 16, earlier=earlier)}
    assert forgotten(ann.meta, {ann.log.writer: with_earlier}, lambda by: False) == (2, True), "they parted after that"
    both = {
        Retired(2, other, 9, digest=ann.log.table.digest(ann.log.writer, 2)),
        Retired(3, other, 11, digest=b"d" * 16),
    }
    assert forgotten(ann.meta, {ann.log.writer: both}, lambda by: False) == (2, True)


def test_which_starts_all_full_pods_were_told_of(ann: Pod, bob: Pod, eve: Pod) -> None:
    """Whoever was told of a later one was told of it; clients don't count; a pod that comes new changes nothing."""
    chronicles = {"bob": began(bob), "eve": began(eve)}

    def start(*others: str) -> Chronicle:
        ann.tell()
        return Chronicle(ann.meta, HOME, lambda: {IDS[one] for one in others})

    def told() -> bytes | None:
        return ann.meta.store.get_meta("incarnation told to all")

    def meet(of_ann: Chronicle, *others: str) -> None:
        for one in others:
            assert introduced(of_ann, "ann", chronicles[one], one) == [None, None]

    first = start("bob", "eve")
    meet(first, "bob")
    second = start("bob", "eve")
    assert told() is None
    meet(second, "eve")
    assert told() == first.chain.head, "also bob, in an earlier run"
    meet(start("bob"), "eve")
    assert told() == first.chain.head, "eve is a client now"
    fourth = start("bob")
    meet(fourth, "bob", "eve")
    assert told() == fourth.chain.head
    fifth = Chronicle(ann.meta, HOME, lambda: {*IDS.values()} - {IDS["ann"]})
    meet(fifth, "bob")
    assert told() == fourth.chain.head, "eve, who is new among the full pods, was told of that one"


def test_two_who_prove_it_at_once_make_one_new_writer(tmp_path: Path, ann: Pod, bob: Pod, eve: Pod) -> None:
    """What was said before this pod took a new writer proves nothing about that one."""
    of_ann, of_bob, of_eve = began(ann), began(bob), began(eve)
    ann.save("/early", "early")
    meet(ann, bob)
    meet(ann, eve)
    backup(ann, tmp_path / "backup")
    ann, of_ann = again(ann)
    ann.save("/late", "late")
    introduced(of_ann, "ann", of_bob, "bob")
    introduced(of_ann, "ann", of_eve, "eve")
    meet(ann, bob)
    meet(ann, eve)
    ann, of_ann = restore(ann, tmp_path / "backup")
    told = [of_ann.opening(IDS[name]) for name in ("bob", "eve")]
    sides = [(name, side.opening(IDS["ann"]), side) for name, side in (("bob", of_bob), ("eve", of_eve))]
    answers = [side.account(IDS["ann"], one) for one, (_, _, side) in zip(told, sides, strict=True)]
    (first, of_first, _), (second, of_second, _) = sides
    with pytest.raises(RestoredError) as proof:
        of_ann.settle(IDS[first], told[0], of_first, answers[0])
    writer = ann.meta.reborn(proof.value.after, proof.value.owed)
    of_ann.append()
    with pytest.raises(RefusedError, match="new writer"):
        of_ann.settle(IDS[second], told[1], of_second, answers[1])
    assert ann.log.writer == writer


def test_two_links_at_once(ann: Pod, bob: Pod) -> None:
    """Both dial: what the second introduction continues was told in the first one."""
    of_ann, of_bob = began(ann), began(bob)
    introduced(of_ann, "ann", of_bob, "bob")
    ann, of_ann = again(ann)
    opening_a, opening_b = of_ann.opening(IDS["bob"]), of_bob.opening(IDS["ann"])
    account = of_ann.account(IDS["bob"], opening_b)
    of_bob.settle(IDS["ann"], opening_b, opening_a, account)
    of_bob.settle(IDS["ann"], opening_b, opening_a, account)
    assert of_bob.known(IDS["ann"]) == of_ann.chain


def changed(body: object, **values: object) -> object:
    assert isinstance(body, dict)
    return {**body, **values}


START = [b"i" * 16, b"w" * 8, 0]


@pytest.mark.parametrize(
    "hostile",
    [
        lambda body: None,
        lambda body: [],
        lambda body: {},
        lambda body: changed(body, starts=None),
        lambda body: changed(body, starts=[[1, 2, 3]]),
        lambda body: changed(body, starts=[START, START]),
        lambda body: changed(body, after=b"n" * 16),
        lambda body: changed(body, after=b"short"),
        lambda body: changed(body, known=[[b"", b"", 0]]),
        lambda body: changed(body, have=[-1, b"d" * 16]),
        lambda body: changed(body, have=[True, b"d" * 16]),
        lambda body: changed(body, have=[1 << 62, b"d" * 16]),
        lambda body: changed(body, have=[1, b"d" * 17]),
        lambda body: changed(body, have=[1]),
    ],
)
def test_hostile_accounts_are_refused(ann: Pod, bob: Pod, hostile: Callable[[Any], Any]) -> None:
    of_ann, of_bob = began(ann), began(bob)
    opening = of_bob.opening(IDS["ann"])
    told = of_ann.opening(IDS["bob"])
    account = of_bob.account(IDS["ann"], told)
    with pytest.raises(ProtocolError):
        of_ann.settle(IDS["bob"], told, opening, hostile(account))
    of_ann.settle(IDS["bob"], told, opening, account)


@pytest.mark.parametrize("opening", [None, [], {"head": b"", "writer": b"", "known": b""}, {"head": 1}])
def test_hostile_openings_are_refused(ann: Pod, opening: object) -> None:
    with pytest.raises(ProtocolError):
        began(ann).account(IDS["bob"], opening)


def test_a_start_that_cannot_be_read_stops_the_pod(world: Mesh, ann: Pod) -> None:
    ann.meta.store.set_meta("incarnations", b"\x92\x09\x90")
    with pytest.raises(WormholeError, match="can't be read"):
        began(ann)
