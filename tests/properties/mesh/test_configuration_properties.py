"""Whatever pods do on however many sides, and in whatever order it arrives, all find the same configuration.

The oracle knows the rules in their plainest form: it looks at whole branches, as sets, and has no evictions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from base.ids import PodId, hash_bytes
from mesh.configuration import Admitted, Configuration, Version, administers, judge
from mesh.records import EVERYBODY, Config

PODS = [PodId(f"{number:032x}") for number in range(1, 6)]
FOUNDER = PODS[0]
ADMITTED = Admitted(
    frozenset({FOUNDER}),
    {pod: order for order, pod in enumerate(PODS)},
    frozenset(PODS),
    {f"pod{order}": [(order, pod)] for order, pod in enumerate(PODS)},
)
LISTS = [(EVERYBODY,), tuple(PODS[:2]), tuple(PODS[1:3]), tuple(PODS[2:]), tuple(sorted(["pod1", PODS[4]]))]


def may_sign(parent: Config | None, signer: PodId) -> bool:
    return signer == FOUNDER if parent is None else administers(parent, signer, ADMITTED)


@dataclass
class Tree:
    """Versions by id, made by anybody, allowed or not."""

    versions: dict[bytes, Version] = field(default_factory=dict)

    def grow(self, parent: bytes, signer: PodId, listed: tuple[str, ...]) -> None:
        config = Config(parent, str(len(self.versions)), 0, listed)
        key = hash_bytes(repr((config, signer)).encode())[:16]
        self.versions[key] = Version(key, signer, config)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    tree = Tree()
    tree.grow(b"", FOUNDER, draw(st.sampled_from(LISTS)))
    for _ in range(draw(st.integers(0, 14))):
        parent = draw(st.sampled_from([b"", b"unknown parent..", *tree.versions, *list(tree.versions)[-2:]]))
        tree.grow(parent, draw(st.sampled_from(PODS)), draw(st.sampled_from(LISTS)))
    return tree


def meant(config: Config) -> set[str]:
    """Return whom a list means, everybody and those to come among them."""
    names = {f"pod{order}": pod for order, pod in enumerate(PODS)}
    return (
        {*PODS, EVERYBODY}
        if EVERYBODY in config.administrators
        else {names.get(one, one) for one in config.administrators}
    )


def expected(tree: Tree) -> list[bytes]:
    """Return the ids of the chain, found the slow way."""

    def counts(version: Version) -> bool:
        parent = tree.versions.get(version.config.parent)
        if not version.config.parent:
            return version.signer == FOUNDER
        return (
            parent is not None
            and counts(parent)
            and (version.signer in meant(parent.config) or version.signer == FOUNDER)
        )

    def branch(version: Version) -> list[Version]:
        below = [one for one in tree.versions.values() if one.config.parent == version.id and counts(one)]
        return [version, *(found for one in below for found in branch(one))]

    def removers(version: Version) -> list[int]:
        found = []
        for one in branch(version):
            parent = tree.versions.get(one.config.parent)
            if parent is not None and meant(parent.config) - meant(one.config):
                found.append(PODS.index(one.signer))
        return found

    chain: list[bytes] = []
    while rivals := [
        one for one in tree.versions.values() if one.config.parent == (chain[-1] if chain else b"") and counts(one)
    ]:
        removing = [one for one in rivals if removers(one)]
        if removing:
            earliest = min(min(removers(one)) for one in removing)
            rivals = [one for one in removing if min(removers(one)) == earliest]
        first = min(PODS.index(one.signer) for one in rivals)
        chain.append(min(one.id for one in rivals if PODS.index(one.signer) == first))
    return chain


def judged(versions: list[Version]) -> Configuration:
    return judge(versions, FOUNDER, lambda *_: ADMITTED)


@settings(max_examples=300, deadline=None)
@given(trees(), st.integers(0, 2**32))
def test_the_winner_is_the_same_in_every_order_and_that_of_the_rules(tree: Tree, seed: int) -> None:
    versions = list(tree.versions.values())
    first = judged(versions)
    Random(seed).shuffle(versions)
    again = judged(versions)
    assert [one.id for one in first.chain] == [one.id for one in again.chain] == expected(tree)
    assert {one.id for one in first.lost} == {one.id for one in again.lost}
    assert all(one.id in first for one in first.chain)
    assert not any(one.id in first for one in first.lost)


@settings(max_examples=200, deadline=None)
@given(trees())
def test_nothing_in_force_was_signed_by_who_did_not_administer(tree: Tree) -> None:
    found = judged(list(tree.versions.values()))
    for parent, child in zip((None, *found.chain), found.chain, strict=False):
        assert may_sign(parent.config if parent else None, child.signer)
        assert child.config.parent == (parent.id if parent else b"")
    for lost in found.lost:
        parent = tree.versions.get(lost.config.parent)
        assert may_sign(parent.config if parent else None, lost.signer)


@settings(max_examples=200, deadline=None)
@given(trees(), st.data())
def test_a_pinned_one_is_in_force_whoever_signed_it(tree: Tree, data: st.DataObject) -> None:
    known = [one for one in tree.versions.values() if one.config.parent != b"unknown parent.."]
    target = data.draw(st.sampled_from(known))
    pinned = {target.id}
    while (parent := tree.versions[target.id].config.parent) in tree.versions:
        target = tree.versions[parent]
        pinned.add(parent)
    if target.config.parent:  # it hangs in the air
        return
    found = judge(tree.versions.values(), FOUNDER, lambda *_: ADMITTED, pinned)
    assert {one.id for one in found.chain} >= pinned


@settings(max_examples=200, deadline=None)
@given(trees(), st.sampled_from(PODS[1:]), st.sampled_from(LISTS))
def test_a_removal_by_an_earlier_one_stands_against_all_that_the_removed_writes(
    tree: Tree, removed: PodId, listed: tuple[str, ...]
) -> None:
    """The founder removes a pod, whatever went before; nothing that only this pod can write then is in force."""
    before = judged(list(tree.versions.values()))
    last = before.chain[-1]
    keeps = tuple(sorted(set(PODS) - {removed}))
    if removed not in meant(last.config):
        return
    tree.grow(last.id, FOUNDER, keeps)
    after = judged(list(tree.versions.values()))
    if any(one.signer == FOUNDER for one in after.lost):
        return  # the founder itself said otherwise elsewhere
    for parent in list(tree.versions):
        tree.grow(parent, removed, listed)
        tree.grow(list(tree.versions)[-1], removed, (removed,))
    assert [one.id for one in judged(list(tree.versions.values())).chain] == [one.id for one in after.chain]
