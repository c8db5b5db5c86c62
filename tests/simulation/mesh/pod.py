"""One simulated pod: the pure cores of the mesh with a log of entries, and what a machine does to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

import msgpack

from base.ids import PodId, WriterId, hash_bytes
from mesh.antientropy import AntiEntropy, Fetch, Plan, page_body, page_entries, parse_since, since_body
from mesh.api import Entry
from mesh.broadcast import Broadcast
from mesh.membership import TICK_S, Membership
from mesh.pushes import MAX_PUSH_BYTES, pushed_entries
from mesh.send import Send
from mesh.view import View
from mesh.wire import Tag

if TYPE_CHECKING:
    from tests.simulation.mesh.simulator import World

REST_S = 5.0
"""A tick comes after so long at the latest, though nothing is due, as in a real pod."""
MAX_MESSAGE_BYTES = 64 * 1024 + 256 * 1024
"""No message of a core may be longer."""

pack: Callable[[object], bytes] = msgpack.Packer().pack
"""One packer for all: making one takes as long as packing what pods say."""


def signed(writer: WriterId, sequence: int, payload: bytes) -> bytes:
    """Return the blob of an entry: what a signature is to the real log, a hash is here."""
    return hash_bytes(writer + sequence.to_bytes(8, "big") + payload)[:8] + payload


class SimLog:
    """A replicated log as the metadata engine keeps it: gap-free per writer, durable."""

    def __init__(self) -> None:
        self.blobs: dict[WriterId, list[bytes]] = {}
        self._vector: dict[WriterId, int] = {}

    def vector(self) -> Mapping[WriterId, int]:
        return self._vector

    def append(self, writer: WriterId, payload: bytes) -> Entry:
        blobs = self.blobs.setdefault(writer, [])
        blobs.append(signed(writer, len(blobs) + 1, payload))
        self._vector[writer] = len(blobs)
        return Entry(writer, len(blobs), blobs[-1])

    def read(self, writer: WriterId, after: int, limit_bytes: int) -> list[Entry]:
        entries: list[Entry] = []
        for index, blob in enumerate(self.blobs.get(writer, [])[after:], after + 1):
            entries.append(Entry(writer, index, blob))
            limit_bytes -= len(blob)
            if limit_bytes <= 0:
                break
        return entries

    def receive(self, entries: Sequence[Entry]) -> list[Entry]:
        applied = []
        for entry in entries:
            if entry.blob != signed(entry.writer, entry.sequence, entry.blob[8:]):
                continue
            blobs = self.blobs.setdefault(entry.writer, [])
            if entry.sequence == len(blobs) + 1:
                blobs.append(entry.blob)
                self._vector[entry.writer] = len(blobs)
                applied.append(entry)
            if not blobs:
                del self.blobs[entry.writer]
        return applied


class SimPod:
    def __init__(self, world: World, pod: PodId, number: int) -> None:
        self.world = world
        self.pod = pod
        self.writer = WriterId(number.to_bytes(8, "big"))
        self.log = SimLog()
        self.starts = 0
        self.ticks = 0
        self.running = False
        self.bytes_sent = 0
        self.messages = 0
        self.log_bytes = 0
        self.pushes = 0
        self.pages = 0
        self.gossip_bytes = 0
        self.suspended: list[tuple[Callable[..., None], tuple[Any, ...]]] | None = None
        self.alarm: float | None = None
        self.slow_s = 0.0
        self.start()

    def start(self, clock_offset: int = 0) -> None:
        world = self.world
        self.starts += 1
        self.running = True
        self.alarm = None
        rng = Random(world.rng.random())
        incarnation = int(world.now * 1000) + 1_000_000 + clock_offset
        address = f"10.0.0.{self.writer[-1]}:7000"
        self.membership = Membership(self.pod, world.settings, rng, incarnation, address)
        self.broadcast = Broadcast(self.pod, rng)
        self.anti_entropy = AntiEntropy(self.pod, rng)
        self.view = View(self.pod, rng)
        self.linked: dict[PodId, SimPod] = {}
        if world.known is not None and self.starts == 1:
            self.membership.recall(*world.known)
        self.tell_members()
        delay_s = rng.random() * TICK_S
        self.tick_at = self.ticked = world.now + delay_s
        world.after(delay_s, self.tick, self.starts)

    def tell_members(self) -> None:
        self.membership.set_members(self.world.members, self.world.now)
        self.broadcast.set_members(self.world.members)
        self.view.set_members(self.world.sorted)
        self.membership.changes()  # or each pod would go on holding the names of all that it was told of

    def tick(self, start: int) -> None:
        if not self.running or self.starts != start:
            return
        if self.suspended is not None:
            self.suspended.append((self.tick, (start,)))
            return
        now = self.world.now
        planned, self.tick_at = self.tick_at, now + TICK_S
        if now - self.ticked >= REST_S or self.membership.due() <= now:
            self.ticked = now
            self.send(self.membership.tick(now, planned))
            self.membership.changes()  # as a real pod does all the time
        self.ticks += 1
        if self.ticks % 2 == 0 and self.world.wanted is None and (self.view.full or self.view.due() <= now):
            self.keep_view(now)
        if self.anti_entropy.due() <= now:
            self.plan(self.anti_entropy.tick(self.log.vector(), now))
        self.world.after(TICK_S, self.tick, start)

    def hurry(self) -> None:
        """Call the broadcast when it is due."""
        due = self.broadcast.due()
        if due is None or (self.alarm is not None and self.alarm <= due):
            return
        self.alarm = max(due, self.world.now + 0.001)
        self.world.after(self.alarm - self.world.now, self.ring, self.starts, self.alarm)

    def ring(self, start: int, at: float) -> None:
        if not self.running or self.starts != start or self.alarm != at:
            return
        if self.suspended is not None:
            self.suspended.append((self.ring, (start, at)))
            return
        self.alarm = None
        self.send(self.broadcast.tick(self.log.vector(), self.world.now))
        self.fill_gaps()
        self.hurry()

    def keep_view(self, now: float) -> None:
        """Dial whom the view wants, and drop what it can spare."""
        census, view = self.membership.census, self.view
        for pod in view.tick(now, census.is_up, census.missing, census.degree).drop:
            if not self.world.blocked(self.pod, pod):
                self.world.unlink(self.pod, pod, spared=True)
        for pod in self.world.order if view.full else list(view.chosen()):
            if pod not in self.linked and pod != self.pod:
                self.world.dial(self.pod, pod)

    def link_up(self, pod: PodId) -> None:
        now = self.world.now
        self.linked[pod] = self.world.pods[pod]
        self.view.link_up(pod, now)
        self.send(self.membership.link_up(pod, now))
        self.broadcast.link_up(pod, now)
        self.plan(self.anti_entropy.link_up(pod, self.log.vector(), now))

    def link_down(self, pod: PodId, *, spared: bool = False) -> None:
        now = self.world.now
        if pod in self.linked:
            del self.linked[pod]
            self.view.link_down(pod)
            self.send(self.membership.link_down(pod, now, spared=spared))
            self.broadcast.link_down(pod, now)
            self.plan(self.anti_entropy.link_down(pod, self.log.vector(), now))

    def write(self, size: int = 200, times: int = 1) -> None:
        entries = [self.log.append(self.writer, self.world.rng.randbytes(size)) for _ in range(times)]
        self.send(self.broadcast.publish(entries, self.world.now))
        self.hurry()

    def send(self, sends: Iterable[Send]) -> None:
        world = self.world
        for pod, tag, message in sends:
            there = self.linked.get(pod)
            if there is None:
                continue
            packed = pack(message)
            size = len(packed)
            assert size < MAX_MESSAGE_BYTES, f"seed {world.seed}: {tag.name} of {size} bytes"
            self.bytes_sent += size
            self.messages += 1
            if tag is Tag.GOSSIP:
                self.gossip_bytes += size
            else:
                self.log_bytes += size
                if tag is Tag.LOG_PUSH:
                    self.pushes += len(pushed_entries(message))
            if world.network.mutate:
                packed = world.mutated(packed)
            world.deliver(self, there, SimPod.arrive, there, self.pod, there.starts, tag, packed)

    def arrive(self, sender: PodId, start: int, tag: Tag, packed: bytes) -> None:
        """Take a message that was sent to this pod while it was at its ``start``."""
        if self.running and self.starts == start and sender in self.linked:
            if self.suspended is None:
                self.receive(sender, tag, packed)
            else:
                self.suspended.append((self.arrive, (sender, start, tag, packed)))

    def receive(self, sender: PodId, tag: Tag, packed: bytes) -> None:
        now = self.world.now
        try:
            message = msgpack.unpackb(packed)
        except Exception:
            return  # the frame decoder's business
        if tag is Tag.GOSSIP:
            self.send(self.membership.receive(sender, message, now))
        elif tag is Tag.LOG_PUSH:
            entries = pushed_entries(message)
            applied = self.log.receive(entries) if entries else []
            self.send(self.broadcast.received(sender, message, applied, self.log.vector(), now))
            for wanted in self.broadcast.wanted():
                entries = self.log.read(wanted.writer, wanted.after, MAX_PUSH_BYTES)
                self.send(self.broadcast.resend(wanted, entries))
            self.fill_gaps()
            self.hurry()
        else:
            self.plan(self.anti_entropy.on_vector(sender, message, self.log.vector(), now))

    def fill_gaps(self) -> None:
        for gap in self.broadcast.gaps():
            self.plan(self.anti_entropy.on_gap(gap, self.log.vector(), self.world.now))

    def plan(self, plan: Plan) -> None:
        self.send(plan.sends)
        for fetch in plan.fetches:
            self.fetch(fetch)

    def fetch(self, fetch: Fetch) -> None:
        """Request and answer over the same network; a lost one ends with the time limit."""
        world, start = self.world, self.starts
        done = False
        server = world.pods[fetch.pod]

        def end(answer: object) -> None:
            nonlocal done
            if done or not self.running or self.starts != start:
                return
            done = True
            if answer is None:
                self.plan(self.anti_entropy.on_failure(fetch, self.log.vector(), world.now))
                return
            entries = page_entries(answer, fetch)
            applied = self.log.receive(entries)
            self.send(self.broadcast.caught_up(fetch.pod, applied, world.now))
            self.hurry()
            self.plan(self.anti_entropy.on_page(fetch, entries, self.log.vector(), world.now))

        def serve() -> None:
            asked = parse_since(since_body(fetch))
            assert asked is not None
            if server.running:
                body = page_body(server.log.read(asked.writer, asked.after, asked.limit_bytes))
                server.pages += 1
                server.bytes_sent += len(msgpack.packb(body))
                world.deliver(server, self, lambda: end(body))

        world.deliver(self, server, serve)
        world.after(fetch.timeout_s, lambda: end(None))
