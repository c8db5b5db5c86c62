"""The composition root: builds the parts of one pod, runs and supervises them, and ends them in order.

    python -m pod --home DIR [--ready-fd N]

The parts run in one task group. Those without which nothing is lost are started anew when they fail; any other failure
ends the pod in order: unmounted, everything closed published and committed.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import TaskGroup, TaskStatus

from base import beat
from base.errors import MachineError, NotRunningError, RefusedError, WormholeError, to_wire
from base.home import HOME_VARIABLE, Home
from base.ids import ContentId, InodeId
from base.memory import few_pools
from control.lock import acquire
from control.server import serve
from crdt_meta.acknowledgement import content_mark
from crdt_meta.chronicle import Chronicle
from crdt_meta.metadata import Metadata
from crdt_meta.node import Delta
from discovery.admission import Admissions
from mesh.identity import Identity
from mesh.membership import MembershipSettings
from mesh.node import MeshNode
from mesh.roster_store import RosterStore
from operations import pinning
from operations.announcing import Announcing
from operations.barrier import Barrier
from operations.catalogue import ROOM, TreeCatalogue
from operations.client import RemoteTree
from operations.crisis import Crisis
from operations.handlers import handlers
from operations.housekeeping import Housekeeping, shortage
from operations.live import LiveConfiguration
from operations.mount_facts import OwnAttributes, Told, limit_bytes, local_space, room_bytes, space
from operations.mounting import MountKeeper
from operations.parts import Parts
from operations.rebirth import Rebirth, go_on_if_forgotten, may_renew, other_full_pods, writer_records
from operations.repairing import Repairs
from operations.requests import serve_requests
from operations.scrubbing import Scrubs
from operations.serving import Serving
from operations.settings import (
    admission_policy,
    engine_roots,
    mount_point,
    read_pod_toml,
    transfer_settings,
    usable_configuration,
)
from operations.soundness import check_complete, damage, no_member, place_of
from operations.tidying import Cluster, tidy
from operations.unplugging import serve_unplugging
from operations.wishing import Wishing
from policies.config import ClusterConfig
from transfer.service import Transfer
from vfs.gate import Gate
from vfs.hold import Hold
from vfs.journalled import publish_journalled
from vfs.mount import Mount, MountSettings

COLLECT: Final = (1_000, 5, 10_000)
"""Thresholds of Python's collector: short looks at what is young, very few at the million small tuples of the caches.
Looks at 20,000 objects and 400,000 held up the loop for up to 90 and 260 ms while changes merged, these for 1 and 14."""
GOSSIP_EVERY_S: Final = 4.0
RESTART_AFTER_S: Final = 1.0
RESTARTS: Final = 20
"""A part that fails more often than this since the start stays down; the rest goes on."""
LAST_WORDS_S: Final = 15.0
CATCH_UP_S: Final = 3.0
FIRST_LINK_S: Final = 1.5
"""A pod that has reached nobody by then doesn't wait any longer: it may well be alone."""

Part = Callable[[TaskStatus[None]], Awaitable[None]]

logger = logging.getLogger("pod")


class FirstStart(TaskStatus[None]):
    """Reports the first start of a part that may be started several times."""

    def __init__(self, status: TaskStatus[None]) -> None:
        self._status = status
        self.happened = False

    def started(self, value: None = None) -> None:
        """Report it once."""
        if not self.happened:
            self.happened = True
            self._status.started()


