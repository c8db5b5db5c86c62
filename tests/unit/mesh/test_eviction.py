"""Evictions on rosters with real keys, and between running nodes: what a thief can't do."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from base.errors import NotFoundError, RefusedError, UsageError
from base.ids import PodId
from mesh.api import Role
from mesh.eviction import revocations
from mesh.records import Admit, Found, Maintenance, RecordId, Revoke, Writer, record_id, seal
from mesh.recovery import RecoveryKey
from mesh.roster import Roster
from tests.unit.mesh.cluster import Home, admission, admit, found, linked, revocation, running, until

pytestmark = pytest.mark.anyio


def evict(by: Home, gone: PodId, *, doubtful: Collection[RecordId] = (), key: RecoveryKey | None = None) -> list[bytes]:
    """Evict as `wormhole evict` does; return the records."""
    signer, sign = (by.pod, by.identity.sign) if key is None else (key.id, key.sign)
    wanted = revocations(by.roster, signer, gone, 0, doubtful=doubtful, me=by.pod)
    made = [seal(one, by.roster.cluster_id, signer, sign) for one in wanted]
    by.store.add(made)
    return made


def found_with_key(path: Path) -> tuple[Home, RecoveryKey]:
    home, key = Home(path), RecoveryKey.create()
    identity = home.identity
    assert identity.issuing_certificate is not None
    first = Found("home", bytes(16), path.name, identity.public_key, identity.issuing_certificate, 0, key.public_key)
    home.store.add([seal(first, "", identity.pod_id, identity.sign)])
    identity.install_certificate(identity.issue(identity.public_key, home.roster.cluster_id, Role.FULL))
    return home, key


def everybody(*homes: Home) -> list[bytes]:
    return [record for home in homes for record in home.roster.records()]


def test_a_stolen_laptop_goes_alone_and_nothing_that_it_mints_gets_in(tmp_path: Path) -> None:
    nas = found(tmp_path / "nas")
    laptop = admit(nas, tmp_path / "laptop")
    phone = admit(laptop, tmp_path / "phone")
    nas.store.add(phone.roster.records())
    thief = Roster()
    thief.add_all(laptop.roster.records())
    evict(nas, laptop.pod)
    assert [nas.roster.is_member(home.pod) for home in (nas, laptop, phone)] == [True, False, True]
    # the thief goes on: a pod of its own, as senior as it can say, evicts everybody, also in the name of the phone
    minted = Home(tmp_path / "minted")
    early = Admit("minted", Role.FULL, minted.identity.public_key, minted.identity.issuing_certificate, 1, 0)
    rename = Admit("nas", Role.CLIENT, phone.identity.public_key, None, 1, 0)
    cluster = nas.roster.cluster_id
    signs = [
        seal(one, cluster, laptop.pod, laptop.identity.sign) for one in (early, rename, Revoke(nas.pod, (), b"", 0))
    ]
    own = [Revoke(nas.pod, (), b"", 0), Revoke(laptop.pod, (minted.pod,), b"", 0), Revoke(phone.pod, (), b"", 0)]
    signs += [seal(one, cluster, minted.pod, minted.identity.sign) for one in own]
    nas.store.add(signs)
    assert [nas.roster.is_admin(home.pod) for home in (nas, laptop, phone, minted)] == [True, False, True, False]
    entry = nas.roster.entry(phone.pod)
    assert entry is not None
    assert (entry.name, entry.role) == ("phone", Role.FULL)
    assert nas.roster.is_evicted(minted.pod)


def test_what_came_since_the_theft_goes_too(tmp_path: Path) -> None:
    nas = found(tmp_path / "nas")
    laptop = admit(nas, tmp_path / "laptop")
    phone = admit(laptop, tmp_path / "phone")
    nas.store.add(phone.roster.records())
    accomplice = admit(laptop, tmp_path / "accomplice")
    nas.store.add(accomplice.roster.records())
    fresh = {record_id(record) for record in accomplice.roster.records()} - {
        record_id(one) for one in phone.roster.records()
    }
    evict(nas, laptop.pod, doubtful=fresh)
    assert nas.roster.is_member(phone.pod)
    assert not nas.roster.is_member(accomplice.pod)


def test_records_are_known_by_when_they_came(tmp_path: Path) -> None:
    nas = found(tmp_path / "nas")
    laptop = admit(nas, tmp_path / "laptop")
    assert nas.store.heard_since(0) == {record_id(record) for record in nas.roster.records()}
    assert nas.store.heard_since(2e10) == set()
    assert nas.roster.signed_by(nas.pod) == set(nas.roster.admissions_by(nas.pod))
    assert set(nas.roster.admissions_by(nas.pod).values()) == {laptop.pod}


def test_whom_an_evicted_administrator_evicted_stays_out(tmp_path: Path) -> None:
    nas = found(tmp_path / "nas")
    desktop = admit(nas, tmp_path / "desktop")
    old = admit(nas, tmp_path / "old")
    desktop.store.add(nas.roster.records())
    evict(desktop, old.pod)
    nas.store.add(desktop.roster.records())
    evict(nas, desktop.pod)
    assert [nas.roster.is_member(home.pod) for home in (nas, desktop, old)] == [True, False, False]


def test_the_recovery_key_wins_against_the_founders_thief(tmp_path: Path) -> None:
    laptop, key = found_with_key(tmp_path / "laptop")
    nas = admit(laptop, tmp_path / "nas")
    phone = admit(nas, tmp_path / "phone")
    before = {record_id(record) for record in everybody(laptop, nas, phone)}
    laptop.store.add(everybody(nas, phone))
    evict(laptop, nas.pod)  # the thief has the founder's laptop
    nas.store.add(laptop.roster.records())
    assert not nas.roster.is_member(nas.pod)
    evict(nas, laptop.pod)
    assert not nas.roster.is_member(nas.pod), "the earlier admitted wins"
    key.check(nas.roster.recovery_key)
    stolen = nas.roster.signed_by(laptop.pod) - before
    evict(nas, laptop.pod, doubtful=stolen, key=key)
    for roster in (nas.roster, _merged(nas, laptop, phone)):
        assert [roster.is_admin(home.pod) for home in (laptop, nas, phone)] == [False, True, True]


def test_two_that_evict_each_other_stay_apart_until_a_third_or_the_recovery_key_decides(tmp_path: Path) -> None:
    laptop, key = found_with_key(tmp_path / "laptop")
    nas, phone = admit(laptop, tmp_path / "nas"), admit(laptop, tmp_path / "phone")
    for home in (nas, phone):
        home.store.add(laptop.roster.records())
    evict(laptop, nas.pod)
    evict(nas, laptop.pod)
    for here, there in ((laptop, nas), (nas, laptop)):
        heard = here.roster.of_recovery(there.roster.records())  # all that is learned from an evicted pod
        here.store.add(heard)
        assert here.roster.is_member(here.pod), "each goes on by itself"
        assert not here.roster.is_member(there.pod)
    phone.store.add(everybody(nas, laptop))
    assert [phone.roster.is_member(home.pod) for home in (laptop, nas, phone)] == [True, False, True]
    nas.store.add(phone.roster.records())
    assert not nas.roster.is_member(nas.pod), "the earlier admitted stays"
    evict(phone, laptop.pod, doubtful=phone.roster.signed_by(laptop.pod), key=key)
    assert not _merged(phone, nas).is_member(laptop.pod), "the key ranks before both"


def _merged(*homes: Home) -> Roster:
    roster = Roster()
    roster.add_all(everybody(*homes))
    return roster


def test_a_recovery_key_is_kept_as_text(tmp_path: Path) -> None:
    home, key = found_with_key(tmp_path / "a")
    key.save(tmp_path / "key", "home")
    again = RecoveryKey.load(tmp_path / "key")
    again.check(home.roster.recovery_key)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(RefusedError):
        RecoveryKey.create().check(home.roster.recovery_key)
    with pytest.raises(RefusedError, match="without one"):
        key.check(b"")
    (tmp_path / "key").write_text("rubbish\n")
    with pytest.raises(UsageError):
        RecoveryKey.load(tmp_path / "key")
    with pytest.raises(NotFoundError):
        RecoveryKey.load(tmp_path / "none")


def test_forged_and_replayed_revocations_are_void(tmp_path: Path) -> None:
    nas, other = found(tmp_path / "nas"), found(tmp_path / "other")
    laptop = admit(nas, tmp_path / "laptop")
    client = admit(nas, tmp_path / "client", Role.CLIENT)
    elsewhere = seal(Revoke(laptop.pod, (), b"", 0), other.roster.cluster_id, other.pod, other.identity.sign)
    forged = seal(Revoke(laptop.pod, (), b"", 0), nas.roster.cluster_id, nas.pod, other.identity.sign)
    by_client = seal(Revoke(laptop.pod, (), b"", 0), nas.roster.cluster_id, client.pod, client.identity.sign)
    assert nas.store.add([elsewhere, forged, by_client]) == []
    once = revocation(nas, laptop.pod)
    assert nas.store.add([once]) == [once]
    assert nas.store.add([once]) == []


def test_a_claimed_writer_goes_back_to_its_pod_with_the_eviction(tmp_path: Path) -> None:
    nas = found(tmp_path / "nas")
    laptop, desktop = admit(nas, tmp_path / "laptop"), admit(nas, tmp_path / "desktop")
    for home in (desktop, laptop):
        nas.store.add([seal(Writer(b"writer-1"), nas.roster.cluster_id, home.pod, home.identity.sign)])  # type: ignore[arg-type]
    assert nas.roster.writers() == {b"writer-1": laptop.pod}
    evict(nas, laptop.pod)
    assert nas.roster.writers() == {b"writer-1": desktop.pod}


def test_maintenance_is_remembered_in_whatever_order_it_is_heard(tmp_path: Path) -> None:
    nas = found(tmp_path / "nas")
    laptop = admit(nas, tmp_path / "laptop")
    said = []
    for on in (True, False, True):
        number = laptop.roster.next_maintenance(laptop.pod)
        said.append(seal(Maintenance(number, on), nas.roster.cluster_id, laptop.pod, laptop.identity.sign))
        laptop.store.add(said[-1:])
    nas.store.add([said[2], said[0]])
    assert nas.roster.is_maintained(laptop.pod)
    nas.store.add([said[1]])
    assert nas.roster.is_maintained(laptop.pod)
    assert not nas.roster.is_maintained(nas.pod)


async def test_who_does_not_administer_introduces_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A guest has an issuing key, but its word opens no door: a stranger isn't even told the roster."""
    nas = found(tmp_path / "nas")
    guest = Home(tmp_path / "guest")
    who, cluster = guest.identity, nas.roster.cluster_id
    payload = Admit("guest", Role.FULL, who.public_key, who.issuing_certificate, 1, 0, trusted=False)
    nas.store.add([seal(payload, cluster, nas.pod, nas.identity.sign)])
    guest.store.add(nas.roster.records())
    who.install_certificate(nas.identity.issue(who.public_key, cluster, Role.FULL))
    friend = admit(guest, tmp_path / "friend")
    async with running(nas, friend):
        await until(lambda: "certified by a pod that is no member" in caplog.text)
    assert nas.roster.entry(friend.pod) is None


