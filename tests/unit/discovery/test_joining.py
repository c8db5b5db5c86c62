"""Whole joins: a founded cluster, real TLS on the loopback interface, real files."""

from __future__ import annotations

import secrets

import anyio
import pytest
from cryptography import x509

from base.errors import (
    NotFoundError,
    RefusedError,
    UnreachableError,
    UsageError,
    WormholeError,
)
from base.home import Home
from base.ids import ClusterId, PodId
from discovery.admission import AdmissionPolicy
from discovery.code import issuer_tag, new_code, parse_code
from discovery.join_messages import Reason, Request
from discovery.join_protocol import JoinerSide, JoinRefusedError
from discovery.joining import join
from discovery.mdns import Announcer
from discovery.service import Service
from mesh.api import Role
from mesh.identity import Identity, read_certificate
from mesh.join_stream import JoinStream, open_join
from mesh.roster_store import RosterStore
from mesh.wire import Tag
from tests.unit.discovery.house import CLUSTER_TOML, House, found_house, listening, open_house

pytestmark = pytest.mark.anyio


@pytest.fixture
def house(tmp_path):
    house = found_house(tmp_path / "issuer")
    yield house
    house.admissions.close()
    house.store.close()


@pytest.fixture
def new_home(tmp_path):
    return Home(tmp_path / "state" / "joiner")


async def refused(house: House, home: Home, kind: type[WormholeError] = RefusedError, **arguments) -> WormholeError:
    """Try to join, expect ``kind``, and that nothing is left behind."""
    with pytest.raises(kind) as caught:
        await join(home, **{"peer": house.address, "pod_name": "nas", **arguments})
    assert caught.type is kind or kind is WormholeError
    assert not home.path.parent.exists()
    assert caught.value.advice
    return caught.value


def wrong(code: str) -> str:
    """Another well-formed code of the same issuer and number."""
    right = parse_code(code)
    while (other := new_code(right.tag, 0)).secret == right.secret:
        pass
    return str(type(right)(right.tag, right.number, other.secret))


async def test_join_with_a_code(house, new_home):
    invite = await house.admissions.invite()
    async with listening(house):
        joined = await join(new_home, code=invite.code, peer=house.address, pod_name="nas")
    roster = house.store.roster
    assert (joined.cluster, joined.cluster_id, joined.pod_name, joined.role) == (
        "home",
        roster.cluster_id,
        "nas",
        Role.FULL,
    )
    entry = roster.entry(joined.pod)
    assert entry is not None
    assert entry.by == house.identity.pod_id
    identity, store = Identity.load(new_home.identity), RosterStore(new_home.roster_db)
    assert identity.pod_id == joined.pod
    assert identity.can_issue
    assert entry.issuing == identity.issuing_certificate
    assert store.roster.digest() == roster.digest()
    assert store.roster.config_toml() == CLUSTER_TOML
    info = read_certificate(identity.certificate())
    assert (info.cluster, info.pod, info.role) == (roster.cluster_id, joined.pod, Role.FULL)
    issuing = house.identity.issuing_certificate
    assert issuing is not None
    x509.load_der_x509_certificate(identity.certificate()).verify_directly_issued_by(
        x509.load_der_x509_certificate(issuing)
    )
    assert store.remembered()[house.identity.pod_id].address == house.address
    assert joined.addresses[0] == (house.address, house.identity.pod_id)
    store.close()
    assert sorted(path.name for path in new_home.path.iterdir()) == ["identity", "roster.db"]
    assert len(house.admitted) == 1


async def test_the_record_survives_a_restart_of_the_issuer(house, new_home):
    invite = await house.admissions.invite()
    async with listening(house):
        joined = await join(new_home, code=invite.code, peer=house.address, pod_name="nas")
    again = open_house(house.home)
    assert again.store.roster.is_member(joined.pod)
    again.now = house.now
    async with listening(again):
        error = await refused(again, Home(new_home.path.parent.parent / "x" / "y"), code=invite.code)
    assert "used" in error.message
    again.admissions.close()
    again.store.close()