class Pod:
    """One pod: built by the constructor (files are opened), run by `run`, closed by `close`."""

    def __init__(self, home: Home) -> None:
        """Open everything. Raises `WormholeError` of the part that can't be opened."""
        self._stopping = anyio.Event()
        self._failure: WormholeError | None = None
        self._catching_up = anyio.CancelScope()
        self._told: dict[str, object] = {}
        self.identity = Identity.load(home.identity)
        roster_store = RosterStore(home.roster_db)
        roster = roster_store.roster
        check_complete(home, roster, self.identity.pod_id)
        cluster, pod = usable_configuration(roster).config, read_pod_toml(home)
        self._first_config = cluster
        metadata = Metadata(home.metadata_db, engine_roots(self.identity, roster, self._config))
        metadata.tree.root_owner = (os.getuid(), os.getgid())
        metadata.log.incoming.is_retired = lambda writer: writer in roster.adoptions()
        go_on_if_forgotten(roster, metadata)
        may = may_renew(roster, self.identity.pod_id)
        self._chronicle = Chronicle(
            metadata, place_of(home), partial(other_full_pods, roster, self.identity.pod_id), may_renew=may
        )
        self.is_client = roster.is_client(self.identity.pod_id)
        metadata.log.follows = self.is_client
        if not self.is_client:
            roster_store.add(writer_records(self.identity, roster, metadata))
        mesh = MeshNode(
            self.identity,
            roster_store,
            listen=pod.pod.listen,
            advertise=pod.pod.advertise,
            peers=pod.pod.peers,
            log=metadata.log,
            settings=MembershipSettings(absent_after_s=cluster.redundancy.absent_after_s),
        )
        catalogue = TreeCatalogue(metadata.tree, mesh, cluster, pod)
        transfer = Transfer(home, mesh, catalogue, transfer_settings(pod, keeps=not self.is_client))
        catalogue.holders = transfer.holders
        catalogue.durable = metadata.committer.durable
        admissions = Admissions(
            home,
            self.identity,
            roster_store,
            policy=lambda: admission_policy(self._config()),
            addresses=lambda: {one.pod: one.address for one in mesh.members() if one.address},
            learn=mesh.learn,
        )
        mesh.set_join_handler(admissions.serve)
        serve_requests(mesh, admissions)
        mesh.set_chronicle(self._chronicle)
        mesh.strays.on_namesake = self._give_way
        mesh.on_change(self._look_whether_evicted)
        mesh.on_change(metadata.tree.pods_changed)
        editor = self._take_role(metadata, transfer, mesh, pod.network.deadline_s)
        self._cluster = Cluster(metadata, mesh, roster, self.identity, cluster.cluster.forget_after_s)
        metadata.committer.on_durable = mesh.publish_log
        metadata.tree.on_delta(self._noticed)
        metadata.acknowledgements.builds_on = self._in_use
        mounts = MountKeeper(self._make_mount, mount_point(pod))
        gate = Gate(metadata.tree, self._config)
        self.parts = Parts(
            home=home,
            identity=self.identity,
            cluster=cluster,
            pod=pod,
            roster=roster_store,
            metadata=metadata,
            mesh=mesh,
            catalogue=catalogue,
            transfer=transfer,
            admissions=admissions,
            mounts=mounts,
            gossip=self._gossip,
            stop=self._stopping.set,
            editor=editor,
            hold=self._hold,
            gate=gate,
        )

        self.parts.barrier = Barrier(self.parts)
        self._housekeeping = Housekeeping(self.parts, mesh.clock_agrees)
        self.parts.live = LiveConfiguration(self.parts, self._cluster, self._housekeeping)
        self.parts.crisis = Crisis(self.parts)
        self._cluster.short_of_room = lambda: shortage(*local_space(self.parts)) > 0
        serve_unplugging(self.parts)
        self._wishing = None if self.is_client else Wishing(self.parts)
        if transfer.releasing is not None:
            transfer.releasing.may_free = self._may_free

    def _take_role(
        self, metadata: Metadata, transfer: Transfer, mesh: MeshNode, deadline_s: float
    ) -> RemoteTree | None:
        """Make what only a full pod or only a client pod has; return what changes the tree on a client pod."""
        self._rebirth: Rebirth | None = None
        self._hold = Hold()
        if self.is_client:
            mesh.strays.on_restored = self._chronicle.begin_anew
            return RemoteTree(metadata, transfer, mesh, deadline_s)
        self._rebirth = Rebirth(self.identity, self._chronicle, metadata, mesh, transfer)
        Serving(mesh.roster, metadata, transfer, mesh, Gate(metadata.tree, self._config), self._hold)
        return None

    def _config(self) -> ClusterConfig:
        """Return the cluster's configuration in force, also while the parts are being built."""
        return self.parts.cluster if hasattr(self, "parts") else self._first_config

    def _look_whether_evicted(self) -> None:
        if self._failure is None and self.parts.roster.roster.is_evicted(self.identity.pod_id):
            self._give_way(no_member(self.parts.home, self.parts.roster.roster, self.identity.pod_id))

    def _give_way(self, error: RefusedError | MachineError) -> None:
        """End in order: another process with this pod's key was there first, it was evicted, or its store is gone."""
        if self._failure is None:
            self._failure = error
            logger.error("%s", error)
            self._catching_up.cancel()
            self._stopping.set()

    def _make_mount(self, directory: Path) -> Mount:
        parts = self.parts
        settings = MountSettings(
            mount_dir=directory,
            ownership=parts.pod.pod.ownership,
            deadline_s=parts.pod.network.deadline_s,
            uid=os.getuid(),
            gid=os.getgid(),
            name=f"wormhole-{parts.roster.roster.cluster_name}",
            private_dir=parts.home.private,
        )
        return Mount(
            parts.metadata.tree,
            parts.metadata.committer,
            parts.transfer,
            settings,
            OwnAttributes(parts),
            space=partial(space, parts),
            gate=parts.gate,
            editor=parts.editor,
            hold=parts.hold,
            barrier=parts.barrier,
        )

    def _in_use(self) -> set[InodeId]:
        """Return the files that may yet be published here, though others may have deleted them, and what they build on."""
        used = [(entry.inode, entry.content) for entry in self.parts.metadata.tree.journalled()]
        used += self.parts.mounts.in_use()
        return {one for inode, content in used for one in (inode, content_mark(content))}

    def _may_free(self, content: ContentId) -> bool:
        """Tell whether the bytes of a content that nothing refers to may go."""
        if self.is_client:  # it has copies of what others keep
            return True
        return self._cluster.is_caught_up() and self.parts.metadata.tidying.consent.may_go(content)

    def _noticed(self, delta: Delta) -> None:
        if delta.contents:
            self.parts.metadata.tidying.consent.used(delta.contents)
            self.parts.transfer.noticed(delta.contents, lost=delta.loses)
        if delta.entries:
            pinning.moved(self.parts, delta)

    def _gossip(self, values: Mapping[str, object]) -> None:
        told = {**self._told, **values}
        if told != self._told:
            self._told = told
            self.parts.mesh.publish_meta(told)

    # -- running ------------------------------------------------------------------------------------------------------

    async def run(self, ready: Callable[[dict[str, object]], None]) -> None:
        """Run until asked to stop (`Parts.stop`, SIGTERM, SIGINT); calls ``ready`` once it serves and its mount answers."""
        parts = self.parts
        logger.info("starting")
        async with anyio.create_task_group() as group:
            group.start_soon(self._signals)
            parts.live.start()
            parts.transfer.on_vanished = self._give_way
            await group.start(parts.metadata.committer.run)
            await group.start(parts.transfer.run)
            if self._chronicle.is_copy:
                await parts.transfer.begin_holdings_anew()
            await group.start(parts.mesh.run)
            await group.start(self._supervised, "control socket", self._serve_control)
            await group.start(self._supervised, "discovery", Announcing(parts).run)
            group.start_soon(self._gossip_room)
            if self._wishing is not None:
                group.start_soon(self._wishing.run)
            if self._rebirth is not None:
                group.start_soon(self._rebirth.run)
            await self._catch_up()
            await publish_journalled(parts.metadata.tree, parts.metadata.committer, parts.transfer)
            if not self.is_client:
                group.start_soon(tidy, self._cluster, parts.metadata, parts.mesh)
                group.start_soon(self._housekeeping.run)
                repairs = Repairs(parts)
                parts.repairs_left_s = repairs.left_s
                group.start_soon(repairs.run)
                group.start_soon(Scrubs(parts).run)
            await parts.crisis.react()  # what was said while this pod was down holds before anybody writes
            group.start_soon(parts.crisis.run)
            if self._failure is None:
                await self._start_mount(group)
                gc.freeze()
                gc.set_threshold(*COLLECT)
            if self._failure is None:
                ready(self.describe())
            await self._stopping.wait()
            logger.info("stopping")
            with anyio.CancelScope(shield=True), anyio.move_on_after(LAST_WORDS_S):
                await self._end()
            group.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure
        await parts.metadata.committer.finish()  # what waited longer than for a commit

    def describe(self) -> dict[str, object]:
        """Return what the commands that start a pod show."""
        parts = self.parts
        entry = parts.roster.roster.entry(parts.mesh.pod_id)
        return {
            "cluster": parts.roster.roster.cluster_name,
            "pod": "" if entry is None else entry.name,
            "mount": parts.mounts.directory,
            "address": parts.mesh.address,
            "pid": os.getpid(),
            "home": str(parts.home.path),
        }

    async def _catch_up(self) -> None:
        """Learn what happened meanwhile before anybody looks; not for long, since a pod must also start alone."""
        others = [pod for pod in self.parts.catalogue.full_pods() if pod != self.parts.mesh.pod_id]
        for wait_s in (FIRST_LINK_S, CATCH_UP_S - FIRST_LINK_S) if others else ():
            with anyio.move_on_after(wait_s) as self._catching_up:
                await self.parts.mesh.caught_up()
                return
            if self._stopping.is_set() or not self.parts.mesh.alive():
                return

    async def _start_mount(self, group: TaskGroup) -> None:
        self.parts.mounts.attach(group)
        if mount_point(self.parts.pod) is not None:
            await self.parts.mounts.mount()

    async def _end(self) -> None:
        """End in order: no more writes, everything durable, the others told."""
        parts = self.parts
        await parts.mounts.unmount(force=True)
        await parts.metadata.committer.durable()
        entry = parts.roster.roster.entry(parts.mesh.pod_id)
        if entry is not None and not entry.left and self._failure is None:
            await parts.mesh.announce_down()

    async def _signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                logger.info("received %s", signal.Signals(number).name)
                if number != signal.SIGHUP:
                    self._stopping.set()

    async def _supervised(self, name: str, part: Part, *, task_status: TaskStatus[None]) -> None:
        """Run a part that can be started anew without harm. If it can't start at all, the pod doesn't either."""
        first = FirstStart(task_status)
        for _ in range(RESTARTS):
            try:
                await part(first)
            except Exception:
                if not first.happened:
                    raise
                logger.exception("the %s failed and is started anew", name)
            await anyio.sleep(RESTART_AFTER_S)
        logger.error("the %s failed too often and stays down until the next start", name)

    async def _serve_control(self, task_status: TaskStatus[None]) -> None:
        await serve(self.parts.home.socket, handlers(self.parts), task_status=task_status)

    async def _gossip_room(self) -> None:
        """Tell the others how full this pod is."""
        limits, rooms = Told(), Told()
        while True:
            used, limit = self.parts.transfer.bytes_used(), limit_bytes(self.parts, limits)
            self._gossip({"bytes_used": used, "bytes_limit": limit, ROOM: room_bytes(self.parts, rooms)})
            self.parts.rates.note(time.monotonic(), *self.parts.transfer.bytes_moved())
            with anyio.move_on_at(beat.after(anyio.current_time(), GOSSIP_EVERY_S)):
                await self.parts.transfer.room_changed()

    def close(self) -> None:
        """Close all files."""
        parts = self.parts
        parts.transfer.close()
        parts.admissions.close()
        parts.metadata.close()
        parts.roster.close()


