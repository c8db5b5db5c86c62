"""Whatever pods sign, and in whatever order it arrives: all see the same members, and who was evicted has no say."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from base.ids import ClusterId, PodId, hash_bytes, pod_id_of
from mesh.api import Role
from mesh.records import EVERYBODY, Admit, Config, Found, Payload, Record, Revoke
from mesh.trust import Facts, Trust, judge

CLUSTER = ClusterId("c" * 32)
RECOVERY = b"recovery".ljust(32)


def key(number: int) -> bytes:
    return b"pod %d" % number + bytes(28 - len(str(number)))


def pod(number: int) -> PodId:
    return pod_id_of(key(number))


def signed(signer: PodId, payload: Payload) -> Record:
    """Return a record; signatures are checked elsewhere, before any of this."""
    data = repr((signer, payload)).encode()
    return Record(data, hash_bytes(data)[:16], CLUSTER, signer, b"", b"", payload)


FOUND = Found("home", bytes(16), "pod0", key(0), b"", 0, RECOVERY)
FOUNDING = signed(pod(0), FOUND)


def trust_of(records: list[Record]) -> Trust:
    facts = Facts(FOUNDING, FOUND)
    for record in records:
        facts.add(record)
    return judge(facts)


def seen(trust: Trust) -> object:
    evictions = {one: {record.id for record in found} for one, found in trust.evictions.items()}
    chain = [version.id for version in trust.configuration.chain]
    return trust.rooted, evictions, chain, trust.administrators(), {one.id for one in trust.counted}


@dataclass
class History:
    """What honest pods do one after the other, each knowing everything."""

    records: list[Record] = field(default_factory=list)
    pods: int = 1

    @property
    def trust(self) -> Trust:
        return trust_of(self.records)

    def order(self) -> int:
        return 1 + max((one.payload.order for one in self.records if isinstance(one.payload, Admit)), default=0)

    def admit(self, by: PodId, *, role: Role = Role.FULL, trusted: bool = True) -> PodId:
        number, self.pods = self.pods, self.pods + 1
        self.records.append(signed(by, admission(number, role, self.order(), trusted)))
        return pod(number)

    def evict(self, by: PodId, gone: PodId) -> None:
        """Evict as `operations.evicting` does: certify what it admitted, evict anew whom only it evicted."""
        trust = self.trust
        config = trust.configuration.chain[-1].id if trust.configuration.chain else b""
        stays = trust.rooted.keys() - {gone} | {pod_id_of(RECOVERY)}
        again = [one for one, found in trust.evictions.items() if not stays & {record.signer for record in found}]
        for one in {*again, gone} - {by}:
            kept = tuple(sorted(record.id for record in trust.counted if record.signer == one))
            self.records.append(signed(by, Revoke(one, (), config, 0, kept)))

    def configure(self, by: PodId, listed: tuple[str, ...]) -> None:
        trust = self.trust
        parent = trust.configuration.chain[-1].id if trust.configuration.chain else b""
        draft = Config(parent, str(len(self.records)), 0, listed)
        honours = trust.honoured_by(draft)
        self.records.append(signed(by, Config(parent, str(len(self.records)), 0, listed, 0, honours)))

    def administrators(self) -> list[PodId]:
        trust = self.trust
        return sorted(trust.administrators() & trust.rooted.keys()) or [pod(0)]


def admission(number: int, role: Role, order: int, trusted: bool = True, name: str = "") -> Admit:
    issuing = b"issuing %d" % number if role is Role.FULL else None
    return Admit(name or f"pod{number}", role, key(number), issuing, order, 0, trusted)


SEEDS = range(250)


def history_of(rng: Random) -> History:
    """Return what happened in a cluster: pods come, are evicted, the list of administrators changes."""
    history = History()
    history.configure(pod(0), (EVERYBODY,))
    for _ in range(rng.randint(1, 9)):
        by = rng.choice(history.administrators())
        members = sorted(history.trust.rooted)
        match rng.choice(["admit", "admit", "admit", "openly", "client", "evict", "configure"]):
            case "admit":
                history.admit(by)
            case "openly":
                history.admit(by, trusted=False)
            case "client":
                history.admit(by, role=Role.CLIENT)
            case "configure":
                listed = {by, *rng.sample(members, min(2, len(members)))}
                history.configure(by, rng.choice([(EVERYBODY,), tuple(sorted(listed))]))
            case "evict":
                history.evict(by, rng.choice([one for one in members if one != by] or [pod(99)]))
    return history


def anything(rng: Random, history: History, signers: list[PodId]) -> Record:
    """Return something that who has these pods' keys, and those of two that they may mint, could sign."""
    minted = [50, 51]
    signer = rng.choice([*signers, *signers, *map(pod, minted)])
    numbers = [*range(history.pods), *minted]
    versions = [one.id for one in history.records if isinstance(one.payload, Config)]
    some = tuple(pod(one) for one in rng.sample(numbers, 2))
    match rng.choice(["admit", "revoke", "config"]):
        case "admit":
            number, role = rng.choice(numbers[1:]), rng.choice(list(Role))
            return signed(
                signer, admission(number, role, rng.choice([1, 2, 5, 1000]), name=rng.choice(["", "pod0", "pod1"]))
            )
        case "revoke":
            certified = rng.choice([(), None, tuple(one.id for one in history.records)])
            keeps, version = rng.choice([(), some]), rng.choice([b"", *versions])
            return signed(signer, Revoke(pod(rng.choice(numbers)), keeps, version, 0, certified))
        case _:
            listed = rng.choice([(EVERYBODY,), (signer,), tuple(sorted(some))])
            return signed(signer, Config(rng.choice(versions), rng.choice("xyz"), 0, listed))