async def test_wrong_codes_end_the_code(house, new_home):
    invite = await house.admissions.invite()
    async with listening(house):
        first = await refused(house, new_home, code=wrong(invite.code))
        assert "wrong" in first.message
        assert "2 more" in first.message
        assert "laptop" in first.advice
        assert "wormhole invite" in first.advice
        await refused(house, new_home, code=wrong(invite.code))
        third = await refused(house, new_home, code=wrong(invite.code))
        assert "void" in third.message
        right = await refused(house, new_home, code=invite.code)
        assert "void" in right.message
    assert len(house.store.roster.pods()) == 1


async def test_wrong_attempts_outlive_a_restart(house, new_home):
    invite = await house.admissions.invite()
    async with listening(house):
        await refused(house, new_home, code=wrong(invite.code))
        await refused(house, new_home, code=wrong(invite.code))
    again = open_house(house.home)
    async with listening(again):
        error = await refused(again, new_home, code=wrong(invite.code))
        assert "void" in error.message
    again.admissions.close()
    again.store.close()


async def test_right_uses_cost_no_attempts(house, tmp_path):
    invite = await house.admissions.invite(uses=5)
    async with listening(house):
        for number in range(5):
            joined = await join(Home(tmp_path / f"pod{number}"), code=invite.code, peer=house.address, pod_name="nas")
            assert joined.pod_name == ("nas" if number == 0 else f"nas-{number + 1}")
        home = Home(tmp_path / "state" / "joiner")
        error = await refused(house, home, code=invite.code)
        assert "used" in error.message


async def test_simultaneous_joins_of_one_code(house, tmp_path):
    invite = await house.admissions.invite(uses=2)
    results: list[str] = []

    async def one(number: int) -> None:
        try:
            await join(Home(tmp_path / f"pod{number}"), code=invite.code, peer=house.address, pod_name="nas")
            results.append("in")
        except RefusedError as error:
            results.append(error.message)

    async with listening(house), anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(one, number)
    assert results.count("in") == 2
    assert all("used" in result for result in results if result != "in")
    assert len(house.store.roster.pods()) == 3


async def test_twenty_devices_join_by_one_code_at_once(house, tmp_path):
    invite = await house.admissions.invite(uses=20)
    names: list[str] = []

    async def one(number: int) -> None:
        home = Home(tmp_path / f"pod{number}")
        joined = await join(home, code=invite.code, peer=house.address, pod_name="nas", timeout_s=60)
        names.append(joined.pod_name)

    async with listening(house), anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(one, number)
    assert len(set(names)) == 20


async def test_an_admission_that_can_not_be_written_is_never_answered(house, new_home):
    invite = await house.admissions.invite()
    house.disk_full = True
    async with listening(house):
        error = await refused(house, new_home, UnreachableError, code=invite.code)
        assert "could not complete" in error.message

    # nor when the same joiner asks again, with the disk well again but the record still in memory only
    other = await house.admissions.invite()
    identity = Identity.create(new_home.identity)
    request = Request(identity.public_key, identity.issuing_certificate or b"", "nas", Role.FULL)
    reasons = []
    async with listening(house):
        host, _, port = house.address.rpartition(":")
        for house.disk_full in (True, False):
            async with await open_join(host, int(port)) as stream:
                side = JoinerSide(parse_code(other.code), request, identity.sign, stream.server_certificate_hash)
                await stream.send(*side.start())
                message = side.receive(*await stream.receive())
                assert isinstance(message, tuple)
                await stream.send(*message)
                with pytest.raises(JoinRefusedError) as caught:
                    side.receive(*await stream.receive())
                reasons.append(caught.value.refusal.reason)
    assert reasons == [Reason.FAILED, Reason.FAILED]


async def test_expired_code(house, new_home):
    invite = await house.admissions.invite(expires_s=600)
    assert invite.expires == house.now + 600
    house.now += 600
    async with listening(house):
        error = await refused(house, new_home, code=invite.code)
    assert "expired" in error.message
    assert "wormhole invite" in error.advice


