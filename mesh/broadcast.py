"""How new log entries reach everybody at once: an epidemic broadcast tree. Pure.

Theory of operation (Leitão, Pereira, Rodrigues, "Epidemic Broadcast Trees", 2007: Plumtree). Links are *eager* or
*lazy*. New entries are pushed along the eager links; a push names whom else it was sent to (*covered*), so that in a
cluster where everybody is linked nothing travels twice. All others, the covered ones too (their push may be lost), are
soon after told only "I have writer W up to N", unless they have said so themselves. Logs have no gaps, so one number
per writer says it all. Who pushes what we have is pruned to lazy. With few pods all links stay eager.

What is announced but doesn't come is asked of one announcer after another. Different from the paper, one that should
have pushed it (an eager link) is asked first, at once, and without changing the tree: a lost frame isn't a broken tree,
and a new branch for each would cost a push too many later. Only when no eager link has announced it a lazy one is
grafted, after a while in which its push may come. What this doesn't bring, or is much, is fetched by anti-entropy. No
entry is ever buffered here.

This module must never say that this pod has an entry before the log has it durably.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from base.ids import PodId, WriterId
from mesh.api import Entry
from mesh.log_messages import (
    MAX_COVERED,
    MAX_MARKS,
    MalformedError,
    Push,
    PushKind,
    decode_push,
    encode_announcement,
    encode_push,
    encode_want,
)
from mesh.pushes import all_here, batches, last_of
from mesh.send import Send
from mesh.wire import Tag

FEW_PODS = 9
"""In a cluster of so many pods (8 links each) or less nobody is pruned."""
ANNOUNCE_AFTER_S = 0.05
"""Announcements wait this long for further ones,"""
ANNOUNCE_AFTER_FEW_S = 0.25
"""among few pods, where everything is pushed by who made it, this long."""
GRAFT_AFTER_S = 0.15
"""So long after an announcement by a lazy link, or among few pods, it is asked for, if no push has brought it."""
REORDERED_S = 0.03
"""So long what comes first may overtake what was sent before it: a push, or its announcement."""
ASK_AGAIN_S = 0.1
"""Without an answer for so long the next announcer is asked; from the fifth time on each takes twice as long."""
ALONE_TRIES = 2
"""So often one announcer is asked at a time, then two: among a thousand pods somebody has bad luck six times in a row."""
MAX_TRIES = 6
MAX_WANTED = 64
"""Asking for more entries of one writer than this is left to anti-entropy, and so are requests of others above it."""
USEFUL_S = 1.0
"""A link that has brought something new within this time isn't pruned."""
ASKED_S = 1.0
"""What comes within this time of asking may come twice, without the sender being pruned."""
MAX_WRITERS = 4096
"""Writers about which marks of a link are kept; further ones are left to anti-entropy."""
MAX_COMPLAINTS = 32


class Gap(NamedTuple):
    """``pod`` has ``writer`` up to ``sequence`` and this pod has not: something for `AntiEntropy.on_gap`."""

    pod: PodId
    writer: WriterId
    sequence: int


class Wanted(NamedTuple):
    """``pod`` asks for what is behind ``after``: read it and give it to `Broadcast.resend`."""

    pod: PodId
    writer: WriterId
    after: int


@dataclass(slots=True)
class _Link:
    eager: bool = True
    asked: float = float("-inf")
    """When it was last asked for something."""
    useful: float = float("-inf")
    """When it last brought something new."""
    known: dict[WriterId, int] = field(default_factory=dict)
    """What the pod has by its own word."""
    announce: dict[WriterId, int] = field(default_factory=dict)
    """What it is yet to be told that we have."""

    def note(self, writer: WriterId, sequence: int) -> None:
        if sequence > self.known.get(writer, 0) and (writer in self.known or len(self.known) < MAX_WRITERS):
            self.known[writer] = sequence
        if self.announce.get(writer, sequence + 1) <= sequence:
            del self.announce[writer]

    def owe(self, writer: WriterId, sequence: int) -> None:
        if sequence <= self.known.get(writer, 0):
            return
        if writer in self.announce or len(self.announce) < MAX_WRITERS:
            self.announce[writer] = max(sequence, self.announce.get(writer, 0))


@dataclass(slots=True)
class _Missing:
    first: int
    """What the wait is for; entries announced later have time until the next one."""
    sequence: int
    due: float
    announcers: list[PodId]
    tries: int = 0


