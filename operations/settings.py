"""From the configuration in force to what the parts of a pod are built with."""

from __future__ import annotations

from pathlib import Path

from base.errors import ConfigError
from base.home import Home
from base.ids import PodId, WriterId, author_of
from crdt_meta.metadata import Roots
from crdt_meta.records import Strategy
from mesh.identity import Identity
from mesh.records import verify
from mesh.roster import Roster
from operations.rebirth import is_void
from policies.config import ClusterConfig, PodConfig, parse_cluster, parse_pod
from policies.forms import Share
from transfer.settings import CacheMode, TransferSettings
from transfer.store import Room


def read_configs(home: Home, roster: Roster) -> tuple[ClusterConfig, PodConfig]:
    """Return the configuration in force. Raises `ConfigError`."""
    try:
        text = home.pod_toml.read_text(encoding="utf-8")
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
    return parse_cluster(roster.config_toml()), parse_pod(text, str(home.pod_toml))


def engine_roots(identity: Identity, roster: Roster, cluster: ClusterConfig) -> Roots:
    """Return what the metadata engine must be told about the cluster."""

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
        wins = cluster.for_path(path).strategy == "last-writer-wins"
        return Strategy.LAST_WRITER_WINS if wins else Strategy.KEEP_BOTH

    versions = cluster.trash.versions
    return Roots(identity.sign, is_signed, pod_of_writer, pod_name_of, strategy_for, lambda: versions)


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
