"""A town of pods: who reaches whom, who was evicted, whose records were adopted; mail and housekeeping among them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

import anyio

from base.ids import WriterId
from crdt_meta.chronicle import forgotten
from crdt_meta.node import Node
from crdt_meta.peers import Retired
from crdt_meta.records import Key
from crdt_meta.segments import unpacked
from tests.unit.crdt_meta.pods import Mesh, Pod, content

DAY_S = 86_400.0
FORGET_AFTER_S = 180 * DAY_S
TURN_S = 400.0
"""Between two turns of the housekeeping: longer than it rests."""
ROUNDS = 12


class Neighbours:
    """Implements `crdt_meta.peers.Peers` for one pod; adoptions are told before any mail, as the roster is."""

    forget_after_s = FORGET_AFTER_S

    def __init__(self, town: Town, name: str) -> None:
        self._town = town
        self._name = name
        self.adoptions: dict[WriterId, set[Retired]] = defaultdict(set)

    def _others(self) -> dict[WriterId, str]:
        names = self._town.mesh.names.items()
        return {writer: name for writer, name in names if writer not in self.adoptions and name != self._name}

    def counted(self) -> Mapping[WriterId, float | None]:
        return {
            writer: self._town.parted_s(self._name, name)
            for writer, name in self._others().items()
            if name not in self._town.evicted
        }

    def orphans(self, forgotten: Collection[WriterId] = ()) -> Collection[WriterId]:
        town, me = self._town, self._town.pods[self._name]
        given_up = {
            writer for writer, name in town.mesh.names.items() if name == self._name and writer != me.log.writer
        }
        present = [name for name in town.pods if name not in town.evicted and town.parted_s(self._name, name) is None]
        if self._name == min(present):
            given_up |= {writer for writer, name in self._others().items() if name in town.evicted} | set(forgotten)
        return given_up - self.adoptions.keys()

    def retired(self) -> Mapping[WriterId, Collection[Retired]]:
        return self.adoptions

    async def retire(self, writer: WriterId, retired: Retired) -> None:
        self._town.pods[self._name].tell()
        self.adoptions[writer].add(retired)

    def is_caught_up(self) -> bool:
        return True

    def is_short_of_room(self) -> bool:
        return False

    def clock_agrees(self) -> bool:
        return True


class Town:
    """See the module. Pods reach each other unless they were parted."""

    def __init__(self, mesh: Mesh, *pods: Pod) -> None:
        self.mesh = mesh
        self.pods: dict[str, Pod] = {}
        self.neighbours: dict[str, Neighbours] = {}
        self.evicted: set[str] = set()
        self.asleep: set[str] = set()
        self._parted: dict[frozenset[str], float] = {}
        for pod in pods:
            self.enter(pod)

    def enter(self, pod: Pod) -> Pod:
        """Take a pod in, or what it is now that it was opened again."""
        if pod.name not in self.pods:
            for name in self.evicted | self.asleep:
                self._parted[frozenset((pod.name, name))] = self.mesh.now_s
        self.pods[pod.name] = pod
        neighbours = self.neighbours.setdefault(pod.name, Neighbours(self, pod.name))
        pod.log.incoming.is_retired = lambda writer: writer in neighbours.adoptions
        return pod

    # -- who reaches whom ---------------------------------------------------------------------------------------------

    def parted_s(self, one: str, other: str) -> float | None:
        """Return since when two pods can't reach each other; None: they can."""
        return self._parted.get(frozenset((one, other)))

    def part(self, *names: str) -> None:
        """Cut these off from the others; they reach each other."""
        for one in names:
            for other in self.pods.keys() - set(names):
                self._parted.setdefault(frozenset((one, other)), self.mesh.now_s)

    def sleep(self, name: str) -> None:
        """Have a pod do nothing, out of everybody's reach."""
        self.asleep.add(name)
        self.part(name)

    def rejoin(self) -> None:
        """Have all reach each other again, but the evicted."""
        self._parted.clear()
        self.asleep.clear()
        self.part(*self.evicted)

    def evict(self, name: str) -> None:
        """Turn a pod out; nobody hears of it any more."""
        self.evicted.add(name)
        self.part(name)

    # -- what they tell each other ------------------------------------------------------------------------------------

    def reborn(self, pod: Pod, after: int, owed: int | None, *, set_back: bool = False) -> None:
        """Have a pod go on under a new writer id."""
        pod.writer = pod.meta.reborn(after, owed, set_back=set_back)
        self.mesh.names[pod.writer], self.mesh.keys[pod.writer] = pod.name, pod.key
        pod.tell()
        for writer, copies in pod.meta.given_up().items():
            self.neighbours[pod.name].adoptions[writer].add(copies)

    def learn(self, to: str, source: str) -> bool:
        """Tell a pod of adoptions; if its own writer was adopted, it goes on under a new one at once."""
        mine, theirs, pod = self.neighbours[to].adoptions, self.neighbours[source].adoptions, self.pods[to]
        before = sum(map(len, mine.values()))
        for writer, adoptions in theirs.items():
            mine[writer] |= adoptions
        if (known := forgotten(pod.meta, mine, lambda by: self.mesh.names[by] == to)) is not None:
            self.reborn(pod, known.upto, None, set_back=known.set_back)
        return sum(map(len, mine.values())) > before

    def tell(self, to: str, source: str) -> bool:
        """Tell a pod everything that another one has; return whether there was news."""
        news = self.learn(to, source)
        self.pods[source].tell()
        hearer, teller = self.pods[to], self.pods[source]
        for writer in teller.log.vector():
            while entries := teller.log.read(writer, hearer.log.vector().get(writer, 0), 1 << 20):
                if not hearer.hear(entries):
                    break
                news = True
        return news

    def exchange(self, *, compare: bool = True) -> None:
        """All tell all whom they reach, until nobody has news; then those show the same."""
        pairs = [(one, other) for one in self.pods for other in self.pods if one != other]
        for _ in range(ROUNDS):
            if not [1 for one, other in pairs if self.parted_s(one, other) is None and self.tell(one, other)]:
                break
        else:
            raise AssertionError("they never come to an end")
        for one, other in pairs:
            if compare and self.parted_s(one, other) is None:
                same(self.pods[one], self.pods[other])

    # -- housekeeping -------------------------------------------------------------------------------------------------

    def turn(self, pod: Pod) -> None:
        anyio.run(pod.meta.tidying.turn, self.neighbours[pod.name], self.mesh.now_s, backend="trio")

    def tidy(self, rounds: int = 24) -> None:
        """Let time pass, in which all who weren't evicted do their housekeeping and talk to each other."""
        for _ in range(rounds):
            self.mesh.now_s += TURN_S
            for name, pod in self.pods.items():
                if name not in self.evicted | self.asleep:
                    self.turn(pod)
            self.exchange(compare=False)
        self.exchange()

    def wait_until_forgotten(self) -> None:
        """Let more time pass than a pod may be away."""
        self.mesh.now_s += FORGET_AFTER_S + DAY_S

    def compact(self) -> None:
        """Have everybody write all segments anew."""
        for pod in self.pods.values():
            compact(pod)