class Broadcast:
    """The broadcast of one pod. Not thread-safe."""

    def __init__(self, me: PodId, rng: Random, *, leaf: bool = False) -> None:
        """``leaf``: a client pod, which nobody's tree may lead through: it passes nothing on."""
        self.me = me
        self._rng = rng
        self._leaf = leaf
        self._links: dict[PodId, _Link] = {}
        self._pods = 0
        self._missing: dict[WriterId, _Missing] = {}
        self._gaps: list[Gap] = []
        self._wanted: list[Wanted] = []
        self._announce_at: float | None = None
        self._announced = float("-inf")
        self._complaints: list[str] = []

    def set_members(self, pods: Iterable[PodId]) -> None:
        """Take over who belongs to the cluster: their number decides whether links are pruned."""
        self._pods = len(set(pods) | {self.me})

    def link_up(self, pod: PodId, now: float) -> None:
        """A link to ``pod`` is up: eager until pruned."""
        self._links.setdefault(pod, _Link())

    def link_down(self, pod: PodId, now: float) -> None:
        """The last link to ``pod`` is gone."""
        self._links.pop(pod, None)
        for writer, missing in list(self._missing.items()):
            if pod in missing.announcers:
                missing.announcers.remove(pod)
                if not missing.announcers:
                    del self._missing[writer]

    def publish(self, entries: Sequence[Entry], now: float) -> list[Send]:
        """Push new durable entries of this pod's own log."""
        return self._spread(entries, frozenset(), now)

    def due(self) -> float | None:
        """Return when `tick` has something to do; None: not before something is told to this core."""
        due = self._announce_at
        for missing in self._missing.values():
            if due is None or missing.due < due:
                due = missing.due
        return due

    def received(
        self, sender: PodId, message: object, applied: Sequence[Entry], vector: Mapping[WriterId, int], now: float
    ) -> list[Send]:
        """Take in any `Tag.LOG_PUSH` message and return what to send on.

        ``applied``: what `ReplicatedLog.receive` returned for `pushed_entries` (nothing, if it was not called);
        ``vector``: the log's vector after that. Malformed messages are ignored whole.
        """
        link = self._links.get(sender)
        if link is None:
            return []
        try:
            push = decode_push(message)
        except MalformedError as error:
            if len(self._complaints) < MAX_COMPLAINTS:
                self._complaints.append(f"ignored a broadcast message of {sender}: {error}")
            return []
        match push.kind:
            case PushKind.ENTRIES:
                return self._pushed(sender, push, applied, vector, now)
            case PushKind.ANNOUNCE:
                patience_s = REORDERED_S if link.eager and self._pods > FEW_PODS else GRAFT_AFTER_S
                for writer, sequence in push.marks.items():
                    link.note(writer, sequence)
                    if sequence > vector.get(writer, 0):
                        self._miss(writer, sequence, sender, now, patience_s)
                return self._ask(vector, now)
            case PushKind.WANT:
                for writer, after in push.marks.items():
                    if vector.get(writer, 0) > after and len(self._wanted) < MAX_WANTED:
                        self._wanted.append(Wanted(sender, writer, after))
            case PushKind.GRAFT:
                link.eager = True
            case PushKind.PRUNE:
                link.eager = False
        return []

    def caught_up(self, sender: PodId, applied: Sequence[Entry], now: float) -> list[Send]:
        """Entries came from ``sender`` in a page of anti-entropy: announce them, who lacks them will ask."""
        link = self._links.get(sender)
        for writer, sequence in last_of(applied).items():
            if link is not None:
                link.note(writer, sequence)
            self._owe_all(writer, sequence, now)
        if now - self._announced < ANNOUNCE_AFTER_FEW_S:
            return []
        return self._announcements(now)

    def resend(self, wanted: Wanted, entries: Sequence[Entry]) -> list[Send]:
        """Push to one pod what it asked for."""
        if wanted.pod not in self._links:
            return []
        return [Send(wanted.pod, Tag.LOG_PUSH, encode_push(batch, ())) for batch in batches(entries)]

    def tick(self, vector: Mapping[WriterId, int], now: float) -> list[Send]:
        """Announce what is due, and ask for what is missing; when it is `due`."""
        sends = self._ask(vector, now)
        if self._announce_at is not None and now >= self._announce_at:
            sends += self._announcements(now)
        return sends

    def wanted(self) -> list[Wanted]:
        """Return what others have asked for since the last call, at most `MAX_WANTED`."""
        wanted, self._wanted = self._wanted, []
        return wanted

    def gaps(self) -> list[Gap]:
        """Return what is missing here and who has it, noticed since the last call."""
        gaps, self._gaps = self._gaps, []
        return gaps

    def complaints(self) -> list[str]:
        """Return why messages were ignored since the last call, at most `MAX_COMPLAINTS`, for the log."""
        complaints, self._complaints = self._complaints, []
        return complaints

    def eager_links(self) -> frozenset[PodId]:
        """Return the pods that new entries are pushed to."""
        return frozenset(pod for pod, link in self._links.items() if link.eager)

    def _pushed(
        self, sender: PodId, push: Push, applied: Sequence[Entry], vector: Mapping[WriterId, int], now: float
    ) -> list[Send]:
        link = self._links[sender]
        for writer, sequence in last_of(push.entries).items():
            link.note(writer, sequence)
            if sequence > vector.get(writer, 0):
                self._miss(writer, sequence, sender, now, REORDERED_S)
        sends = self._spread(applied, push.covered | {sender}, now)
        if now - link.asked <= ASKED_S:
            return sends
        if applied:
            link.eager, link.useful = True, now
        elif now - link.useful <= USEFUL_S:
            pass  # changes of different sources take different ways: each link is one too many for some of them
        elif self._pods > FEW_PODS and link.eager and push.entries and all_here(push.entries, vector):
            link.eager = False
            sends.append(Send(sender, Tag.LOG_PUSH, [PushKind.PRUNE]))
        return sends

    def _ask(self, vector: Mapping[WriterId, int], now: float) -> list[Send]:
        """Ask for what is due: an eager announcer in preference to the lazy ones, then the next."""
        asked: dict[PodId, dict[WriterId, int]] = {}
        sends = []
        for writer, missing in [(writer, missing) for writer, missing in self._missing.items() if now >= missing.due]:
            have = vector.get(writer, 0)
            if missing.first <= have < missing.sequence:
                missing.first, missing.due, missing.tries = missing.sequence, now + REORDERED_S, 0
                continue
            if have >= missing.sequence or missing.tries >= MAX_TRIES or missing.sequence - have > MAX_WANTED:
                del self._missing[writer]
                if have < missing.sequence:
                    for pod in missing.announcers:
                        self._gap(Gap(pod, writer, missing.sequence))
                continue
            order = sorted(missing.announcers, key=lambda pod: not self._links[pod].eager)
            if not self._links[order[0]].eager and missing.tries == 0:
                self._links[order[0]].eager = True
                sends.append(Send(order[0], Tag.LOG_PUSH, [PushKind.GRAFT]))
            turns = (missing.tries,) if missing.tries < ALONE_TRIES else (2 * missing.tries, 2 * missing.tries + 1)
            for pod in dict.fromkeys(order[turn % len(order)] for turn in turns):
                self._links[pod].asked = now
                asked.setdefault(pod, {})[writer] = have
            missing.tries += 1
            missing.due = now + ASK_AGAIN_S * 2 ** max(0, missing.tries - 4)
        for pod, marks in asked.items():
            items = list(marks.items())
            sends += [
                Send(pod, Tag.LOG_PUSH, encode_want(dict(items[at : at + MAX_MARKS])))
                for at in range(0, len(items), MAX_MARKS)
            ]
        return sends

    def _spread(self, entries: Sequence[Entry], covered: frozenset[PodId], now: float) -> list[Send]:
        """Push ``entries`` along the eager links that are not ``covered``, and remember whom to tell of them."""
        if not entries:
            return []
        for writer, sequence in last_of(entries).items():
            self._owe_all(writer, sequence, now)
        if self._leaf:
            return []
        targets = [pod for pod, link in self._links.items() if link.eager and pod not in covered]
        self._rng.shuffle(targets)
        everybody = [self.me, *targets, *sorted(covered)] if self._pods <= MAX_COVERED else []
        sends = []
        for batch in batches(entries):
            message = encode_push(batch, everybody[:MAX_COVERED])
            for pod in targets:
                known = self._links[pod].known
                if any(entry.sequence > known.get(entry.writer, 0) for entry in batch):
                    sends.append(Send(pod, Tag.LOG_PUSH, message))
        return sends

    def _announcements(self, now: float) -> list[Send]:
        self._announce_at, self._announced = None, now
        sends = []
        for pod, link in self._links.items():
            if not link.announce:
                continue
            marks = {writer: link.announce[writer] for writer in list(link.announce)[:MAX_MARKS]}
            for writer in marks:
                del link.announce[writer]
            if link.announce:
                self._announce_at = now + ANNOUNCE_AFTER_S
            sends.append(Send(pod, Tag.LOG_PUSH, encode_announcement(marks)))
        return sends

    def _gap(self, gap: Gap) -> None:
        if len(self._gaps) < MAX_WRITERS:
            self._gaps.append(gap)

    def _owe_all(self, writer: WriterId, sequence: int, now: float) -> None:
        if self._announce_at is None:
            self._announce_at = now + (ANNOUNCE_AFTER_FEW_S if self._pods <= FEW_PODS else ANNOUNCE_AFTER_S)
        for link in self._links.values():
            link.owe(writer, sequence)

    def _miss(self, writer: WriterId, sequence: int, sender: PodId, now: float, patience_s: float) -> None:
        missing = self._missing.get(writer)
        if missing is None:
            if len(self._missing) < MAX_WRITERS:
                self._missing[writer] = _Missing(sequence, sequence, now + patience_s, [sender])
            return
        missing.sequence = max(missing.sequence, sequence)
        if missing.tries == 0:
            missing.due = min(missing.due, now + patience_s)
        if sender not in missing.announcers:
            missing.announcers.append(sender)