def malice(rng: Random, history: History, signers: list[PodId]) -> list[Record]:
    """Return a dozen of such records, what they build upon each other among them; the roster takes each once."""
    records = [*history.records]
    for _ in range(rng.randint(1, 12)):
        shown = History(records, history.pods)
        records.append(anything(rng, shown, signers))
    return list({record.id: record for record in records}.values())


def test_the_order_of_arrival_does_not_matter() -> None:
    for seed in SEEDS:
        rng = Random(seed)
        history = history_of(rng)
        records = malice(rng, history, [pod(number) for number in range(history.pods)])
        expected = seen(trust_of(records))
        for _ in range(3):
            rng.shuffle(records)
            assert seen(trust_of(records)) == expected, seed


def test_the_thief_of_an_evicted_laptop_changes_nothing() -> None:
    """Evicted by who ranks before it, or by the recovery key: whatever the thief signs, then or before, is void."""
    for seed in SEEDS:
        rng = Random(seed)
        history = history_of(rng)
        before = history.trust
        if not before.rooted:
            continue
        stolen = rng.choice(sorted(before.rooted))
        administrators = sorted(before.administrators() & before.rooted.keys() - {stolen})
        earlier = [one for one in administrators if before.rooted[one].rank < before.rooted[stolen].rank]
        by = rng.choice([*earlier, *earlier, pod_id_of(RECOVERY)])
        history.evict(by, stolen)
        after = history.trust
        assert after.rooted.keys() == before.rooted.keys() - {stolen}, seed
        assert seen(trust_of(malice(rng, history, [stolen]))) == seen(after), seed


def test_who_never_administered_changes_nothing() -> None:
    for seed in SEEDS:
        rng = Random(seed)
        history = history_of(rng)
        once = [trust_of(history.records[:count]) for count in range(1, len(history.records) + 1)]
        administered = {one for trust in once for one in trust.administrators()}
        trust = history.trust
        ordinary = sorted(trust.rooted.keys() - administered - {pod(0)})
        if ordinary:
            assert seen(trust_of(malice(rng, history, ordinary))) == seen(trust), seed


def test_open_admission_confers_nothing() -> None:
    for seed in SEEDS:
        history = history_of(Random(seed))
        by = next(iter(sorted(history.trust.administrators() & history.trust.rooted.keys())), None)
        if by is None:
            continue
        guest = history.admit(by, trusted=False)
        assert guest not in history.trust.administrators(), seed
        history.configure(by, (guest, *history.administrators()))
        assert guest in history.trust.administrators(), f"{seed}: but its id may be listed"
