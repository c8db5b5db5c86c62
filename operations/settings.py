"""From the configuration in force to what the parts of a pod are built with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from base.errors import ConfigError
from base.home import Home
from base.ids import PodId, WriterId, author_of
from crdt_meta.metadata import Roots
from crdt_meta.records import Strategy
from discovery.admission import AdmissionPolicy
from mesh.configuration import Version
from mesh.identity import Identity
from mesh.records import verify
from mesh.roster import Roster
from operations.rebirth import is_void
from policies.config import ClusterConfig, PodConfig, parse_cluster, parse_pod
from policies.forms import Share
from transfer.settings import CacheMode, TransferSettings
from transfer.store import Room


@dataclass(frozen=True, slots=True)
class Usable:
    """The newest version of the cluster's configuration that this pod understands."""

    config: ClusterConfig
    version: Version | None
    """None: there is none at all, and defaults are in force."""
    problem: str = ""
    """Why the version in force isn't taken; empty when it is."""


def usable_configuration(roster: Roster) -> Usable:
    """Return the configuration in force, or the last one before it that can be read.

    An administrator's newer Wormhole may write what this one doesn't know, and must not stop it.
    """
    problem = ""
    for version in reversed(roster.configuration().chain):
        try:
            return Usable(parse_cluster(version.config.toml), version, problem)
        except ConfigError as error:
            problem = problem or error.message.splitlines()[0]
    return Usable(ClusterConfig(), None, problem)


def read_pod_toml(home: Home) -> PodConfig:
    """Return what pod.toml says. Raises `ConfigError`."""
    return parse_pod(pod_text(home), str(home.pod_toml))


def pod_text(home: Home) -> str:
    """Return the text of pod.toml. Raises `ConfigError`."""
    try:
        return home.pod_toml.read_bytes().decode()
    except FileNotFoundError:
        advice = "Write one; 'wormhole config show --pod-level' on another pod names the keys."
        raise ConfigError(f"{home.pod_toml} is missing.", advice) from None
    except UnicodeDecodeError:
        raise ConfigError(
            f"{home.pod_toml} is not UTF-8 text.", "Write it anew, or restore it from a backup."
        ) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"{home.pod_toml} can't be read: {reason}.", "Check its rights and the disk.") from error


def engine_roots(identity: Identity, roster: Roster, cluster: Callable[[], ClusterConfig]) -> Roots:
    """Return what the metadata engine must be told about the cluster; ``cluster`` returns the configuration of now."""

    def is_signed(writer: WriterId, signature: bytes, data: bytes) -> bool:
        pod = roster.writer_pod(writer)
        key = None if pod is None else roster.public_key(pod)
        return key is not None and verify(key, signature, data) and not is_void(roster, writer, data)

    authors: dict[WriterId, PodId] = {}

    def pod_of_writer(writer: WriterId) -> PodId | None:
        found = roster.writer_pod(writer) or authors.get(writer)
        if found is None:
            authors.update((author_of(pod), pod) for pod in roster.pods() if roster.is_client(pod))
            found = authors.get(writer)
        return found

    def pod_name_of(writer: WriterId) -> str:
        pod = pod_of_writer(writer)
        entry = None if pod is None else roster.entry(pod)
        return writer.hex()[:8] if entry is None else entry.name

    def strategy_for(path: str) -> Strategy:
        wins = cluster().for_path(path).strategy == "last-writer-wins"
        return Strategy.LAST_WRITER_WINS if wins else Strategy.KEEP_BOTH

    def versions() -> int:
        return cluster().trash.versions

    return Roots(identity.sign, is_signed, pod_of_writer, pod_name_of, strategy_for, versions)


def admission_policy(cluster: ClusterConfig) -> AdmissionPolicy:
    """Return what the configuration says about who may join."""
    return AdmissionPolicy(cluster.cluster.admission, cluster.cluster.allow, cluster.cluster.deny)


def transfer_settings(pod: PodConfig, *, keeps: bool = True) -> TransferSettings:
    """Return the byte store's settings; ``keeps``: whether copies are kept, not on a client pod."""
    limit = pod.storage.limit
    room = Room(full_share=limit.percent / 100) if isinstance(limit, Share) else Room(limit_bytes=limit)
    return TransferSettings(
        keeps=keeps,
        deadline_s=pod.network.deadline_s,
        cache_mode=CacheMode(pod.cache.mode),
        copy_below_bytes=pod.cache.copy_below_bytes,
        copy_after_reads=pod.cache.copy_after_reads,
        cache_limit_bytes=pod.cache.limit_bytes,
        room=room,
    )


def mount_point(pod: PodConfig) -> Path | None:
    """Return where the tree is to be mounted."""
    return Path(pod.pod.mount).expanduser().absolute() if pod.pod.mount else None
