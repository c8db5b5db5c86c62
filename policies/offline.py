"""What will work on a pod without a network, and why something won't, in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from policies.schema import ClusterConfig, PodConfig
from policies.units import format_size


@dataclass(frozen=True, slots=True)
class Missing:
    """A file of which not everything is on this pod."""

    size: int
    """Bytes of it."""
    keep: bool
    """Whether this pod is to keep it."""
    here: Sequence[str]
    """Names of the pods that have it and answer."""
    away: Sequence[str]
    """Names of those that have it and don't."""
    free_bytes: int
    """Room on this pod."""

    @property
    def may_come(self) -> bool:
        """Whether waiting may help."""
        return self.keep and bool(self.here) and self.free_bytes >= self.size

    @property
    def reason(self) -> str:
        """Why it isn't here."""
        if not self.keep:
            return "its own attribute user.wormhole.keep, or a later rule of pod.toml, says not to keep it here"
        if self.free_bytes < self.size:
            return f"no room: {format_size(self.free_bytes)} are free here"
        if self.here:
            return f"not fetched yet from {_names(self.here)}"
        if self.away:
            return f"only on {_names(self.away)}, which can't be reached"
        return "no pod is known to have it"


@dataclass(frozen=True, slots=True)
class Changes:
    """What can be changed without a network."""

    answer: str
    """``yes``, ``read-only``, or ``no``: not even read."""
    reason: str


def changes(pod: PodConfig, *, is_client: bool, is_alone: bool) -> Changes:
    """Say what can be changed; ``is_alone``: the cluster has no other counted pod, so that this one is never cut off."""
    if is_client:
        return Changes("read-only", "a client pod needs a full pod for every change")
    reaction = "continue" if is_alone else pod.disconnected.reaction
    match reaction:
        case "freeze":
            return Changes("read-only", 'disconnected.reaction = "freeze" in pod.toml')
        case "stop":
            return Changes("no", 'disconnected.reaction = "stop" in pod.toml: the pod stops when it is cut off')
    return Changes("yes", "changes stay on this pod and go to the others once they can be reached")


def cautions(cluster: ClusterConfig, *, is_client: bool, mount: str | None) -> list[str]:
    """Return what else would surprise somebody, one sentence each."""
    found: list[str] = []
    needed = cluster.redundancy.acknowledge
    if needed > 1 and not is_client:
        found.append(
            f"Programs that insist on fsync fail (EIO), since redundancy.acknowledge = {needed} pods can't be asked."
        )
    if mount is None:
        found.append("The tree is not mounted on this pod: type `wormhole mount` before you leave, or later.")
    return found


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + (f" and {names[-1]}" if len(names) > 1 else names[-1])
