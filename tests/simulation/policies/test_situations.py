"""Random histories of a cluster under virtual time: what each pod judges, and what it does about it.

A small model of the world says what is true: who runs, who is linked to whom, who keeps what. Each pod judges with the
real cores from what it can see. Nothing here is written twice: the model knows no grades.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import pytest

from base.ids import ContentId, PodId, hash_bytes
from policies.reactions import Cause, Effect, Reacting, react
from policies.schema import Continuity
from policies.situation import (
    CALM_S,
    CUT_OFF_S,
    MAX_CALM_S,
    NAME_BYTES,
    NOTHING,
    REJOIN_S,
    RESTLESS_S,
    RISE_S,
    Acceptance,
    Contact,
    Grade,
    Held,
    Pods,
    Standing,
    Steady,
    Survey,
    Verdict,
    is_connected,
)

STEP_S = 0.5
ABSENT_AFTER_S = 4.0
CONTINUITY = Continuity(favourable="throttle", degraded="fewer-copies", critical="freeze")
SEEDS = range(40)


@dataclass
class File:
    """One content and who keeps it."""

    content: ContentId
    size: int
    copies: int
    kept: set[PodId]


@dataclass
class Model:
    """One pod's mind."""

    pod: PodId
    contact: Contact = field(default_factory=Contact)
    steady: Steady = field(default_factory=Steady)
    unseen: dict[PodId, float] = field(default_factory=dict)
    returned: set[PodId] = field(default_factory=set)
    doing: tuple[Reacting, ...] = ()
    verdict: Verdict | None = None
    connected: bool = True