async def test_unknown_and_malformed_codes(house, new_home):
    tag = issuer_tag(house.store.roster.cluster_id, house.identity.pod_id)
    async with listening(house):
        error = await refused(house, new_home, code=str(new_code(tag, 7)))
        assert "no such" in error.message
        calls = house.calls
        error = await refused(house, new_home, code="abcd-ef")
        assert "18" in error.message
        assert house.calls == calls, "a malformed code is not sent anywhere"


async def test_client_codes_and_clients(house, tmp_path):
    client_code = await house.admissions.invite(role=Role.CLIENT)
    full_code = await house.admissions.invite()
    async with listening(house):
        one = await join(Home(tmp_path / "one"), code=client_code.code, peer=house.address, pod_name="one")
        two = await join(Home(tmp_path / "two"), code=full_code.code, peer=house.address, pod_name="two", client=True)
    for joined, folder in ((one, "one"), (two, "two")):
        assert joined.role is Role.CLIENT
        identity = Identity.load(Home(tmp_path / folder).identity)
        assert not identity.can_issue
        assert read_certificate(identity.certificate()).role is Role.CLIENT
        entry = house.store.roster.entry(joined.pod)
        assert entry is not None
        assert (entry.role, entry.issuing) == (Role.CLIENT, None)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (AdmissionPolicy(mode="closed"), "no new pods"),
        (AdmissionPolicy(mode="approve"), "approval"),
        (AdmissionPolicy(allow=["desktop"]), "does not allow"),
        (AdmissionPolicy(deny=["nas"]), "does not allow"),
    ],
)
async def test_the_policy_is_asked_at_the_join(house, new_home, policy, words):
    invite = await house.admissions.invite()
    house.policy = policy
    async with listening(house):
        error = await refused(house, new_home, code=invite.code)
        assert words in error.message
        house.policy = AdmissionPolicy(allow=["nas"])
        await join(new_home, code=invite.code, peer=house.address, pod_name="nas")


async def test_open_admission_needs_no_code(house, new_home, tmp_path):
    async with listening(house):
        error = await refused(house, new_home)
        assert "code" in error.message
        house.policy = AdmissionPolicy(mode="open")
        joined = await join(new_home, peer=house.address, pod_name="nas")
        with_code = (await house.admissions.invite()).code
        known = await join(Home(tmp_path / "known"), code=with_code, peer=house.address, pod_name="desktop")
    roster = house.store.roster
    assert roster.is_member(joined.pod)
    assert not roster.is_admin(joined.pod), "it let itself in"
    assert roster.is_admin(known.pod)


async def test_another_name_is_refused_before_anybody_is_admitted(house, new_home):
    invite = await house.admissions.invite()
    async with listening(house):
        await refused(house, new_home, UsageError, code=invite.code, name="office")
        assert len(house.store.roster.pods()) == 1
        joined = await join(new_home, code=invite.code, name="home", peer=house.address, pod_name="nas")
        assert joined.cluster == "home"


async def test_a_home_with_a_pod_is_left_alone(house, new_home):
    code, other = (await house.admissions.invite()).code, (await house.admissions.invite()).code
    async with listening(house):
        await join(new_home, code=code, peer=house.address, pod_name="nas")
        before = sorted(new_home.path.rglob("*"))
        with pytest.raises(RefusedError, match="wormhole up"):
            await join(new_home, code=other, peer=house.address, pod_name="nas")
        assert sorted(new_home.path.rglob("*")) == before


async def test_a_lost_answer_is_asked_for_again(house, new_home):
    """The connection ends when the admission is about to be sent; the joiner comes again with the same key."""
    invite = await house.admissions.invite()

    class Cut:
        def __init__(self, stream: JoinStream) -> None:
            self.stream = stream
            self.peer_host, self.server_certificate_hash = stream.peer_host, stream.server_certificate_hash
            self.receive = stream.receive

        async def send(self, tag, body):
            if tag is Tag.JOIN_ADMITTED:
                await self.stream.close()
                raise UnreachableError("cut")
            await self.stream.send(tag, body)

    async def handler(stream):
        await house.admissions.serve(Cut(stream) if house.calls == 1 else stream)

    async with listening(house, handler):
        joined = await join(new_home, code=invite.code, peer=house.address, pod_name="nas")
    assert house.calls == 2
    assert len(house.store.roster.pods()) == 2
    assert joined.pod_name == "nas"


