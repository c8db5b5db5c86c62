from __future__ import annotations

import pytest

from base.errors import DamagedError, RefusedError, UsageError
from base.home import Home
from base.ids import PodId
from discovery.code_store import KEEP_ENDED_S, MAX_ATTEMPTS, MAX_CODES, CodeStore
from discovery.join_messages import Reason
from discovery.rate import HOST_BURST, MAX_HOSTS, KnockRate
from mesh.api import Role
from tests.unit.discovery.house import found_house

POD, OTHER = PodId("1" * 32), PodId("2" * 32)


@pytest.fixture
def store(tmp_path):
    store = CodeStore(tmp_path / "codes.db")
    yield store
    store.close()


def issue(store: CodeStore, uses: int = 1, now: float = 0.0):
    return store.issue("k7mq", Role.FULL, uses, now + 600, now)


def test_a_code_is_kept(store, tmp_path):
    issued = issue(store, uses=2)
    again = CodeStore(tmp_path / "codes.db")
    assert again.find(issued.code.number) == issued
    assert again.find("zz" if issued.code.number != "zz" else "00") is None
    again.close()
    assert (tmp_path / "codes.db").stat().st_mode & 0o077 == 0


def test_the_ends_of_a_code(store):
    number = issue(store, uses=1).code.number
    assert store.find(number).ended(POD, 599) is None
    assert store.find(number).ended(POD, 600) is Reason.EXPIRED_CODE
    store.count_attempt(number)
    store.redeem(number, POD)
    assert store.find(number).attempts == 0
    assert store.find(number).ended(OTHER, 1) is Reason.USED_CODE
    assert store.find(number).ended(POD, 9999) is None, "the same joiner may come again"
    store.redeem(number, POD)
    assert store.find(number).redeemed_by == {POD}


def test_three_attempts(store):
    number = issue(store, uses=5).code.number
    for left in range(MAX_ATTEMPTS, 0, -1):
        assert store.find(number).attempts_left == left
        assert store.find(number).ended(POD, 1) is None
        store.count_attempt(number)
    assert store.find(number).ended(POD, 1) is Reason.VOID_CODE


def test_codes_are_bounded_and_old_ones_go(store):
    numbers = {issue(store).code.number for _ in range(MAX_CODES)}
    assert len(numbers) == MAX_CODES
    with pytest.raises(RefusedError):
        issue(store)
    fresh = issue(store, now=600 + KEEP_ENDED_S + 1)
    assert store.find(fresh.code.number) == fresh
    assert sum(store.find(number) is not None for number in numbers) <= 1


def test_a_damaged_file_is_said_to_be_so(tmp_path):
    path = tmp_path / "codes.db"
    path.write_bytes(b"not a database, by no means" * 100)
    with pytest.raises(DamagedError):
        CodeStore(path)


@pytest.mark.anyio
async def test_impossible_invitations(tmp_path):
    house = found_house(Home(tmp_path / "home").path)
    for arguments in ({"uses": 0}, {"uses": 10**6}, {"expires_s": 0}, {"expires_s": -5}, {"expires_s": 1e9}):
        with pytest.raises(UsageError):
            await house.admissions.invite(**arguments)
    house.policy = type(house.policy)(mode="closed")
    with pytest.raises(RefusedError, match="closed"):
        await house.admissions.invite()
    house.admissions.close()
    house.store.close()


def test_a_host_knocks_many_times_and_then_slowly():
    rate = KnockRate()
    assert [rate.allow("a", 100.0) for _ in range(25)].count(True) == HOST_BURST
    assert rate.allow("b", 100.0)
    assert not rate.allow("a", 101.0)
    assert rate.allow("a", 102.1)
    assert not rate.allow("a", 102.1)
    rate.forgive("a")
    assert rate.allow("a", 102.1)


def test_many_hosts_together_are_bounded_too():
    rate = KnockRate()
    allowed = sum(rate.allow(f"host {number}", 100.0) for number in range(5 * MAX_HOSTS))
    assert allowed == 60
    assert len(rate._hosts) <= MAX_HOSTS
