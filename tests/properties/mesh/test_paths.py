"""Whom no path leads to, kept up to date change by change, is what a look at everybody finds."""

from __future__ import annotations

from random import Random

import pytest

from base.ids import PodId
from mesh import reachability
from mesh.census import Census
from mesh.gossip_messages import Accusation, Flag, Record
from mesh.member import MembershipSettings
from mesh.reachability import unreachable

PODS = [PodId(f"{number:032x}") for number in range(48)]
ME, OTHERS = PODS[0], PODS[1:]


class Rewiring:
    """A census whose members change their links, die and come back, by seed."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.degree = self.rng.choice([2, 3, 5])
        self.census = Census(ME, MembershipSettings())
        self.census.set_members(frozenset(PODS), 0.0)
        self.links = dict.fromkeys(self.rng.sample(OTHERS, 4))
        self.now = 0.0
        for pod in OTHERS:
            self.say(pod)

    def say(self, pod: PodId, *, risen: int = 0, flags: Flag = Flag.NONE) -> None:
        """Have a pod name its links; about as often as not they name it, too."""
        incarnation, version = self.census.stamp(pod)
        links = tuple(sorted({PodId(one) for one in self.rng.sample(PODS, self.degree)} - {pod}))
        self.census.take(Record(pod, max(0, incarnation) + risen, version + 1, flags, "", b"\x80", links), self.now)
        for other in links:
            old = self.census.records.get(other)
            if old is not None and pod not in old.links and self.rng.random() < 0.7:
                new = old._replace(version=old.version + 1, links=(*old.links, pod)[-8:])
                self.census.take(new, self.now)

    def change(self) -> None:
        self.now += self.rng.choice([0.0, 0.1, 1.0])
        pod = self.rng.choice(OTHERS)
        match self.rng.randrange(9):
            case 0:
                self.census.accuse(pod, self.now)
            case 1:
                incarnation = max(0, self.census.stamp(pod)[0])
                self.census.hear_accusation(Accusation(pod, incarnation, self.rng.choice(OTHERS), 0.5), self.now)
            case 2:
                self.say(pod, flags=self.rng.choice([Flag.DOWN, Flag.LEFT, Flag.NONE]))
            case 3 if self.rng.random() < 0.2:
                self.say(pod, flags=Flag.LINKED_TO_ALL)
            case 4 if pod in self.links:
                del self.links[pod]
                self.census.paths.doubt((pod,))
            case 4:
                self.links[pod] = None
                self.census.paths.doubt(())
            case 5:
                self.census.deduce(self.links, self.now)
            case 6:
                self.census.clear_deduced(pod)
            case 7 | 8:
                self.say(pod, risen=1)

    def wanted(self) -> set[PodId]:
        census = self.census
        to_all = {pod for pod, record in census.records.items() if record.flags & Flag.LINKED_TO_ALL}
        lost = {pod for pod in PODS if census.gone(pod) or census.accused(pod)}
        return unreachable(self.links, census.records, to_all, lost)


@pytest.mark.parametrize("seed", range(150))
def test_paths_kept_up_to_date_are_those_of_a_look_at_everybody(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachability, "FEW_PODS", 0)
    monkeypatch.setattr(reachability, "NEAR_PODS", 6)
    monkeypatch.setattr(reachability, "MAX_BACK", 12)
    story = Rewiring(seed)
    for _ in range(120):
        for _ in range(story.rng.randint(1, 4)):
            story.change()
        assert story.census.unreachable(story.links) == story.wanted()


def test_one_death_in_a_large_cluster_needs_no_look_at_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = Random(1)
    pods = [PodId(f"{number:032x}") for number in range(4000)]
    near: dict[PodId, set[PodId]] = {pod: set() for pod in pods}
    for _ in range(4):
        ring = rng.sample(pods, len(pods))
        for one, other in zip(ring, [*ring[1:], ring[0]], strict=True):
            near[one].add(other)
            near[other].add(one)
    census = Census(pods[0], MembershipSettings())
    census.set_members(frozenset(pods), 0.0)
    for pod in pods[1:]:
        census.take(Record(pod, 1, 1, Flag.NONE, "", b"\x80", tuple(sorted(near[pod]))), 0.0)
    links = near[pods[0]]
    assert census.unreachable(links) == set()

    def refuse(*_: object) -> set[PodId]:
        raise AssertionError("everybody was looked at")

    monkeypatch.setattr(reachability, "unreachable", refuse)
    for pod in rng.sample(pods[1:], 20):
        census.accuse(pod, 1.0)
        assert census.unreachable(links - {pod}) == set()
