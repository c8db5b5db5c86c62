"""What this pod tells the others for placement, and what it hears: room, wishes, load, speed; what its programs read.

Room and wishes go with the gossip, in coarse steps (`policies.offering`). Reads are pushed to the other full pods when
their steps change (`policies.usage`). The speed of this pod's network is measured by a few times half a mebibyte each way,
twice a day, with one other pod; sooner when it has another address, or when what it fetches comes far slower than that.
"""

from __future__ import annotations

import logging
import random
import time
from typing import Final

import anyio
import msgpack
from anyio.abc import TaskGroup

from base import beat
from base.errors import DamagedError, RefusedError, WormholeError
from base.ids import ContentId, PodId
from mesh.address import parse_address
from mesh.api import Lane
from mesh.wire import Tag
from operations.mount_facts import offered_bytes
from operations.parts import Parts
from policies.offering import LEAST_FULL_BYTES, META, Scale, Wishes
from policies.placement import ROOMY
from policies.usage import MAX_LEVEL, MAX_TOLD, UseCounter

TELL_EVERY_S: Final = 2.0
USES_EVERY_S: Final = 4.0
WRITE_USES_EVERY_S: Final = 60.0
META_READS: Final = "reads"
"""Where the counts are written down, for the next start."""
CALL_S: Final = 10.0
PROBE_BYTES: Final = 512 << 10
PROBE_S: Final = 20.0
PROBE_FIRST_S: Final = 2.0
PROBE_EVERY_S: Final = 43_200.0
"""Each costs 5 MB: so often, they are a tenth of what a pod at rest sends."""
PROBE_SLOW_EVERY_S: Final = 1200.0
QUICK: Final = 10_000_000
"""Below so many bytes a second it may have been the other pod's line: it is measured sooner again, with any of them."""
META_SPEED: Final = "speed"
"""Where the last result is written down: the network is another one after a move, not after a restart."""
NO_SPEED: Final = msgpack.packb([0.0, "", None, None])
PROBES: Final = 5
"""The best of so many counts ..."""
PROBING_S: Final = 4.0
"""... or of as many as there are in this time: a machine that is busy lets a network look slow, never quick."""
RECENT_S: Final = 120.0
"""What was fetched so lately tells of the speed."""
DOUBT_EVERY_S: Final = 300.0
DOUBTFUL: Final = 4
"""When what is fetched comes so many times slower than the probe did, it is probed again, but only so often: small files
come slowly over any network, and a probe costs some mebibytes."""
RECONSIDER_S: Final = 20.0
"""Where placement changes while time passes, all contents are looked at again after so long."""

logger = logging.getLogger(__name__)