def tell(descriptor: int | None, message: dict[str, object]) -> None:
    """Write one line to whoever started this process."""
    if descriptor is not None:
        with suppress(OSError):
            os.write(descriptor, json.dumps(message).encode() + b"\n")
            os.close(descriptor)


def first_error(error: BaseException) -> BaseException:
    """Return the first error of nested groups, one that people can read if there is one."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    inner = [first_error(one) for one in error.exceptions]
    return next((one for one in inner if isinstance(one, WormholeError)), inner[0])


async def run_pod(home: Home, descriptor: int | None) -> None:
    """Run the pod of a home."""
    pod = Pod(home)
    try:
        await pod.run(lambda facts: tell(descriptor, {"ready": facts}))
    except BaseException:
        try:
            pod.close()
        except Exception:  # that is told which comes from what it failed of
            logger.exception("not everything could be closed")
        raise
    pod.close()


def main() -> int:
    """Run the pod of the home that the command line names; return the exit code."""
    parser = argparse.ArgumentParser(prog="pod", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--ready-fd", type=int)
    options = parser.parse_args()
    home = Home(options.home.absolute())
    os.environ[HOME_VARIABLE] = str(home.path)
    os.umask(0o077)
    few_pools()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    started = time.monotonic()
    try:
        if not home.identity.is_dir():
            raise NotRunningError(
                f"There is no pod in {home.path}.", "Make one with 'wormhole new' or 'wormhole join'."
            )
        lock = acquire(home)
        anyio.run(run_pod, home, options.ready_fd, backend="trio")
        os.close(lock)
    except BaseException as error:
        cause = first_error(error)
        known = cause if isinstance(cause, WormholeError) else damage(home, cause)
        if known is None:
            logger.exception("the pod failed")
            known = MachineError(f"The pod failed: {type(cause).__name__}: {cause}.", f"Look into {home.log}.")
        else:
            logger.error("%s", known)
        tell(options.ready_fd, {"error": to_wire(known)})
        return known.exit_code
    logger.info("stopped after %.0f s", time.monotonic() - started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
