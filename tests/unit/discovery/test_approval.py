"""Admission by approval: who waits, who is let in or turned away, on whichever pod."""

from __future__ import annotations

from contextlib import asynccontextmanager

import anyio
import pytest

from base.errors import RefusedError, UnreachableError
from base.home import Home
from base.ids import PodId
from discovery import joining
from discovery.admission import AdmissionPolicy
from discovery.fingerprint import fingerprint
from discovery.join_messages import Request
from discovery.joining import join
from discovery.waiting import (
    DENIED_S,
    FORGET_AFTER_S,
    MAX_OF_HOST,
    MAX_WAITING,
    WaitingRoom,
)
from mesh.api import Role
from mesh.identity import Identity
from mesh.records import Admit, seal
from tests.unit.discovery.house import found_house, listening, open_house

APPROVE = AdmissionPolicy(mode="approve")


def request(number: int) -> Request:
    return Request(number.to_bytes(32, "big"), b"", f"pod{number}", Role.CLIENT)


def test_who_stops_asking_is_forgotten() -> None:
    room = WaitingRoom()
    assert room.ask(request(1), "a", 0.0) is True
    assert room.ask(request(2), "a", 5.0) is True
    assert room.ask(request(1), "a", 10.0) is False
    assert [(one.request.pod_name, one.since_s) for one in room.waiting(15.0)] == [("pod1", 0.0), ("pod2", 5.0)]
    assert [one.request.pod_name for one in room.waiting(6 + FORGET_AFTER_S)] == ["pod1"]
    room.admitted(request(1).pod)
    assert room.waiting(26.0) == []


def test_a_host_and_all_hosts_are_bounded() -> None:
    room = WaitingRoom()
    for number in range(MAX_OF_HOST):
        assert room.ask(request(number), "one", 0.0)
    assert room.ask(request(900), "one", 0.0) is None
    assert room.ask(request(0), "one", 0.0) is False, "who waits already keeps its place"
    for number in range(MAX_OF_HOST, MAX_WAITING):
        assert room.ask(request(number), f"host {number}", 0.0)
    assert room.ask(request(901), "another", 0.0) is None
    assert room.ask(request(901), "another", FORGET_AFTER_S + 1) is True, "the others have given up"


def test_the_denied_are_told_so_for_an_hour() -> None:
    room = WaitingRoom()
    room.ask(request(1), "a", 0.0)
    room.deny(request(1).pod, 1.0)
    assert room.waiting(1.0) == []
    assert room.is_denied(request(1).pod, DENIED_S)
    assert not room.is_denied(request(1).pod, DENIED_S + 2)
    for number in range(2, 2000):
        room.deny(request(number).pod, 2.0)
    assert not room.is_denied(request(1).pod, 3.0), "the memory of them is bounded"


def test_a_fingerprint_can_be_compared_by_people() -> None:
    assert fingerprint(PodId("0123456789abcdef" * 2)) == "0123 4567 89ab cdef 0123 4567 89ab cdef"


@pytest.fixture
def house(tmp_path, monkeypatch):
    monkeypatch.setattr(joining, "ASK_EVERY_S", 0.05)
    house = found_house(tmp_path / "issuer")
    house.policy = APPROVE
    yield house
    house.admissions.close()
    house.store.close()


@asynccontextmanager
async def joining_pod(house, home):
    """Let a pod ask, and yield what becomes of it once it waits."""
    outcome: list[object] = []
    waits = anyio.Event()

    async def ask() -> None:
        try:
            outcome.append(await join(home, peer=house.address, pod_name="nas", awaited=lambda _: waits.set()))
        except Exception as error:
            outcome.append(error)

    with anyio.fail_after(60):
        async with listening(house), anyio.create_task_group() as group:
            group.start_soon(ask)
            await waits.wait()
            yield outcome


@pytest.mark.anyio
async def test_approved(house, tmp_path, caplog):
    caplog.set_level("INFO")
    async with joining_pod(house, Home(tmp_path / "nas")) as outcome:
        (waiting,) = house.admissions.waiting()
        assert fingerprint(waiting.request.pod) in caplog.text
        assert len(house.store.roster.pods()) == 1, "nothing is written before"
        assert await house.admissions.approve(waiting.request) == "nas"
    (joined,) = outcome
    assert (joined.pod, joined.pod_name) == (waiting.request.pod, "nas")
    assert house.store.roster.is_admin(joined.pod), "a person let it in"
    assert house.admissions.waiting() == []
    assert caplog.text.count("asks to join") == 1, "however often it asks"


@pytest.mark.anyio
async def test_approved_on_another_pod(house, tmp_path):
    """The record that another administering pod signed is all that it takes."""
    house.policy = AdmissionPolicy()
    code = (await house.admissions.invite()).code
    async with listening(house):
        await join(Home(tmp_path / "desktop"), code=code, peer=house.address, pod_name="desktop")
    other = open_house(Home(tmp_path / "desktop"))
    house.policy = other.policy = APPROVE
    async with joining_pod(house, Home(tmp_path / "nas")) as outcome:
        (waiting,) = house.admissions.waiting()
        await other.admissions.approve(waiting.request)
        house.store.add(other.store.roster.records())
    assert outcome[0].pod == waiting.request.pod
    assert house.store.roster.entry(waiting.request.pod).by == other.identity.pod_id
    other.admissions.close()


@pytest.mark.anyio
async def test_denied(house, tmp_path):
    async with joining_pod(house, Home(tmp_path / "nas")) as outcome:
        (waiting,) = house.admissions.waiting()
        house.admissions.deny(waiting.request.pod)
    assert isinstance(outcome[0], RefusedError)
    assert "denied" in outcome[0].message
    assert not (tmp_path / "nas").exists()
    assert len(house.store.roster.pods()) == 1


@pytest.mark.anyio
async def test_nobody_comes(house, tmp_path, monkeypatch):
    monkeypatch.setattr(joining, "APPROVAL_S", 0.3)
    async with joining_pod(house, Home(tmp_path / "nas")) as outcome:
        pass
    assert isinstance(outcome[0], UnreachableError)
    assert outcome[0].exit_code == 5
    assert "approve" in outcome[0].advice
    assert not (tmp_path / "nas").exists()


@pytest.mark.anyio
async def test_the_pod_that_was_asked_is_started_anew(house, tmp_path):
    """It has forgotten who waits; who waits asks again."""
    async with joining_pod(house, Home(tmp_path / "nas")) as outcome:
        first = house.admissions
        first.close()
        house.admissions = open_house(house.home).admissions
        house.admissions._policy = lambda: APPROVE
        while not (found := house.admissions.waiting()):
            await anyio.sleep(0.02)
        await house.admissions.approve(found[0].request)
        house.store.add(house.admissions._store.roster.records())
    assert outcome[0].pod_name == "nas"


@pytest.mark.anyio
async def test_who_may_not_administer_approves_nobody(house, tmp_path):
    guest = Identity.create(tmp_path / "guest" / "identity")
    admit = Admit("guest", Role.FULL, guest.public_key, guest.issuing_certificate, 1, 0, trusted=False)
    house.store.add([seal(admit, house.store.roster.cluster_id, house.identity.pod_id, house.identity.sign)])
    guests = found_house(tmp_path / "elsewhere")
    guests.store.close()
    guests.admissions._identity, guests.admissions._store = guest, house.store
    guests.policy = APPROVE
    with pytest.raises(RefusedError) as caught:
        await guests.admissions.approve(request(1))
    assert "laptop" in caught.value.advice, "it names who may"
    with pytest.raises(RefusedError):
        await guests.admissions.invite()
    guests.admissions.close()