class Wishing:
    """See the module; runs on full pods."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._scale = Scale()
        self._counter = UseCounter()
        self._told_uses: dict[PodId, dict[ContentId, int]] = {}
        self._probing = anyio.Lock()
        self._download: float | None = None
        self._upload: float | None = None
        self._wake = anyio.Event()
        self._values: object = None
        self._leaving: frozenset[PodId] = frozenset()
        self._rooms: dict[PodId, int] = {}
        self._rooms_changed_at: float | None = None
        """When a pod offered more room than before, or less, until it was seen whether anything lacks copies."""
        self._loads: object = None
        parts.mesh.handle(Tag.USES, self._hear_uses)
        parts.mesh.handle(Tag.SPEED, self._serve_speed)
        parts.mesh.on_change(self._look)
        parts.transfer.on_used = self._used
        parts.transfer.on_refused = self._refused
        parts.transfer.pass_every(self._pass_every_s)
        parts.wishes_changed = self.changed
        parts.is_short = self._is_short

    async def run(self) -> None:
        """Tell and measure until cancelled."""
        self._recall_uses()
        async with anyio.create_task_group() as group:
            group.start_soon(self._tell_uses, group)
            group.start_soon(self._measure)
            group.start_soon(self._watch_room)
            while True:
                self.tell()
                self._use_room()
                self._wake = anyio.Event()
                with anyio.move_on_at(beat.after(anyio.current_time(), TELL_EVERY_S)):
                    await self._wake.wait()

    # -- room and wishes

    async def _watch_room(self) -> None:
        while True:
            await self._parts.transfer.room_changed()
            self._wake.set()

    def tell(self) -> None:
        """Gossip what this pod has and wishes for."""
        self._parts.gossip({META: self._wishes().pack()})

    def _wishes(self) -> Wishes:
        parts, scale = self._parts, self._scale
        capacity, free = offered_bytes(parts)
        free = free if parts.transfer.trouble() is None else 0
        affinity = parts.pod.affinity
        return Wishes(
            capacity=scale.capacity(capacity),
            room_bytes=scale.room(free, anyio.current_time()),
            is_full=scale.is_full(capacity, free),
            speed=scale.speed(self._speed()),
            load=scale.load(capacity, parts.transfer.bytes_kept()),
            replicas=affinity.replicas,
            new_files=affinity.new_files,
            hot=affinity.hot,
            cold=affinity.cold,
            joined_s=parts.transfer.joined_s,
        )

    def _refused(self, size: int) -> None:
        self._scale.refused(size, anyio.current_time())
        self._wake.set()

    def _is_short(self) -> bool:
        """Say that this pod is full; tell whether another one has room."""
        self._scale.short()
        self._wake.set()
        me, pods = self._parts.mesh.pod_id, self._parts.catalogue.placing.pods()
        return any(
            one.takes and (one.available_bytes or 0) > (ROOMY * LEAST_FULL_BYTES if one.is_full else 0)
            for pod, one in pods.candidates.items()
            if pod != me
        )

    def changed(self) -> None:
        """Tell at once: the configuration is another one."""
        self._scale.limits_changed()
        self._wake.set()

    def _look(self) -> None:
        """Look at all contents again when a pod says something else that placement depends on.

        How laden the pods are decides only who drops a copy too many: then nothing else is looked at.
        """
        pods = self._parts.catalogue.placing.pods()
        values = {
            pod: (said.capacity, said.is_full, said.replicas, said.new_files, said.hot, said.cold, said.joined_s)
            for pod, said in pods.wishes.items()
        }
        if pods.leaving != self._leaving:
            self._parts.transfer.reconsider()
        elif values != self._values:
            self._parts.transfer.look_at_all()  # not `reconsider`: new contents go on waiting for their time
        self._values, self._leaving = values, pods.leaving
        rooms = {pod: said.room_bytes for pod, said in pods.wishes.items()}
        if rooms != self._rooms:
            self._rooms_changed_at = anyio.current_time()
        self._rooms = rooms
        loads = {
            pod: (said.load, pods.candidates[pod].is_slow)
            for pod, said in pods.wishes.items()
            if pod in pods.candidates
        }
        if loads != self._loads:
            self._loads = loads
            self._parts.transfer.loads_changed()

    def _use_room(self) -> None:
        """Look at all contents again once some are known to lack copies: where they belong depends on who has room.

        Where there is more of it than before, or where another pod has none any more that was to keep them.
        """
        crisis = self._parts.crisis
        if self._rooms_changed_at is not None and crisis.found is not None and crisis.found_at > self._rooms_changed_at:
            self._rooms_changed_at = None
            if crisis.found.verdict.tally.short:
                self._parts.transfer.look_at_all()

    def _pass_every_s(self) -> float:
        return RECONSIDER_S if self._parts.catalogue.placing.has_temper() else float("inf")

    # -- use

    def _used(self, content: ContentId) -> None:
        self._counter.count(content, anyio.current_time())

    def _recall_uses(self) -> None:
        """Go on counting where this pod stopped: a restart must not make its files look unread, and move."""
        try:
            stored = msgpack.unpackb(self._parts.metadata.store.get_meta(META_READS) or b"\x92\x00\x90")
            at_s, rows = stored
            counts = [(ContentId(bytes(content)), float(count)) for content, count in rows]
            self._counter.remember(counts, time.time() - float(at_s), anyio.current_time())
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            logger.info("what was read before can't be recalled: %s", error)

    def _write_uses_down(self) -> None:
        counts = self._counter.counts(anyio.current_time())
        self._parts.metadata.store.set_meta(META_READS, msgpack.packb([time.time(), counts]))
        self._parts.metadata.committer.request()

    async def _tell_uses(self, group: TaskGroup) -> None:
        parts, write_at = self._parts, anyio.current_time() + WRITE_USES_EVERY_S
        written: dict[ContentId, int] = {}
        while True:
            levels = self._counter.levels(anyio.current_time())
            self._take_uses(parts.mesh.pod_id, levels)
            full = set(parts.catalogue.full_pods())
            alive = parts.mesh.alive() & full
            self._told_uses = {pod: told for pod, told in self._told_uses.items() if pod in alive}
            if untold := [pod for pod in sorted(alive) if self._told_uses.get(pod, {}) != levels]:
                async with anyio.create_task_group() as calls:
                    for pod in untold:
                        calls.start_soon(self._tell_one, pod, levels)
            if levels != written and anyio.current_time() >= write_at:
                self._write_uses_down()
                written, write_at = levels, anyio.current_time() + WRITE_USES_EVERY_S
            await beat.rest(USES_EVERY_S)

    async def _tell_one(self, pod: PodId, levels: dict[ContentId, int]) -> None:
        try:
            body = [[content, level] for content, level in levels.items()]
            await self._parts.mesh.call(pod, Tag.USES, body, timeout_s=CALL_S)
            self._told_uses[pod] = levels
        except WormholeError as error:
            logger.debug("%s wasn't told what is read here: %s", pod, error)

    async def _hear_uses(self, sender: PodId, body: object) -> object:
        if sender not in self._parts.catalogue.full_pods():
            raise RefusedError("What a client pod reads doesn't count.")
        if not isinstance(body, list) or len(body) > MAX_TOLD:
            raise DamagedError("A pod sent a list of reads that can't be read.")
        levels: dict[ContentId, int] = {}
        for row in body:
            match row:
                case [bytes(content), int(level)] if len(content) == 32 and 0 < level <= MAX_LEVEL:
                    levels[ContentId(content)] = level
                case _:
                    raise DamagedError("A pod sent a list of reads that can't be read.")
        self._take_uses(sender, levels)
        return None

    def _take_uses(self, pod: PodId, levels: dict[ContentId, int]) -> None:
        changed = self._parts.catalogue.placing.uses.tell(pod, levels)
        if changed:
            self._parts.transfer.look_at(changed)

    # -- speed

    def _speed(self) -> float | None:
        """Return the bytes a second of this pod's network, both ways; None while nothing was measured."""
        fetched = self._parts.transfer.rate_in(RECENT_S)
        # small files come slowly over any network
        download = self._download if fetched is None else max(fetched, self._download or 0.0)
        known = [rate for rate in (download, self._upload) if rate is not None]
        return min(known) if known else None

    async def _wait_for_doubt(self, host: str) -> None:
        """Wait until the network may be another one than at ``host``, or slower than the last probe said."""
        while self._host() == host:
            await anyio.sleep(DOUBT_EVERY_S)
            fetched = self._parts.transfer.rate_in(RECENT_S)
            if fetched is not None and fetched * DOUBTFUL < (self._download or 0.0):
                return

    def _host(self) -> str:
        """Return under which address of its machine this pod is told to be found."""
        return parse_address(self._parts.mesh.address)[0]

    def _recall_speed(self) -> float:
        """Take over what was measured before this pod was stopped; return for how long it holds (s), 0: not at all."""
        try:
            at_s, host, *rates = msgpack.unpackb(self._parts.metadata.store.get_meta(META_SPEED) or NO_SPEED)
            age_s = time.time() - float(at_s)
            download, upload = (None if rate is None else float(rate) for rate in rates)
            holds_s = _holds_s(download, upload)
            if host != self._host() or not 0 <= age_s < holds_s:
                return 0.0
            self._download, self._upload = download, upload
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            logger.info("how fast the network was can't be recalled: %s", error)
            return 0.0
        logger.info("the network was measured %.0f minutes ago", age_s / 60)
        return holds_s - age_s

    def _write_speed_down(self) -> None:
        found = msgpack.packb([time.time(), self._host(), self._download, self._upload])
        self._parts.metadata.store.set_meta(META_SPEED, found)
        self._parts.metadata.committer.request()

    async def _measure(self) -> None:
        await anyio.sleep(PROBE_FIRST_S)
        with anyio.move_on_after(self._recall_speed()):
            await self._wait_for_doubt(self._host())
        pause_s = PROBE_FIRST_S
        while True:
            await anyio.sleep(pause_s)
            others = sorted(self._parts.mesh.alive() & set(self._parts.catalogue.full_pods()))
            if not others:
                continue
            pod = random.choice(others)
            try:
                async with self._probing:
                    self._download = await self._fetch_from(pod)
                answer = await self._parts.mesh.call(pod, Tag.SPEED, [1], timeout_s=2 * PROBE_S, lane=Lane.BULK)
                if isinstance(answer, int) and answer > 0:
                    self._upload = float(answer)
            except WormholeError as error:
                logger.debug("the speed wasn't measured with %s: %s", pod, error)
                pause_s = min(2 * pause_s, DOUBT_EVERY_S)  # a slow line is not to be filled with that
                continue
            pause_s = PROBE_FIRST_S
            rates = [(rate or 0.0) / 1e6 for rate in (self._download, self._upload)]
            name = self._parts.live.name_of(pod)
            logger.info("the network was measured with %s: %.0f MB/s from there, %.0f MB/s to there", name, *rates)
            self._write_speed_down()
            self._wake.set()
            with anyio.move_on_after(_holds_s(self._download, self._upload)):
                await self._wait_for_doubt(self._host())

    async def _fetch_from(self, pod: PodId) -> float:
        """Return the bytes a second that come from a pod; 0 for hardly any. Raises `WormholeError`."""
        call = self._parts.mesh.call
        await call(pod, Tag.SPEED, [0, 1], timeout_s=PROBE_S, lane=Lane.BULK)  # the link is up then
        best, until = 1.0, anyio.current_time() + PROBING_S
        for _ in range(PROBES):
            started_at = anyio.current_time()
            if started_at > until:
                break
            answer = await call(pod, Tag.SPEED, [0, PROBE_BYTES], timeout_s=PROBE_S, lane=Lane.BULK)
            if not isinstance(answer, bytes) or len(answer) != PROBE_BYTES:
                raise DamagedError("A pod sent something else than a probe.")
            best = max(best, PROBE_BYTES / max(1e-6, anyio.current_time() - started_at))
        return best

    async def _serve_speed(self, sender: PodId, body: object) -> object:
        match body:
            case [0, int(size)] if 0 < size <= PROBE_BYTES:
                return bytes(size)
            case [1]:
                if self._probing.locked():
                    raise RefusedError("This pod is measuring already.")
                async with self._probing:
                    return round(await self._fetch_from(sender))
        raise DamagedError("A pod sent a request for a probe that can't be read.")


def _holds_s(download: float | None, upload: float | None) -> float:
    """Return for how long a result holds (s)."""
    return PROBE_EVERY_S if min(download or 0.0, upload or 0.0) >= QUICK else PROBE_SLOW_EVERY_S
