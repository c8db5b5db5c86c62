"""Rosters with real keys: whatever pods sign on however many sides, honest or not, all end up with the same state."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from base.errors import DamagedError
from base.ids import PodId
from mesh.api import Role
from mesh.identity import Identity
from mesh.records import EVERYBODY, Admit, Config, Found, Payload, Revoke, seal
from mesh.roster import Roster

NAMES = ("anna", "bert", "cleo", "dora", "nas")
STEPS = 40


@cache
def identities() -> list[Identity]:
    """Return the keys of five full pods and a client; made once, since that is what takes the time."""
    roles = [*[Role.FULL] * len(NAMES), Role.CLIENT]
    folder = Path(tempfile.mkdtemp(prefix="wormhole-"))
    atexit.register(shutil.rmtree, folder)
    return [Identity.create(folder / str(number), role=role) for number, role in enumerate(roles)]


class Sides:
    """Pods with a roster each, which meet now and then."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        first = identities()[0]
        assert first.issuing_certificate is not None
        found = Found("home", bytes(16), NAMES[0], first.public_key, first.issuing_certificate, 0)
        self.founding = seal(found, "", first.pod_id, first.sign)
        self.rosters = {one.pod_id: Roster() for one in identities()}
        for roster in self.rosters.values():
            roster.add_all([self.founding])
        self.cluster = self.rosters[first.pod_id].cluster_id
        self.made: list[bytes] = [self.founding]
        self.sign(first, Config(b"", "first", 0, self.listed()))
        for number in rng.sample((1, 2, 3, 4, 5), rng.randint(2, 5)):
            self.admit(first, identities()[number], number)
        for roster in self.rosters.values():
            roster.add_all(self.made)

    def sign(self, by: Identity, payload: Payload) -> None:
        try:
            record = seal(payload, self.cluster, by.pod_id, by.sign)
        except DamagedError:
            return
        self.made.append(record)
        self.rosters[by.pod_id].add_all([record])

    def admit(self, by: Identity, other: Identity, order: int) -> None:
        role = Role.FULL if other.issuing_certificate else Role.CLIENT
        trusted = self.rng.random() < 0.8
        name = self.rng.choice(NAMES)
        self.sign(by, Admit(name, role, other.public_key, other.issuing_certificate, order, 0, trusted))

    def listed(self) -> tuple[str, ...]:
        if self.rng.random() < 0.4:
            return (EVERYBODY,)
        known = [*NAMES, *(one.pod_id for one in identities())]
        return tuple(sorted({self.rng.choice(known) for _ in range(self.rng.randint(1, 3))}))

    def step(self) -> None:
        rng, by = self.rng, self.rng.choice(identities())
        roster = self.rosters[by.pod_id]
        match rng.choice(["meet", "meet", "admit", "configure", "configure", "forge", "evict", "replay"]):
            case "meet":
                met = self.rosters[rng.choice(identities()).pod_id]
                roster.add_all(met.missing_in(roster.ids()))
            case "admit":
                self.admit(by, rng.choice(identities()[1:]), rng.choice([roster.next_order(), 1]))
            case "configure":
                self.sign(by, roster.next_config(str(len(self.made)), self.listed(), len(self.made)))
            case "forge":
                everywhere = [one.id for home in self.rosters.values() for one in home.configuration().chain]
                parent = rng.choice([b"", bytes(16), *everywhere])
                self.sign(by, Config(parent, str(len(self.made)), 0, self.listed(), rng.choice([0, 3])))
            case "evict":
                if rng.random() < 0.6:
                    target = rng.choice(identities()).pod_id
                    keeps = tuple({PodId(rng.choice(identities()).pod_id) for _ in range(2)})
                    self.sign(by, Revoke(target, keeps, roster.config_id(), 0))
            case "replay":
                roster.add_all([rng.choice(self.made)])

    def exchange(self) -> None:
        """Have everybody tell everybody, as pods that are linked do, until nobody learns anything."""
        progress = True
        while progress:
            progress = False
            for one in self.rosters.values():
                for other in self.rosters.values():
                    progress |= bool(one.add_all(list(other.missing_in(one.ids()))))


def state(roster: Roster) -> object:
    known = roster.configuration()
    return (
        roster.digest(),
        [version.id for version in known.chain],
        {version.id for version in known.lost},
        roster.pods(),
        {pod for pod in roster.pods() if roster.is_admin(pod)},
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_all_sides_agree_once_they_have_met(seed: int) -> None:
    sides = Sides(Random(seed))
    for _ in range(STEPS):
        sides.step()
    sides.exchange()
    first, *others = [state(roster) for roster in sides.rosters.values()]
    assert all(other == first for other in others)
    everything = [*sides.made, *sides.made]
    sides.rng.shuffle(everything)
    late = Roster()
    for record in (*everything, *everything):
        late.add_all([record])
    late.add_all(everything)
    assert set(late.records()) >= set(sides.rosters[identities()[0].pod_id].records())
    replayed = Roster()
    assert len(replayed.add_all(late.records())) == len(late), "the order in which a roster is kept can be replayed"
    assert state(replayed) == state(late)
