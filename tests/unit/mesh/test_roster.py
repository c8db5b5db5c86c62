from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from random import Random

import msgpack
import pytest

from base.errors import DamagedError, RefusedError
from base.ids import WriterId
from mesh import records
from mesh.api import Role
from mesh.identity import Identity, read_certificate
from mesh.records import Admit, Config, Left, Retire, Revoke, Void, Writer, record_id, seal
from mesh.roster import Roster
from mesh.roster_store import RosterStore, Seen
from tests.unit.mesh.cluster import Home, admission, admit, found, revocation


def state(roster: Roster) -> object:
    return (
        roster.pods(),
        roster.writers(),
        roster.config_toml(),
        sorted(roster.anchors()),
        {pod: roster.is_admin(pod) for pod in roster.pods()},
        roster.digest(),
    )


def signed(home: Home, payload: records.Payload) -> bytes:
    return seal(payload, home.roster.cluster_id, home.pod, home.identity.sign)


def replay(batch: list[bytes]) -> Roster:
    roster = Roster()
    roster.add_all(batch)
    return roster


def test_the_state_does_not_depend_on_the_order(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    c = admit(b, tmp_path / "c")
    client = admit(c, tmp_path / "client", Role.CLIENT)
    first = signed(a, Config(b"", "first", 1))
    everything = [
        *client.roster.records(),
        signed(a, Writer(WriterId(b"aaaaaaaa"))),
        signed(c, Writer(WriterId(b"cccccccc"))),
        first,
        signed(b, Config(record_id(first), "rival", 1)),
        signed(a, Config(record_id(first), "second", 1)),
        signed(b, Left(5)),
        revocation(a, c.pod, keeps=[client.pod]),
    ]
    expected = state(replay(everything))
    rng = Random(1)
    for _ in range(20):
        rng.shuffle(everything)
        roster = Roster()
        for _ in range(len(everything)):  # one by one, again and again, as pushes and exchanges deliver them
            for record in everything:
                roster.add(record)
        assert state(roster) == expected
        assert len(roster) == len(everything)
    roster = replay(everything)
    assert roster.config_toml() == "second"
    assert roster.is_revoked(c.pod)
    assert roster.is_member(client.pod)
    assert not roster.is_member(b.pod)
    assert roster.writer_pod(WriterId(b"cccccccc")) == c.pod
    assert [roster.is_admin(home.pod) for home in (a, b, c, client)] == [True, False, False, False]


def test_evicting_voids_admissions_and_the_earlier_admitted_wins(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    c = admit(b, tmp_path / "c")
    d = admit(b, tmp_path / "d")
    b.store.add([revocation(a, b.pod, keeps=[d.pod]), revocation(b, a.pod)])
    b.store.add(d.roster.records())
    assert [b.roster.is_revoked(home.pod) for home in (a, b, c, d)] == [False, True, True, False]
    assert b.identity.issuing_certificate not in b.roster.anchors()


def test_a_later_admitted_may_evict_the_founder_and_stays(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    a.store.add([signed(a, Config(b"", "text", 1))])
    b = admit(a, tmp_path / "b")
    c = admit(a, tmp_path / "c")
    b.store.add(a.roster.records())
    b.store.add([revocation(b, a.pod, keeps=[c.pod]), signed(a, Config(b.roster.config_id(), "stolen", 2))])
    assert [b.roster.is_member(home.pod) for home in (a, b, c)] == [False, True, True]
    assert b.roster.config_toml() == "text"


def test_forgeries_are_left_out(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    client = admit(a, tmp_path / "client", Role.CLIENT)
    b = admit(a, tmp_path / "b")
    stranger = found(tmp_path / "stranger")
    before = state(a.roster)
    by_client = Admit("x", Role.CLIENT, stranger.identity.public_key, None, 9, 0)
    forged = seal(by_client, a.roster.cluster_id, a.pod, stranger.identity.sign)
    for record in (
        signed(client, by_client),
        signed(client, Revoke(a.pod, (), b"", 0)),
        signed(client, Config(b"", "mine", 0)),
        signed(b, Config(b"", "another beginning", 0)),
        signed(b, Config(bytes(16), "an unknown parent", 0)),
        seal(by_client, a.roster.cluster_id, stranger.pod, stranger.identity.sign),
        forged,
        *stranger.roster.records(),
    ):
        assert not a.roster.add(record)
    assert state(a.roster) == before


def test_the_unknown_is_carried_along(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    strange = []
    for version, kind in ((1, "treaty"), (9, "admit")):
        parts = [version, kind, a.roster.cluster_id, a.pod, b"whatever"]
        strange.append(msgpack.packb([*parts, a.identity.sign(records.PREFIX + msgpack.packb(parts))]))
    before = a.roster.pods()
    assert a.store.add(strange) == strange
    assert a.roster.pods() == before
    assert list(a.roster.missing_in(b.roster.ids())) == strange


def test_malformed_records_are_damaged(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    whole = a.roster.records()[0]
    assert records.decode(whole).payload is not None
    longer = b"\xdc\x00\x06" + whole[1:]  # the same array with a longer header
    assert msgpack.unpackb(longer) == msgpack.unpackb(whole)
    for data in (b"", b"\x90", whole[:-1], longer, bytes(records.MAX_RECORD_BYTES + 1)):
        with pytest.raises(DamagedError):
            records.decode(data)
    with pytest.raises(DamagedError):
        signed(a, Config(b"", "x" * (records.MAX_CONFIG_BYTES + 1), 0))
    for position in range(0, len(whole), 7):
        flipped = whole[:position] + bytes((whole[position] ^ 1,)) + whole[position + 1 :]
        assert Roster(a.roster.cluster_id).add_all([flipped]) == []


def test_a_proof_is_enough(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    for name in "xyz":
        admit(a, tmp_path / name)
    b = admit(a, tmp_path / "b")
    c = admit(b, tmp_path / "c")
    proof = c.roster.proof(c.pod)
    assert len(proof) == 3
    assert replay(proof).is_member(c.pod)
    with pytest.raises(RefusedError):
        a.roster.proof(c.pod)


def test_the_store_keeps_records_and_addresses(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    a.store.remember([(b.pod, Seen("10.0.0.1:7420", 5.0))])
    assert [a.store.count_start(), a.store.count_start()] == [1, 2]
    a.store.close()
    again = RosterStore(tmp_path / "a" / "roster.db")
    assert state(again.roster) == state(a.roster)
    assert again.remembered() == {b.pod: Seen("10.0.0.1:7420", 5.0)}
    again.close()
    (tmp_path / "a" / "roster.db").write_bytes(b"no database at all, by no means" * 100)
    with pytest.raises(DamagedError):
        RosterStore(tmp_path / "a" / "roster.db")


def test_identity_files_are_private_and_load_again(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    folder = tmp_path / "a" / "identity"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    again = Identity.load(folder)
    assert again.pod_id == a.pod
    assert records.verify(again.public_key, again.sign(b"x"), b"x")
    assert not records.verify(again.public_key, again.sign(b"x"), b"y")
    info = read_certificate(again.certificate())
    assert (info.pod, info.cluster, info.role) == (a.pod, a.roster.cluster_id, Role.FULL)
    with pytest.raises(RefusedError):
        Identity.create(folder)
    client = Identity.create(tmp_path / "client", role=Role.CLIENT)
    with pytest.raises(RefusedError):
        client.issue(a.identity.public_key, a.roster.cluster_id, Role.FULL)
    with pytest.raises(DamagedError):
        client.install_certificate(a.identity.issue(a.identity.public_key, a.roster.cluster_id, Role.FULL))


def test_names_are_bounded(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = Home(tmp_path / "b")
    for name in ("", "x" * 65, "a/b", "a\nb", " a"):
        with pytest.raises(DamagedError):
            admission(a, b.identity, name)


def test_only_a_writers_own_pod_declares_something_void(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    writer = WriterId(b"w" * 8)
    void = Void(writer, 9, b"d" * 16, 12)
    of_a, of_b = (seal(void, a.roster.cluster_id, one.pod, one.identity.sign) for one in (a, b))
    a.store.add([of_a])
    assert a.roster.voids() == {}, "nobody has the writer yet"
    a.store.add([seal(Writer(writer), a.roster.cluster_id, b.pod, b.identity.sign)])
    assert a.roster.voids() == {}, "it is another pod's"
    a.store.add([of_b])
    assert a.roster.voids() == {writer: [void]}
    again = RosterStore(tmp_path / "a" / "roster.db")
    assert again.roster.voids() == {writer: [void]}


def test_only_the_adopter_itself_says_that_it_has_the_copies(tmp_path: Path) -> None:
    """Whatever comes first, and whichever writer it has taken since; also if there was nothing to copy, or it went."""
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    gone, first, second = WriterId(b"gone-of-"), WriterId(b"b-first-"), WriterId(b"b-second")
    true, nothing = Retire(gone, 7, first, 9, digest=b"d" * 16), Retire(gone, 8, second, 0, 7)
    a.store.add([signed(a, Writer(gone)), signed(a, Retire(gone, 1 << 60, first, 1))])
    a.store.add([signed(b, true)])
    assert a.roster.adoptions() == {}, "nobody has the writer yet"
    a.store.add([signed(b, Writer(first))])
    assert a.roster.adoptions() == {gone: (true,)}, "what another pod says of it doesn't count"
    a.store.add([signed(b, Writer(second)), signed(b, nothing), signed(b, Left(1))])
    assert a.roster.adoptions() == {gone: (true, nothing)}
    a.store.add([revocation(a, b.pod)])
    again = RosterStore(tmp_path / "a" / "roster.db")
    assert a.roster.adoptions() == again.roster.adoptions() == {gone: (true, nothing)}, (
        "its copies are here all the same"
    )


RETIRE = [b"gone-of-", 7, b"b-first-", 9, 0, 0]
DIGEST = b"d" * 16


def retired(home: Home, *fields: object) -> records.Payload | None:
    body = msgpack.packb([*RETIRE, *fields], use_bin_type=True)
    return records.decode(msgpack.packb([1, "retire", home.roster.cluster_id, home.pod, body, bytes(64)])).payload


def test_what_a_newer_version_adds_to_an_adoption_is_passed_over(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    known = Retire(WriterId(b"gone-of-"), 7, WriterId(b"b-first-"), 9)
    assert retired(a) == known
    assert retired(a, DIGEST) == replace(known, digest=DIGEST)
    with_earlier = replace(known, earlier=((6, DIGEST), (2, DIGEST)))
    assert retired(a, b"", [[6, DIGEST], [2, DIGEST]]) == with_earlier
    assert retired(a, b"", [[6, DIGEST], [2, DIGEST]], "newer", 7) == with_earlier


@pytest.mark.parametrize(
    "wrong",
    [
        [b"short"],
        [b""],
        [DIGEST, None],
        [DIGEST, [[7, DIGEST]]],
        [DIGEST, [[2, DIGEST], [3, DIGEST]]],
        [DIGEST, [[2, DIGEST], [2, DIGEST]]],
        [DIGEST, [[0, DIGEST]]],
        [DIGEST, [[2, b"short"]]],
        [DIGEST, [[2]]],
        [DIGEST, [[True, DIGEST]]],
    ],
)
def test_malformed_adoptions_are_damaged(tmp_path: Path, wrong: list[object]) -> None:
    with pytest.raises(DamagedError):
        retired(found(tmp_path / "a"), *wrong)


@pytest.mark.parametrize("wrong", [{"sequence": 0}, {"sequence": 1 << 62}, {"owed": -1}, {"digest": b"d"}])
def test_malformed_voids_are_damaged(tmp_path: Path, wrong: dict[str, object]) -> None:
    a = found(tmp_path / "a")
    void = replace(Void(WriterId(b"w" * 8), 9, b"d" * 16, 12), **wrong)  # type: ignore[arg-type]
    with pytest.raises(DamagedError):
        seal(void, a.roster.cluster_id, a.pod, a.identity.sign)
