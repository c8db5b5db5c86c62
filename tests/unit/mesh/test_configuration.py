"""The rules by which the configuration in force is found, on rosters with real keys."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest

from base.errors import DamagedError
from base.ids import PodId
from mesh import records
from mesh.api import Role
from mesh.configuration import Admitted, removes
from mesh.records import EVERYBODY, Config, record_id, seal
from mesh.roster import Roster
from tests.unit.mesh.cluster import Home, admit, found, revocation

ALL = (EVERYBODY,)


@pytest.fixture
def pods(tmp_path: Path) -> list[Home]:
    """The founder and three more, all of whom know the first version."""
    first = found(tmp_path / "anna")
    others = [admit(first, tmp_path / name) for name in ("bert", "cleo", "dora")]
    first.store.add([version(first, b"", "first")])
    for one in others:
        one.store.add(first.roster.records())
    return [first, *others]


def version(home: Home, parent: bytes, text: str, named: Iterable[str] = ALL, order: int = 0) -> bytes:
    config = Config(parent, text, 0, tuple(sorted(named)), order)
    return seal(config, home.roster.cluster_id, home.pod, home.identity.sign)


def following(home: Home, text: str, named: Iterable[str] = ALL) -> bytes:
    """Make the next version as a running pod does, and keep it."""
    payload = home.roster.next_config(text, named, 0)
    record = seal(payload, home.roster.cluster_id, home.pod, home.identity.sign)
    home.store.add([record])
    return record


def met(pods: Iterable[Home], extra: Iterable[bytes] = ()) -> Roster:
    """Return what everybody together knows, in whatever order."""
    batches = [home.roster.records() for home in pods] + [[one] for one in extra]
    found: list[Roster] = []
    rng = Random(1)
    for _ in range(6):
        rng.shuffle(batches)
        roster = Roster()
        for _ in range(len(batches)):
            for batch in batches:
                roster.add_all(batch)
        found.append(roster)
    assert len({(one.config_id(), one.digest(), one.config_toml()) for one in found}) == 1
    assert len({tuple(sorted(pod for pod in one.pods() if one.is_admin(pod))) for one in found}) == 1
    return found[0]


def texts(roster: Roster) -> tuple[list[str], set[str]]:
    known = roster.configuration()
    return [one.config.toml for one in known.chain], {one.config.toml for one in known.lost}


def test_one_after_the_other(pods: list[Home]) -> None:
    first, second, *_ = pods
    following(first, "2")
    second.store.add(first.roster.records())
    following(second, "3")
    assert texts(met(pods)) == (["first", "2", "3"], set())
    assert record_id(following(first, "2")) != first.roster.configuration().chain[0].id


def test_of_concurrent_ones_the_earlier_admitted_signer_wins_with_all_that_follows(pods: list[Home]) -> None:
    _, second, third, fourth = pods
    following(third, "third's")
    following(third, "third's next")
    following(second, "second's")
    following(fourth, "fourth's")
    assert texts(met(pods)) == (["first", "second's"], {"third's", "third's next", "fourth's"})


def test_of_two_by_one_signer_the_hash_decides(pods: list[Home]) -> None:
    first = pods[0]
    parent = first.roster.config_id()
    rivals = sorted((version(first, parent, text) for text in "abc"), key=record_id)
    assert met(pods, rivals).config_id() == record_id(rivals[0])


def test_one_that_removes_an_administrator_wins(pods: list[Home]) -> None:
    first, second, _, fourth = pods
    following(first, "more copies")
    following(fourth, "without second", [first.pod, fourth.pod])
    roster = met(pods)
    assert roster.config_toml() == "without second"
    assert [roster.is_admin(home.pod) for home in pods] == [True, False, False, True]
    assert not roster.is_admin(second.pod)


def test_so_does_one_that_led_to_such_a_removal(pods: list[Home]) -> None:
    first, second, third, _ = pods
    following(second, "something else")
    following(second, "without third", [first.pod, second.pod])
    following(third, "third's own", [third.pod])
    following(first, "innocent")
    assert texts(met(pods))[0] == ["first", "something else", "without third"]


def test_of_two_that_remove_each_other_the_earlier_admitted_stays(pods: list[Home]) -> None:
    first, second, third, _ = pods
    following(third, "third's", [first.pod, third.pod])
    following(second, "second's", [first.pod, second.pod])
    roster = met(pods)
    assert roster.config_toml() == "second's"
    assert [roster.is_admin(home.pod) for home in pods] == [True, True, False, False]


def test_who_does_not_administer_changes_nothing(pods: list[Home], tmp_path: Path) -> None:
    first, second, third, _ = pods
    following(first, "only two", [first.pod, second.pod])
    in_force = first.roster.config_id()
    client = admit(first, tmp_path / "client", Role.CLIENT)
    stranger = found(tmp_path / "stranger")
    signed_by = [
        version(third, in_force, "third's"),
        version(client, in_force, "client's"),
        version(third, b"", "a new beginning"),
        version(third, bytes(16), "of an unknown parent"),
        seal(Config(in_force, "stranger's", 0), first.roster.cluster_id, stranger.pod, stranger.identity.sign),
        seal(Config(in_force, "forged", 0), first.roster.cluster_id, first.pod, stranger.identity.sign),
        seal(Config(in_force, "of another cluster", 0), stranger.roster.cluster_id, first.pod, first.identity.sign),
    ]
    assert first.store.add(signed_by) == []
    assert met(pods, signed_by).config_toml() == "only two"


def test_a_removed_one_can_not_go_on_where_it_was_removed(pods: list[Home]) -> None:
    first, second, third, _ = pods
    before = first.roster.config_id()
    removal = following(first, "without third", [first.pod, second.pod])
    assert third.store.add([removal])
    late = [
        version(third, before, "as if it had not heard", [third.pod]),
        version(third, record_id(removal), "back again", ALL),
        version(third, before, "another", ALL),
    ]
    roster = met(pods, late)
    assert roster.config_toml() == "without third"
    assert not roster.is_admin(third.pod)


def test_a_removed_one_admits_and_evicts_nobody(pods: list[Home], tmp_path: Path) -> None:
    first, second, third, fourth = pods
    before = admit(third, tmp_path / "before")
    first.store.add(before.roster.records())
    following(first, "without third", [first.pod, second.pod])
    friend = admit(third, tmp_path / "friend")
    first.store.add([*friend.roster.records(), revocation(third, fourth.pod)])
    roster = met([first])
    assert roster.is_member(before.pod), "it was let in while third administered"
    assert not roster.is_member(friend.pod)
    assert roster.is_member(fourth.pod)
    following(first, "third is back", [first.pod, third.pod])
    assert first.roster.is_member(friend.pod)
    assert not first.roster.is_member(fourth.pod), "what it did counts as soon as it administers again"


def test_an_eviction_pins_what_was_in_force(pods: list[Home]) -> None:
    first, second, third, _ = pods
    old = first.roster.config_id()
    following(second, "second's")
    first.store.add(second.roster.records())
    third.store.add([*first.roster.records(), revocation(first, second.pod)])
    first.store.add(third.roster.records())
    late = [version(second, old, "as if before", [second.pod]), version(second, first.roster.config_id(), "after")]
    assert met(pods, late).config_toml() == "second's"
    following(third, "third's")
    assert texts(met(pods, late)) == (["first", "second's", "third's"], set())


def test_names_become_ids_and_unknown_ones_mean_who_comes_first(pods: list[Home], tmp_path: Path) -> None:
    first, second, *_ = pods
    record = records.decode(following(first, "by name", ["bert", "nas"])).payload
    assert isinstance(record, Config)
    assert set(record.administrators) == {second.pod, "nas"}
    assert not first.roster.is_admin(first.pod), "it isn't named, and somebody is"
    client = admit(first, tmp_path / "client" / "nas", Role.CLIENT)
    nas = admit(second, tmp_path / "second" / "nas")
    again = admit(second, tmp_path / "third" / "nas")
    first.store.add([*client.roster.records(), *nas.roster.records(), *again.roster.records()])
    roster = met([first, again])
    admins = [roster.is_admin(home.pod) for home in (first, second, client, nas, again)]
    assert admins == [False, True, False, True, False]


def test_a_list_without_members_leaves_the_founder_in_charge(pods: list[Home], tmp_path: Path) -> None:
    first, second, *_ = pods
    following(first, "for later", ["nas-1", "nas-2"])
    assert first.roster.is_admin(first.pod)
    assert not first.roster.is_admin(second.pod)
    nas = admit(first, tmp_path / "nas-1")
    assert [nas.roster.is_admin(home.pod) for home in (first, nas)] == [False, True]
    following(nas, "by the new one", ["nas-1", "anna"])
    assert met([*pods, nas]).config_toml() == "by the new one"


def test_what_removes() -> None:
    def listed(*named: str) -> Config:
        return Config(b"", "", 0, named)

    one, two = PodId("1" * 32), PodId("2" * 32)
    names = {"anna": [(0, one)], "bert": [(4, two)]}
    admitted = Admitted(frozenset({one}), {one: 0, two: 4}, frozenset({one, two}), names)
    for before, after, expected in (
        (ALL, ALL, False),
        (ALL, (one, two), True),
        ((one,), ALL, False),
        ((one,), (one, two), False),
        ((one, two), (one,), True),
        (("bert",), (two,), False),
        (("bert",), (one,), True),
        (("nobody",), (one,), True),
        (("nobody", one), ("nobody", one), False),
    ):
        assert removes(listed(*before), listed(*after), admitted) is expected, (before, after)
    assert not removes(None, listed(one), admitted)


@pytest.mark.parametrize(
    "wrong",
    [
        {"administrators": ()},
        {"administrators": ("b", "a")},
        {"administrators": ("a", "a")},
        {"administrators": ("*", "a")},
        {"administrators": ("a/b",)},
        {"administrators": ("a",) * 1001},
        {"administrators": ("a",), "order": -1},
        {"honours": (b"short",)},
        {"honours": (bytes(16),) * 8001},
        {"parent": b"short"},
    ],
)
def test_malformed_versions_are_damaged(pods: list[Home], wrong: dict[str, object]) -> None:
    fields = {"parent": b"", "toml": "", "time_ns": 0} | wrong
    with pytest.raises(DamagedError):
        seal(Config(**fields), pods[0].roster.cluster_id, pods[0].pod, pods[0].identity.sign)  # type: ignore[arg-type]