async def test_the_recovery_key_is_heard_even_from_the_evicted(tmp_path: Path) -> None:
    """The thief's eviction reached the desktop first: it hears nothing of the nas but what the recovery key signed."""
    laptop, key = found_with_key(tmp_path / "laptop")
    nas, desktop = admit(laptop, tmp_path / "nas"), admit(laptop, tmp_path / "desktop")
    desktop.store.add(laptop.roster.records())
    nas.store.add(desktop.roster.records())
    thief = revocation(laptop, nas.pod)
    desktop.store.add([thief])
    evict(nas, laptop.pod, key=key)
    assert desktop.roster.is_evicted(nas.pod)
    async with running(desktop, nas) as (node_desktop, node_nas):
        await linked(node_desktop, node_nas)
        await until(lambda: node_desktop.roster.is_evicted(laptop.pod))
    assert not desktop.roster.is_revoked(nas.pod)


async def test_the_evicted_is_told_why_its_judge_may(tmp_path: Path) -> None:
    """The nas administers by a configuration that the laptop hasn't heard of."""
    laptop = found(tmp_path / "laptop")
    nas = admit(laptop, tmp_path / "nas")
    first = seal(
        laptop.roster.next_config("", [laptop.pod], 0), laptop.roster.cluster_id, laptop.pod, laptop.identity.sign
    )
    laptop.store.add([first])
    nas.store.add([first])
    later = seal(
        laptop.roster.next_config("", [nas.pod], 0), laptop.roster.cluster_id, laptop.pod, laptop.identity.sign
    )
    nas.store.add([later])
    evict(nas, laptop.pod)
    async with running(nas, laptop):
        await until(lambda: laptop.roster.is_evicted(laptop.pod))


