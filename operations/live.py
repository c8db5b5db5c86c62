"""The configuration in force on a running pod: changes of the cluster's are noticed and taken over by every part.

The roster decides which version is in force (`mesh.configuration`); here it takes effect. A version that this pod can't
read leaves the last one in force. Nothing is started anew.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

from base.errors import ConfigError, MachineError
from base.ids import PodId, pod_id_of
from crdt_meta.metadata import Metadata
from mesh.configuration import Version
from mesh.records import RecordId
from operations.housekeeping import Housekeeping
from operations.parts import Parts
from operations.rendering import Rendering
from operations.settings import mount_point, transfer_settings, usable_configuration
from operations.tidying import Cluster
from policies.changing import Change, changes, written
from policies.config import ClusterConfig, PodConfig, parse_cluster

SHOWN_CHANGES: Final = 8
META_SETTLED: Final = "config_settled"
MAX_SETTLED: Final = 1_000
MAX_LOST: Final = 50

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lost:
    """A version that somebody signed and that lost against another one made at the same time."""

    version: Version
    winner: Version
    changes: list[Change]
    """What it changed that isn't in force: each with what it wanted as ``new`` and what is in force as ``old``."""


class MetadataNotes:
    """Implements `operations.rendering.Notes` in the metadata's database."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    def get(self, key: str) -> bytes | None:
        """Return a value."""
        return self._metadata.store.get_meta(key)

    def put(self, key: str, value: bytes) -> None:
        """Keep a value; it is on the disk with the next commit."""
        if value != self.get(key):
            self._metadata.store.set_meta(key, value)
            self._metadata.committer.request()


class LiveConfiguration:
    """What is in force on this pod, and what follows when that changes."""

    def __init__(self, parts: Parts, tidying: Cluster, housekeeping: Housekeeping) -> None:
        self._parts = parts
        self._tidying = tidying
        self._housekeeping = housekeeping
        self._notes = MetadataNotes(parts.metadata)
        self.rendering = Rendering(parts.home.cluster_toml, self._notes)
        self.changing = anyio.Lock()
        """Held while a change is made here, so that each follows the one before."""
        self.problem = ""
        """Why the version in force isn't taken over; empty when it is."""
        self._seen: RecordId | None = None
        self._told: set[RecordId] = set()
        self._announce = anyio.Event()
        self._pod_text = _text_or_none(parts.home.pod_toml)

    # -- noticing

    def start(self) -> None:
        """Begin to follow the roster; what is in force now was taken over when the parts were built."""
        pace(self._parts)
        usable = usable_configuration(self._parts.roster.roster)
        self.problem = usable.problem
        self._seen = self._parts.roster.roster.config_id()
        self._render()
        self._tell_lost()
        self._parts.mesh.on_change(self.look)

    def look(self) -> None:
        """Take over the version in force if it is another one than before."""
        roster = self._parts.roster.roster
        if roster.config_id() == self._seen:
            return
        self._seen = roster.config_id()
        usable = usable_configuration(roster)
        self.problem = usable.problem
        version = usable.version
        if usable.problem:
            logger.warning("the configuration in force can't be read, an older one stays: %s", usable.problem)
        found = changes(self._parts.cluster, usable.config)
        by = self.name_of(version.signer) if version else "nobody"
        logger.info("configuration %s by %s: %s", roster.config_id().hex()[:8], by, summary(found))
        if found:
            self._take_cluster(usable.config, found)
        self._render()
        self._tell_lost()

    def _render(self) -> None:
        text = self._parts.roster.roster.config_toml()
        try:
            written = self.rendering.render(text)
        except MachineError as error:
            logger.warning("%s", error)
        else:
            if not written:
                logger.warning("%s was edited and is left as it is", self.rendering.path)

    # -- taking over

    def _take_cluster(self, config: ClusterConfig, found: list[Change]) -> None:
        parts = self._parts
        before, parts.cluster = parts.cluster, config
        parts.catalogue.configure(config, parts.pod)
        self._tidying.forget_after_s = config.cluster.forget_after_s
        self._housekeeping.set_keep(config.trash.keep_s)
        pace(parts)
        if config.redundancy.absent_after_s != before.redundancy.absent_after_s:
            parts.mesh.set_absent_after(config.redundancy.absent_after_s)
        if any(change.key in _PLACING or change.key.startswith("rule[") for change in found):
            parts.tallies.forget()
            parts.transfer.reconsider()
        if config.cluster.admission != before.cluster.admission:
            self._announce.set()

    def take_pod(self, config: PodConfig, text: str) -> None:
        """Take over another pod.toml as far as that is possible while the pod runs. Raises `UsageError`."""
        self._pod_text = text
        parts = self._parts
        before = parts.pod
        if (before.pod.advertise, before.pod.peers) != (config.pod.advertise, config.pod.peers):
            parts.mesh.set_addresses(config.pod.advertise, config.pod.peers)
        parts.pod = config
        parts.catalogue.configure(parts.cluster, config)
        parts.transfer.configure(transfer_settings(config, keeps=self._parts.editor is None))
        parts.mounts.configure(mount_point(config), config.network.deadline_s)
        parts.crisis.stir()
        parts.wishes_changed()
        if (before.pod.advertise, before.pod.discovery) != (config.pod.advertise, config.pod.discovery):
            self._announce.set()
        if found := changes(before, config):
            logger.info("pod.toml: %s", summary(found))

    async def announced_otherwise(self) -> None:
        """Return once what this pod announces on the network has changed."""
        await self._announce.wait()
        self._announce = anyio.Event()

    # -- what lost

    def name_of(self, pod: PodId) -> str:
        """Return a pod's name, or its id; the recovery key signs, too."""
        roster = self._parts.roster.roster
        entry = roster.entry(pod)
        if entry is None and roster.recovery_key and pod == pod_id_of(roster.recovery_key):
            return "the recovery key"
        return str(pod) if entry is None else entry.name

    def lost(self) -> list[Lost]:
        """Return the versions that lost, wanted what isn't in force, and weren't settled here; the last of them."""
        known = self._parts.roster.roster.configuration()
        settled = set(self._settled())
        versions = {version.id: version for version in (*known.chain, *known.lost)}
        following = {version.config.parent: version for version in known.chain}
        found: list[Lost] = []
        for version in known.lost:
            if version.id in settled:
                continue
            fork = version
            while fork.config.parent and fork.config.parent not in known:
                fork = versions[fork.config.parent]
            parent = versions.get(version.config.parent)
            missing = self._missing(parent, version)
            if missing:
                found.append(Lost(version, following[fork.config.parent], missing))
        return found[-MAX_LOST:]

    def _missing(self, parent: Version | None, version: Version) -> list[Change]:
        """Return what a version changed and that isn't in force."""
        before, wanted = _readable(parent), _readable(version)
        if wanted is None:
            return []
        own = {change.key: change.new for change in changes(before or ClusterConfig(), wanted)}
        return [
            change
            for change in changes(self._parts.cluster, wanted)
            if change.key in own and own[change.key] == change.new
        ]

    def lost_here(self) -> list[Lost]:
        """Return those of `lost` that this pod signed, until it has signed one that follows the winner."""
        me, chain = self._parts.mesh.pod_id, self._parts.roster.roster.configuration().chain
        last = max((place for place, one in enumerate(chain) if one.signer == me), default=-1)
        return [one for one in self.lost() if one.version.signer == me and chain.index(one.winner) > last]

    def settle_lost(self) -> None:
        """Say that a person has seen what lost."""
        ids = [*self._settled(), *(one.version.id for one in self.lost())]
        self._notes.put(META_SETTLED, b"".join(dict.fromkeys(ids[-MAX_SETTLED:])))

    def _settled(self) -> list[RecordId]:
        kept = self._notes.get(META_SETTLED) or b""
        return [kept[start : start + 16] for start in range(0, len(kept), 16)]

    def _tell_lost(self) -> None:
        for one in self.lost_here():
            if one.version.id not in self._told:
                self._told.add(one.version.id)
                name = self.name_of(one.winner.signer)
                logger.warning(
                    "a change of the configuration made here lost against one by %s: %s", name, wanted_text(one)
                )

    # -- for people

    def warnings(self) -> list[str]:
        """Return what a person should know, one sentence each."""
        found: list[str] = []
        if self.problem:
            found.append(f"The configuration in force can't be read by this version of Wormhole: {self.problem}.")
        for one in self.lost_here():
            name = self.name_of(one.winner.signer)
            found.append(
                f"A change of the configuration made here lost against one by {name} made at the same time: "
                f"{wanted_text(one)}. See `wormhole config lost`."
            )
        if self.rendering.is_edited(self._parts.roster.roster.config_toml()):
            found.append(
                f"{self.rendering.path} was edited and is not in force. Apply it with `wormhole config apply "
                f"{self.rendering.path}`, or undo it with `wormhole config export > {self.rendering.path}`."
            )
        path = self._parts.home.pod_toml
        if _text_or_none(path) != self._pod_text:
            found.append(
                f"{path} was edited since this pod read it. Put it in force with `wormhole config apply {path} "
                "--pod-level`, or at the next `wormhole up`."
            )
        return found


