"""How logs that differ become equal: exchange of vectors, then pages "since N". A pure planner; the shell fetches.

Theory of operation. When a link comes up, and about every ten seconds with a random linked pod, vectors are exchanged:
``writer -> last sequence``, in pages of a few KiB, a large one only after its sum has turned out to differ. What the
other has more of becomes a *mark*: (pod, writer, number). As long as a mark is ahead of the own vector, one fetch at a
time per writer is planned, from the pod that has most of it among the least busy ones that have not been slow or
failing lately; after each page from where the log then stands. Gaps that broadcast notices are marks, too. For every
`Fetch` in a plan the shell, in a task of its own, does

    answer = await mesh.call(fetch.pod, Tag.LOG_SINCE, since_body(fetch), timeout_s=fetch.timeout_s)
    entries = page_entries(answer, fetch)
    applied = await log.receive(entries, fetch.pod)
    broadcast.caught_up(fetch.pod, applied, now)
    plan = anti_entropy.on_page(fetch, entries, log.vector(), now)

and on any `WormholeError` instead ``plan = anti_entropy.on_failure(fetch, log.vector(), now)``. The handler of
`Tag.LOG_SINCE` is ``asked = parse_since(body)``, ``page_body(log.read(asked.writer, asked.after, asked.limit_bytes))``.

This module must never take a pod's word for more than a reason to ask: only the log says what is here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from base.ids import PodId, WriterId
from mesh.api import Entry
from mesh.broadcast import Gap
from mesh.log_messages import (
    MAX_ENTRIES,
    MAX_MARKS,
    MalformedError,
    Since,
    VectorPage,
    decode_page,
    decode_since,
    decode_vector,
    encode_sum,
    encode_vector,
)
from mesh.send import Send
from mesh.wire import Tag

Vector = Mapping[WriterId, int]

EXCHANGE_EVERY_S = 10.0
PAGE_BYTES = 256 * 1024
FETCH_TIMEOUT_S = 10.0
SLOW_AFTER_S = 4.0
"""A fetch without an answer for this long is asked of another pod, if there is one."""
PENALTY_S = 30.0
"""A pod that was slow or failed is asked last for this long."""
RETRY_AFTER_S = 1.0
"""A pod that failed for a writer is not asked for him again before."""
MAX_FETCHES = 8
MAX_FETCHES_PER_POD = 2
MAX_VECTOR_PAGES = 16
"""Pages of the vector sent at a time; a larger vector goes on in the next exchange."""
FEW_WRITERS = 64
"""A larger vector is compared in short first."""
MAX_WRITERS = 65_536
"""Writers about which marks of a pod are kept."""
MAX_COMPLAINTS = 32


class Fetch(NamedTuple):
    """Ask ``pod`` for entries of ``writer`` from ``after + 1`` on, about ``limit_bytes``, within ``timeout_s``."""

    number: int
    pod: PodId
    writer: WriterId
    after: int
    limit_bytes: int
    timeout_s: float


class Plan(NamedTuple):
    """What the shell is to do: send messages, and start fetches."""

    sends: list[Send]
    fetches: list[Fetch]


@dataclass(slots=True)
class _Link:
    marks: dict[WriterId, int] = field(default_factory=dict)
    """Where it is ahead of this pod, as far as known."""
    slow_until: float = float("-inf")
    not_before: dict[WriterId, float] = field(default_factory=dict)
    window: bytes = b""
    """Where the next page of a large vector starts."""


@dataclass(slots=True)
class _Running:
    fetch: Fetch
    started: float
    stalled: bool = False


def since_body(fetch: Fetch) -> object:
    """Return the body of the request for ``fetch``."""
    return [fetch.writer, fetch.after, fetch.limit_bytes]


def parse_since(body: object) -> Since | None:
    """Return what a `Tag.LOG_SINCE` request asks for, or None if it is malformed."""
    try:
        return decode_since(body)
    except MalformedError:
        return None


def page_body(entries: Sequence[Entry]) -> object:
    """Return the answer to a `Tag.LOG_SINCE` request: ``entries`` as `ReplicatedLog.read` returned them."""
    return [[entry.sequence, entry.blob] for entry in entries[:MAX_ENTRIES]]


def page_entries(answer: object, fetch: Fetch) -> list[Entry]:
    """Return the entries of an answer; none if it is malformed (`AntiEntropy.on_page` then asks somebody else)."""
    try:
        return decode_page(answer, fetch.writer, fetch.after)
    except MalformedError:
        return []


class AntiEntropy:
    """The anti-entropy of one pod. Not thread-safe. Every ``vector`` is `ReplicatedLog.vector` at that moment."""

    def __init__(self, me: PodId, rng: Random) -> None:
        self.me = me
        self._rng = rng
        self._links: dict[PodId, _Link] = {}
        self._ahead: set[PodId] = set()
        """Whose links have marks."""
        self._running: dict[WriterId, _Running] = {}
        self._number = 0
        self._exchange_at = float("-inf")
        self._complaints: list[str] = []

    def link_up(self, pod: PodId, vector: Vector, now: float) -> Plan:
        """A link to ``pod`` is up: exchange vectors at once."""
        link = self._links.setdefault(pod, _Link())
        return Plan(self._opening(pod, link, vector), [])

    def link_down(self, pod: PodId, vector: Vector, now: float) -> Plan:
        """The last link to ``pod`` is gone: what was asked of it is asked of others."""
        self._links.pop(pod, None)
        self._ahead.discard(pod)
        for writer in [writer for writer, running in self._running.items() if running.fetch.pod == pod]:
            del self._running[writer]
        return Plan([], self._fetches(vector, now))

    def on_vector(self, sender: PodId, message: object, vector: Vector, now: float) -> Plan:
        """Take in a `Tag.LOG_VECTOR` message: plan fetches, and answer if the sender lacks something."""
        link = self._links.get(sender)
        if link is None:
            return Plan([], [])
        try:
            page = decode_vector(message)
        except MalformedError as error:
            if len(self._complaints) < MAX_COMPLAINTS:
                self._complaints.append(f"ignored a vector of {sender}: {error}")
            return Plan([], [])
        if isinstance(page, bytes):
            if [page] == encode_sum(vector):
                return Plan([], [])
            return Plan(self._pages(sender, link, vector), [])
        for writer, sequence in page.marks.items():
            if page.holds(writer):
                self._mark(sender, writer, sequence, vector)
        sends = []
        if page.answer_wanted:
            ahead = {
                writer: last
                for writer, last in vector.items()
                if page.holds(writer) and last > page.marks.get(writer, 0)
            }
            writers = sorted(ahead)
            for at in range(0, len(writers), MAX_MARKS):
                marks = {writer: ahead[writer] for writer in writers[at : at + MAX_MARKS]}
                answer = VectorPage(answer_wanted=False, first=page.first, end=page.end, marks=marks)
                sends.append(Send(sender, Tag.LOG_VECTOR, encode_vector(answer)))
        return Plan(sends[:MAX_VECTOR_PAGES], self._fetches(vector, now))

    def on_gap(self, gap: Gap, vector: Vector, now: float) -> Plan:
        """Broadcast noticed that ``gap.pod`` has what is missing here: fetch it at once."""
        if gap.pod in self._links:
            self._mark(gap.pod, gap.writer, gap.sequence, vector)
        return Plan([], self._fetches(vector, now))

    def on_page(self, fetch: Fetch, entries: Sequence[Entry], vector: Vector, now: float) -> Plan:
        """A fetch was answered and what it brought was given to the log: go on from there."""
        if self._end(fetch):
            link = self._links.get(fetch.pod)
            if link is not None and vector.get(fetch.writer, 0) <= fetch.after:
                self._blame(link, fetch.writer, now)
                if not entries:
                    link.marks.pop(fetch.writer, None)  # it hasn't got what it was said to have
        return Plan([], self._fetches(vector, now))

    def on_failure(self, fetch: Fetch, vector: Vector, now: float) -> Plan:
        """A fetch was not answered, or with an error: ask somebody else, or the same pod a little later."""
        if self._end(fetch):
            link = self._links.get(fetch.pod)
            if link is not None:
                self._blame(link, fetch.writer, now)
        return Plan([], self._fetches(vector, now))

    def due(self) -> float:
        """Return when `tick` has something to do, unless it is told something before; early at times, never late."""
        if self._running or self._ahead:
            return float("-inf")
        return self._exchange_at if self._links else float("inf")

    def tick(self, vector: Vector, now: float) -> Plan:
        """Exchange vectors when due, leave slow pods, retry; about every 0.1 s."""
        if now < self.due():
            return Plan([], [])
        for running in list(self._running.values()):
            waited = now - running.started
            if waited > 2 * FETCH_TIMEOUT_S:
                del self._running[running.fetch.writer]  # the shell lost it
                continue
            if waited < SLOW_AFTER_S or running.stalled:
                continue
            running.stalled = True
            link = self._links.get(running.fetch.pod)
            if link is not None:
                link.slow_until = now + PENALTY_S
            if self._candidates(running.fetch.writer, vector, now, besides=running.fetch.pod):
                del self._running[running.fetch.writer]
        sends: list[Send] = []
        if now >= self._exchange_at and self._links:
            self._exchange_at = now + EXCHANGE_EVERY_S * self._rng.uniform(0.8, 1.2)
            pod = self._rng.choice(list(self._links))
            sends += self._opening(pod, self._links[pod], vector)
        return Plan(sends, self._fetches(vector, now))

    def complaints(self) -> list[str]:
        """Return why messages were ignored since the last call, at most `MAX_COMPLAINTS`, for the log."""
        complaints, self._complaints = self._complaints, []
        return complaints

    def behind(self, vector: Vector) -> bool:
        """Tell whether some linked pod is known to have what is missing here."""
        return any(last > vector.get(writer, 0) for link in self._links.values() for writer, last in link.marks.items())

    # -- planning

    def _opening(self, pod: PodId, link: _Link, vector: Vector) -> list[Send]:
        """Return the beginning of an exchange: a small vector, or a large one in short; who differs answers pages."""
        if len(vector) <= FEW_WRITERS:
            return self._pages(pod, link, vector)
        return [Send(pod, Tag.LOG_VECTOR, encode_sum(vector))]

    def _pages(self, pod: PodId, link: _Link, vector: Vector) -> list[Send]:
        sends = [self._page(pod, link, vector)]
        while link.window and len(sends) < MAX_VECTOR_PAGES:
            sends.append(self._page(pod, link, vector))
        return sends

    def _page(self, pod: PodId, link: _Link, vector: Vector) -> Send:
        """Return the next page of our vector for ``pod``."""
        writers = sorted(writer for writer in vector if writer >= link.window)
        end = bytes(writers[MAX_MARKS]) if len(writers) > MAX_MARKS else b""
        marks = {writer: vector[writer] for writer in writers[:MAX_MARKS]}
        page = VectorPage(answer_wanted=True, first=link.window, end=end, marks=marks)
        link.window = end
        return Send(pod, Tag.LOG_VECTOR, encode_vector(page))

    def _fetches(self, vector: Vector, now: float) -> list[Fetch]:
        """Plan what may be fetched now, and forget marks that the log has reached."""
        wanted: set[WriterId] = set()
        if not self._ahead:
            return []
        for pod in list(self._ahead):
            link = self._links[pod]
            for writer in [writer for writer, last in link.marks.items() if last <= vector.get(writer, 0)]:
                del link.marks[writer]
                link.not_before.pop(writer, None)
            wanted |= link.marks.keys()
            if not link.marks:
                self._ahead.discard(pod)
        fetches: list[Fetch] = []
        order = sorted(wanted - self._running.keys())
        self._rng.shuffle(order)
        for writer in order:
            if len(self._running) >= MAX_FETCHES:
                break
            candidates = self._candidates(writer, vector, now)
            if not candidates:
                continue
            self._number += 1
            pod = candidates[0]
            fetch = Fetch(self._number, pod, writer, vector.get(writer, 0), PAGE_BYTES, FETCH_TIMEOUT_S)
            self._running[writer] = _Running(fetch, now)
            fetches.append(fetch)
        return fetches

    def _candidates(self, writer: WriterId, vector: Vector, now: float, *, besides: PodId | None = None) -> list[PodId]:
        """Return who can be asked for ``writer`` now, the best first."""
        busy: dict[PodId, int] = {}
        for running in self._running.values():
            busy[running.fetch.pod] = busy.get(running.fetch.pod, 0) + 1
        ranked = [
            (link.slow_until > now, busy.get(pod, 0), -link.marks[writer], self._rng.random(), pod)
            for pod, link in self._links.items()
            if link.marks.get(writer, 0) > vector.get(writer, 0)
            and pod != besides
            and busy.get(pod, 0) < MAX_FETCHES_PER_POD
            and link.not_before.get(writer, now) <= now
        ]
        return [entry[-1] for entry in sorted(ranked)]

    def _end(self, fetch: Fetch) -> bool:
        """Forget a running fetch; return False for one that was given up before."""
        running = self._running.get(fetch.writer)
        if running is None or running.fetch.number != fetch.number:
            return False
        del self._running[fetch.writer]
        return True

    def _mark(self, pod: PodId, writer: WriterId, sequence: int, vector: Vector) -> None:
        marks = self._links[pod].marks
        if sequence > vector.get(writer, 0) and (writer in marks or len(marks) < MAX_WRITERS):
            marks[writer] = max(sequence, marks.get(writer, 0))
            self._ahead.add(pod)

    def _blame(self, link: _Link, writer: WriterId, now: float) -> None:
        link.slow_until = now + PENALTY_S
        link.not_before[writer] = now + RETRY_AFTER_S