async def test_changes_of_membership_are_one_line_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="mesh.diary")
    nas = found(tmp_path / "nas")
    laptop = admit(nas, tmp_path / "laptop")
    newcomer = Home(tmp_path / "newcomer", Role.CLIENT)
    async with running(nas, laptop) as (node_nas, node_laptop):
        await linked(node_nas, node_laptop)
        await node_nas.learn([admission(nas, newcomer.identity, "newcomer", Role.CLIENT)])
        await until(lambda: node_laptop.roster.entry(newcomer.pod) is not None)
        await node_laptop.learn([seal(Maintenance(1, True), nas.roster.cluster_id, laptop.pod, laptop.identity.sign)])
        await until(lambda: nas.roster.is_maintained(laptop.pod))
        await node_nas.learn([revocation(nas, laptop.pod)])
        await until(lambda: not node_laptop.alive())
    lines = [record.getMessage() for record in caplog.records if record.name == "mesh.diary"]
    short = laptop.pod[:8]
    for line in (
        f"newcomer ({newcomer.pod[:8]}) was admitted as client by nas ({nas.pod[:8]})",
        f"laptop ({short}) is alive",
        f"laptop ({short}) is in maintenance",
        f"laptop ({short}) is evicted",
    ):
        assert lines.count(line) in (1, 2), (line, lines)