async def test_a_used_code_is_no_use_to_another_key_after_a_lost_answer(house, new_home, tmp_path):
    invite = await house.admissions.invite()
    async with listening(house):
        await join(Home(tmp_path / "first"), code=invite.code, peer=house.address, pod_name="first")
        error = await refused(house, new_home, code=invite.code)
    assert "used" in error.message


async def test_another_pod_names_the_issuer(house, new_home, tmp_path):
    invite_second = await house.admissions.invite()
    second_home = Home(tmp_path / "second")
    async with listening(house):
        await join(second_home, code=invite_second.code, peer=house.address, pod_name="second")
        invite = await house.admissions.invite()
        second = open_house(second_home)
        async with listening(second):
            error = await refused(second, new_home, code=invite.code)
            assert "laptop did" in error.message
            second.addresses[house.identity.pod_id] = house.address
            joined = await join(new_home, code=invite.code, peer=second.address, pod_name="nas")
            assert joined.issuer == house.identity.pod_id
            assert joined.addresses[0] == (house.address, house.identity.pod_id)
            # and the second pod can admit by codes of its own
            own = await second.admissions.invite()
            third = await join(Home(tmp_path / "third"), code=own.code, peer=second.address, pod_name="third")
            assert third.issuer == second.identity.pod_id
        second.admissions.close()
        second.store.close()


async def test_a_man_in_the_middle_is_refused_on_both_sides(house, new_home, tmp_path):
    """A proxy that terminates TLS with a certificate of its own and passes all messages on."""
    invite = await house.admissions.invite()
    middle = found_house(tmp_path / "middle", "home", "laptop")
    passed: list[Tag] = []

    async def relay(stream: JoinStream) -> None:
        host, _, port = house.address.rpartition(":")
        async with await open_join(host, int(port)) as onward:
            assert onward.server_certificate_hash != stream.server_certificate_hash
            for source, sink in ((stream, onward), (onward, stream)) * 4:
                tag, body = await source.receive()
                passed.append(tag)
                await sink.send(tag, body)

    async with listening(house), listening(middle, relay):
        error = await refused(middle, new_home, code=invite.code)
    assert "in between" in error.message
    assert len(house.store.roster.pods()) == 1
    # the request is signed for the certificate that the joiner saw, so the issuer does not even begin
    assert passed[:2] == [Tag.JOIN_START, Tag.JOIN_REFUSED]
    middle.admissions.close()
    middle.store.close()


async def test_an_impostor_that_admits_everybody_is_found_out(house, new_home, tmp_path):
    """It has the ids of the issuer, but not the code."""
    invite = await house.admissions.invite()
    code = parse_code(invite.code)
    guess = type(code)(code.tag, code.number, "0" * 11)
    impostor = found_house(tmp_path / "impostor")

    async def admit_all(stream: JoinStream) -> None:
        from discovery.join_protocol import IssuerSide

        side = IssuerSide(house.store.roster.cluster_id, house.identity.pod_id, stream.server_certificate_hash)
        side.start(*await stream.receive())
        await stream.send(*side.challenge(guess))
        await stream.receive()
        await stream.send(Tag.JOIN_ADMITTED, {"answer": b"\x90", "proof": secrets.token_bytes(32)})
        await anyio.sleep_forever()

    async with listening(impostor, admit_all):
        error = await refused(impostor, new_home, code=invite.code)
    assert "could not prove" in error.message
    impostor.admissions.close()
    impostor.store.close()