def pace(parts: Parts) -> None:
    """Have new contents copied when and how the configuration says, and no more taken than it offers."""
    wanted = parts.cluster.redundancy
    parts.transfer.pace(wanted.replicate, wanted.settle_s, wanted.interval_s)
    parts.transfer.set_fan_out(wanted.fan_out)
    parts.transfer.quota.tree_bytes = lambda: parts.metadata.tree.totals().bytes
    parts.transfer.quota.limit_bytes = parts.cluster.cluster.storage_limit_bytes


_PLACING: Final = frozenset({"redundancy.copies"})


def summary(found: list[Change]) -> str:
    """Return changes on one line of a log."""
    if not found:
        return "comments and layout"
    more = f" and {len(found) - SHOWN_CHANGES} more" if len(found) > SHOWN_CHANGES else ""
    return ", ".join(map(str, found[:SHOWN_CHANGES])) + more


def wanted_text(one: Lost) -> str:
    """Return what a lost version wanted, on one line."""
    return ", ".join(f"{change.key} = {_short(change.new)}" for change in one.changes[:SHOWN_CHANGES])


def _short(value: object) -> str:
    text = written(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _text_or_none(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return None


def _readable(version: Version | None) -> ClusterConfig | None:
    try:
        return None if version is None else parse_cluster(version.config.toml)
    except ConfigError:
        return None
