"""Founding a cluster: the first pod's identity, the founding record and the first configuration."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from base.errors import MachineError
from base.home import Home
from base.ids import ClusterId, PodId
from discovery.draft import drafted
from discovery.names import checked_name
from mesh.api import Role
from mesh.identity import Identity
from mesh.records import EVERYBODY, Config, Found, cluster_id_of, seal
from mesh.recovery import RECOVERY_KEY, RecoveryKey
from mesh.roster_store import RosterStore


@dataclass(frozen=True, slots=True)
class Founded:
    """A new cluster and its first pod."""

    cluster: str
    cluster_id: ClusterId
    pod: PodId
    pod_name: str
    recovery_key: Path
    """Where the cluster's recovery key lies until somebody takes it away."""


def found(
    home: Home,
    cluster_name: str,
    pod_name: str,
    cluster_toml: str,
    now: float,
    administrators: Iterable[str] = (EVERYBODY,),
) -> Founded:
    """Found a cluster in ``home`` and leave its identity and roster there, or nothing at all. Blocks for fsyncs.

    ``cluster_toml`` is the checked text of cluster.toml, ``administrators`` whom it names; ``now`` the wall clock in
    seconds. The cluster's recovery key is written beside the identity. Raises `UsageError` for names that won't do,
    `RefusedError` when the home has a pod, `MachineError` when the files can't be made.
    """
    cluster_name, pod_name = checked_name(cluster_name, "cluster"), checked_name(pod_name, "pod")
    time_ns = int(now * 1e9)
    with drafted(home) as draft:
        identity = Identity.create(draft.identity, role=Role.FULL)
        issuing = identity.issuing_certificate
        assert issuing is not None
        recovery = RecoveryKey.create()
        nonce = secrets.token_bytes(16)
        founding = Found(
            *(cluster_name, nonce, pod_name, identity.public_key, issuing, time_ns), recovery=recovery.public_key
        )
        founding_record = seal(founding, "", identity.pod_id, identity.sign)
        cluster = cluster_id_of(founding_record)
        named = {str(identity.pod_id) if name == pod_name else name for name in administrators}
        listed = (EVERYBODY,) if EVERYBODY in named else tuple(sorted(named))
        config_record = seal(Config(b"", cluster_toml, time_ns, listed), cluster, identity.pod_id, identity.sign)
        identity.install_certificate(identity.issue(identity.public_key, cluster, Role.FULL))
        try:
            recovery.save(draft.identity / RECOVERY_KEY, f"{cluster_name} ({cluster})")
        except OSError as error:
            raise MachineError(f"The recovery key can't be written: {error.strerror}.", "Check the disk.") from error
        store = RosterStore(draft.roster_db)
        try:
            added = store.add([founding_record, config_record])
        finally:
            store.close()
        assert len(added) == 2, "the roster refused its own first records"
    return Founded(cluster_name, cluster, identity.pod_id, pod_name, home.identity / RECOVERY_KEY)