async def test_strangers_words_are_not_shown(house, new_home, monkeypatch):
    monkeypatch.setattr("discovery.joining._FIRST_PAUSE_S", 0.001)  # it is asked again, in case it was only busy

    async def rude(stream: JoinStream) -> None:
        await stream.receive()
        raise RefusedError("\x1b]0;pwned\x07")

    invite = await house.admissions.invite()
    async with listening(house, rude):
        with pytest.raises(UnreachableError) as caught:
            await join(new_home, code=invite.code, peer=house.address, pod_name="nas")
    assert "\x1b" not in str(caught.value)
    assert house.calls == 7


async def test_nobody_answers(new_home):
    with pytest.raises(UnreachableError):
        await join(new_home, peer="127.0.0.1:9", pod_name="nas")
    assert not new_home.path.parent.exists()


async def test_a_silent_pod_ends_with_the_deadline(house, new_home):
    async def silent(stream: JoinStream) -> None:
        await anyio.sleep_forever()

    async with listening(house, silent):
        with pytest.raises(UnreachableError):
            await join(new_home, peer=house.address, pod_name="nas", timeout_s=0.3)
    assert not new_home.path.parent.exists()


async def test_the_issuer_gives_a_silent_joiner_up(house, monkeypatch):
    monkeypatch.setattr("discovery.admission.SERVE_S", 0.2)
    async with listening(house):
        host, _, port = house.address.rpartition(":")
        async with await open_join(host, int(port)) as stream:
            with anyio.fail_after(60), pytest.raises(UnreachableError):
                await stream.receive()


async def test_too_many_knocks_are_turned_away(house):
    """Twenty at once, then slowly; those turned away cost no attempt."""
    host, reasons = "127.0.0.1", []
    async with listening(house):
        port = int(house.address.rpartition(":")[2])
        for _ in range(24):
            async with await open_join(host, port) as stream:
                await stream.send(Tag.JOIN_START, {"version": 1})
                tag, body = await stream.receive()
                assert tag is Tag.JOIN_REFUSED
                reasons.append(body["reason"])
    assert reasons[:20] == ["malformed"] * 20
    assert "busy" in reasons[20:]


async def test_refused_attempts_are_logged_once(house, new_home, caplog):
    async with listening(house):
        for _ in range(3):
            await refused(house, new_home, peer=house.address)
    assert len([line for line in caplog.records if "was refused" in line.message]) == 1


async def test_found_by_multicast(house, new_home):
    roster = house.store.roster
    invite = await house.admissions.invite()
    async with listening(house), anyio.create_task_group() as tasks:
        port = int(house.address.rpartition(":")[2])
        service = Service(roster.cluster_id, "home", house.identity.pod_id, "laptop", "code", port, ("127.0.0.1",))
        await tasks.start(Announcer(service, only="127.0.0.1").run)
        with pytest.raises(UsageError, match="not for office"):
            await join(new_home, name="office", code=invite.code, pod_name="nas", only="127.0.0.1")
        told: list[str] = []
        joined = await join(new_home, code=invite.code, pod_name="nas", only="127.0.0.1", progress=told.append)
        assert joined.addresses[0] == (house.address, house.identity.pod_id)
        assert any("laptop" in line for line in told)
        tasks.cancel_scope.cancel()


async def test_several_clusters_of_one_name_are_listed(new_home):
    names = [ClusterId(secrets.token_hex(16)) for _ in range(2)]
    async with anyio.create_task_group() as tasks:
        for number, cluster in enumerate(names):
            service = Service(
                cluster, "twins", PodId(secrets.token_hex(16)), f"pod{number}", "open", 7420 + number, ("127.0.0.1",)
            )
            await tasks.start(Announcer(service, only="127.0.0.1").run)
        with pytest.raises(UsageError) as caught:
            await join(new_home, name="twins", only="127.0.0.1")
        assert all(cluster in caught.value.message for cluster in names)
        with pytest.raises(NotFoundError):
            await join(new_home, name="nobody-is-called-so", only="127.0.0.1")
        tasks.cancel_scope.cancel()
    assert not new_home.path.parent.exists()