class World:
    """What is true."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        number = self.random.randint(2, 6)
        self.order = [PodId(hash_bytes(b"%d %d" % (seed, index)).hex()[:32]) for index in range(number)]
        self.running = set(self.order)
        self.announced: set[PodId] = set()
        self.side: dict[PodId, int] = dict.fromkeys(self.order, 0)
        self.room = {pod: self.random.choice((3_000, 20_000, 10**9)) for pod in self.order}
        self.files: list[File] = []
        self.accepted = NOTHING
        self.names = itertools.count()
        self.models = {pod: Model(pod) for pod in self.order}

    # -- what happens

    def write(self) -> None:
        author = self.random.choice(sorted(self.running) or [self.order[0]])
        if author not in self.running or Effect.FREEZE in {one.effect for one in self.models[author].doing}:
            return
        content = ContentId(hash_bytes(b"%d" % next(self.names)))
        self.files.append(File(content, 1000, self.random.choice((1, 2, 2, 3)), {author}))

    def repair(self) -> None:
        """Make copies where there is room, as the placement would."""
        for one in self.files:
            reachable = {pod for pod in one.kept if pod in self.running}
            for pod in sorted(self.running - one.kept):
                linked = any(self.side[pod] == self.side[other] for other in reachable)
                short = len(one.kept & (self.running | self.announced)) < min(one.copies, len(self.order))
                if linked and short and self.room[pod] >= one.size:
                    one.kept.add(pod)
                    self.room[pod] -= one.size

    def happen(self) -> None:
        pod = self.random.choice(self.order)
        match self.random.choice(
            ("kill", "return", "return", "down", "cut", "heal", "heal", "write", "write", "accept")
        ):
            case "kill" if pod in self.running:
                self.running.discard(pod)
            case "return":
                self.bring_back(pod)
            case "down" if pod in self.running:
                self.running.discard(pod)
                self.announced.add(pod)
            case "cut":
                self.side[pod] = self.random.randint(0, 1)
            case "heal":
                self.side = dict.fromkeys(self.order, 0)
            case "write":
                self.write()
            case "accept":
                self.accept(pod)
            case _:
                pass

    def bring_back(self, pod: PodId) -> None:
        if pod not in self.running:
            self.running.add(pod)
            self.announced.discard(pod)
            self.models[pod] = Model(pod)

    def accept(self, pod: PodId) -> None:
        verdict = self.models[pod].verdict
        if pod in self.running and verdict is not None and self.models[pod].connected:
            names = frozenset(content[:NAME_BYTES] for content in verdict.orphans)
            self.accepted = Acceptance(bool(verdict.tally.stuck), verdict.lost, names)
            for model in self.models.values():
                model.returned.clear()
                model.steady.reset(min(model.steady.grade, Grade.WELL))

    def solve(self) -> None:
        for pod in self.order:
            self.bring_back(pod)
            self.room[pod] = 10**9
        self.side = dict.fromkeys(self.order, 0)

    # -- what a pod sees

    def sees(self, me: PodId) -> set[PodId]:
        return {pod for pod in self.running if self.side[pod] == self.side[me]}

    def pods(self, me: PodId) -> Pods:
        model, seen = self.models[me], self.sees(me)
        for pod in self.order:
            if pod in seen:
                model.unseen.pop(pod, None)
            else:
                model.unseen.setdefault(pod, self.now)
        lost = {
            pod
            for pod, since in model.unseen.items()
            if pod not in self.announced and self.now - since >= ABSENT_AFTER_S
        }
        planned = self.announced - seen
        present = set(self.order) - lost - planned
        return Pods(frozenset(present), frozenset(planned), frozenset(lost), {pod: self.room[pod] for pod in present})

    def survey(self, pods: Pods, accepted: Acceptance = NOTHING) -> Verdict:
        survey = Survey(pods, accepted)
        for one in self.files:
            survey.add(Held(one.content, 1, one.size, one.copies, frozenset(one.kept), frozenset()))
        return survey.verdict(len(self.files))

    def look(self, me: PodId) -> None:
        model = self.models[me]
        counted = [pod for pod in self.order if pod not in self.announced]
        pods = self.pods(me)
        model.connected = is_connected(me, counted, self.sees(me))
        cut = model.contact.look(model.connected, ABSENT_AFTER_S, self.now)
        model.returned |= pods.present
        if cut:
            model.steady, model.verdict = Steady(), None
        elif model.connected:
            model.verdict = self.survey(pods, self.accepted.without(model.returned))
            model.steady.look(model.verdict.open, self.now)
        model.doing = react(
            grade=model.steady.grade,
            reason="",
            continuity=CONTINUITY,
            cut_off=cut,
            when_cut_off="freeze",
        )

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += STEP_S
            self.repair()
            for pod in sorted(self.running):
                self.look(pod)


def causes(model: Model, cause: Cause) -> set[Effect]:
    return {one.effect for one in model.doing if one.cause is cause}


@pytest.mark.parametrize("seed", SEEDS)
def test_random_histories(seed: int) -> None:
    world = World(seed)
    for _ in range(6):
        world.write()
    world.pass_time(10)
    for _ in range(60):
        world.happen()
        world.pass_time(world.random.choice((0.5, 1, 3, 30)))
        judging = {world.side[pod] for pod in world.running if world.models[pod].connected and len(world.order) > 2}
        assert len(judging) <= 1, "two sides both think that they go on"
        for pod in world.running:
            model = world.models[pod]
            if model.contact.is_cut:
                assert causes(model, Cause.SITUATION) == set(), "a cut off pod obeys [disconnected] only"
    # never misses a loss
    world.pass_time(ABSENT_AFTER_S + RISE_S + CUT_OFF_S + REJOIN_S + 4 * STEP_S)
    for pod in world.running:
        model = world.models[pod]
        if model.contact.is_cut or model.verdict is None:
            continue
        lost = [one for one in world.files if not one.kept & (world.running | world.announced)]
        unknown = [
            one for one in lost if len(one.kept) >= one.copies and not one.kept <= world.accepted.lost - model.returned
        ]
        if unknown and world.sees(pod) == world.running:
            assert causes(model, Cause.SITUATION) >= {Effect.FREEZE}, "a loss was missed"
        assert model.steady.grade >= model.verdict.open, "what is seen for so long counts"
    # never stays after it is solved
    world.solve()
    world.pass_time(ABSENT_AFTER_S + REJOIN_S + MAX_CALM_S + 10)
    for pod in world.order:
        assert world.models[pod].doing == (), "nothing is left to react to"


@pytest.mark.parametrize("seed", SEEDS)
def test_reactions_never_flap(seed: int) -> None:
    """Whatever comes and goes how quickly, a reaction begins only so often."""
    chance, steady, now = random.Random(seed), Steady(), 0.0
    rises: list[float] = []
    while now < 4 * RESTLESS_S:
        grade = chance.choice(list(Grade))
        for _ in range(chance.randint(1, 20)):
            before = steady.grade
            if steady.look(grade, now) > before is Grade.WELL:
                rises.append(now)
            now += chance.choice((0.2, 0.5, 1.0))
    for first, second in itertools.pairwise(rises):
        assert second - first >= CALM_S + RISE_S
    for first in rises:
        within = sum(first <= other < first + RESTLESS_S for other in rises)
        assert within <= 15


@pytest.mark.parametrize("seed", range(50))
def test_the_plan_is_what_comes_true(seed: int) -> None:
    world = World(seed)
    for _ in range(20):
        world.write()
    world.pass_time(5)
    me = world.random.choice(world.order)
    gone = frozenset(world.random.sample([pod for pod in world.order if pod != me], k=len(world.order) // 2))
    now = world.pods(me)
    if world.random.random() < 0.5:
        for pod in world.order:
            world.room[pod] = 10
        now = world.pods(me)
    planned = world.survey(now.without(gone))
    left = [pod for pod in world.order if pod not in gone]
    reacts = is_connected(me, world.order, left)
    room = dict(world.room)
    world.running -= gone
    model = world.models[me]
    for _ in range(int((ABSENT_AFTER_S + RISE_S + CUT_OFF_S) / STEP_S) + 2):  # before anything is repaired
        world.now += STEP_S
        world.look(me)
    assert world.room == room
    came = world.survey(world.pods(me))
    assert came == planned
    unreadable = [one for one in world.files if one.kept <= gone]
    wanted = [min(one.copies, len(world.order)) for one in world.files]
    short = [one for one, copies in zip(world.files, wanted, strict=True) if 0 < len(one.kept - gone) < copies]
    assert (came.tally.missing + came.tally.pending, came.tally.short) == (len(unreadable), len(short)), "what is true"
    assert model.contact.is_cut is not reacts
    if reacts:
        assert model.steady.grade is planned.grade
        named = {Grade.WELL: set(), Grade.FAVOURABLE: {Effect.THROTTLE}, Grade.DEGRADED: {Effect.FEWER_COPIES}}
        assert causes(model, Cause.SITUATION) == named.get(planned.grade, {Effect.FREEZE})


def test_a_laptop_on_a_train_and_two_pods_of_which_one_dies_freeze_nobody() -> None:
    for number, away in ((4, 3), (4, 0), (2, 1), (2, 0)):
        world = World(1)
        world.order = (
            world.order[:number] if len(world.order) >= number else [PodId(f"{index}" * 32) for index in range(number)]
        )
        world.running, world.announced = set(world.order), set()
        world.side = dict.fromkeys(world.order, 0)
        world.room = dict.fromkeys(world.order, 10**9)
        world.models = {pod: Model(pod) for pod in world.order}
        world.files = [
            File(
                ContentId(hash_bytes(b"%d" % index)),
                10,
                2,
                {world.order[index % number], world.order[(index + 1) % number]},
            )
            for index in range(12)
        ]
        world.pass_time(5)
        world.side[world.order[away]] = 1
        world.pass_time(120)
        for pod in world.order:
            effects = causes(world.models[pod], Cause.SITUATION)
            assert Effect.FREEZE not in effects
            assert standing_of_all(world, pod) <= {Standing.SAFE, Standing.SHORT} or world.models[pod].contact.is_cut


def standing_of_all(world: World, me: PodId) -> set[Standing]:
    survey = Survey(world.pods(me))
    return {
        survey.add(Held(one.content, 1, one.size, one.copies, frozenset(one.kept), frozenset())) for one in world.files
    }