def shown(pod: Pod) -> list[tuple[bytes, Node]]:
    """Return everything that all pods show alike: all but the times of directories."""
    return sorted(
        ((path, node._replace(mtime_ns=0, ctime_ns=0) if node.is_directory else node) for path, node in pod.shape()),
        key=lambda one: one[0],
    )


def compact(pod: Pod) -> None:
    """Write all segments of a pod anew."""
    for segment in range((pod.log.table.last_segment(pod.log.writer) or 0) + 1):
        pod.log.compact(segment)
    pod.tell()


def same(one: Pod, other: Pod) -> None:
    """Two pods show the same, and nothing that came from the other was refused."""
    assert shown(one) == shown(other)
    assert list(one.tree.trash()) == list(other.tree.trash())
    assert not one.log.incoming._complaints


def sound(pod: Pod) -> None:
    """What a pod shows is what a view made anew shows, and what it shows when it is opened again."""
    shape, trash = shown(pod), list(pod.tree.trash())
    pod.meta.view.rebuild()
    pod.tree._nodes.clear()
    assert shown(pod) == shape
    assert list(pod.tree.trash()) == trash


def records_of(pod: Pod, *nodes: bytes) -> list[tuple[str, str]]:
    """Return (node, kind) of what records say of some nodes."""
    rows = pod.meta.store.query("SELECT node, kind FROM record")
    return sorted((bytes(node).hex(), kind) for node, kind in rows if bytes(node) in nodes)


def mentions(pod: Pod, *ids: bytes) -> list[str]:
    """Return where any of some ids is found in a pod's file: tables of the view, records, segments of all logs."""
    found = []
    tables = [row[0] for row in pod.meta.store.query("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        for row in pod.meta.store.query(f"SELECT * FROM {table}"):
            values = [value for value in row if isinstance(value, bytes)]
            found += [table for one in ids for value in values if table != "part" and one in value]
    table = pod.log.table
    for writer in table.received:
        for segment in table.changed_since(writer, 0):
            for part in table.parts(writer, segment):
                update = unpacked(part)
                found += ["part" for one in ids if one in update or Key("i", one, 0).text()[1:-1].encode() in update]
    return found


def stored_bytes(pod: Pod) -> int:
    """Return how many bytes log parts and records have."""
    (log,) = pod.meta.store.query("SELECT sum(length(data)) FROM part")
    (records,) = pod.meta.store.query("SELECT sum(length(value)) FROM record")
    return int(log[0] or 0) + int(records[0] or 0)


def everybody(town: Town) -> list[Pod]:
    return [pod for name, pod in town.pods.items() if name not in town.evicted]


def all_show(town: Town, files: dict[str, str]) -> None:
    """All who weren't evicted show these files, and views made anew do."""
    for pod in everybody(town):
        assert pod.files() == {path: content(text) for path, text in files.items()}, pod.name
        sound(pod)


def empty_trash(pod: Pod) -> int:
    return pod.tree.purge(list(pod.tree.trash()))
