"""Which clusters are announced on the network, and which pods to ask for a join. The choice is pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from base.errors import NotFoundError, RefusedError, UsageError
from base.ids import ClusterId
from discovery.code import Code
from discovery.mdns import browse
from discovery.refusals import ADMISSION_ADVICE
from discovery.service import Service

NO_CLUSTER_ADVICE = (
    "Check that a pod of it is up and on the same network, or name one with `wormhole join --peer HOST:PORT`."
)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster as announced; nothing of it is verified."""

    name: str
    id: ClusterId
    admission: str
    pods: tuple[Service, ...]
    """Its announced pods, by name; at least one."""

    @property
    def address(self) -> str:
        """``HOST:PORT`` of one of its pods."""
        return self.pods[0].endpoints[0]


async def nearby(timeout_s: float = 3.0, only: str | None = None) -> list[Cluster]:
    """Return the clusters seen on the network within ``timeout_s``, by name; ``only`` on that interface's address."""
    return clusters_of(await browse(timeout_s, only=only))


def clusters_of(services: Iterable[Service]) -> list[Cluster]:
    """Group announced pods into clusters; one whose pods disagree about the name shows up under each."""
    groups: dict[tuple[str, ClusterId], list[Service]] = {}
    for service in services:
        groups.setdefault((service.cluster_name, service.cluster_id), []).append(service)
    found = []
    for (name, cluster_id), pods in sorted(groups.items()):
        pods.sort(key=lambda service: (service.pod_name, service.pod_id))
        found.append(Cluster(name, cluster_id, pods[0].admission, tuple(pods)))
    return found


def issuer_of(services: Iterable[Service], code: Code, name: str | None) -> list[Service]:
    """Return the pods that carry the tag of ``code``.

    Raises `NotFoundError` when there is none, `UsageError` when they belong to another cluster than ``name``.
    """
    every = list(services)
    issuers = [service for service in every if service.tag == code.tag]
    if not issuers:
        seen = "no pod at all" if not every else "other pods only"
        raise NotFoundError(f"The pod that issued this code is not seen on this network ({seen}).", NO_CLUSTER_ADVICE)
    named = [service for service in issuers if _is_called(service, name)]
    if not named:
        raise UsageError(
            f"This code is for the cluster {issuers[0].cluster_name}, not for {name}.",
            "Leave the name out, or check it.",
        )
    return named


def cluster_without_code(
    clusters: list[Cluster], name: str | None, check: Callable[[ClusterId], None] = lambda cluster: None
) -> Cluster:
    """Return the one cluster meant by ``name`` (its name or id; None: the only one there is).

    ``check`` may refuse it by an error, before it is said that it takes a code. Raises `NotFoundError` when there is
    none, `RefusedError` when it lets nobody in, `UsageError` when there are several, or when it takes a code.
    """
    meant = [cluster for cluster in clusters if _is_called(cluster.pods[0], name)]
    if not meant:
        what = f"No cluster called {name}" if name else "No cluster"
        others = ", ".join(sorted({cluster.name for cluster in clusters}))
        also = f" (there are: {others})" if others else ""
        raise NotFoundError(f"{what} is seen on this network{also}.", NO_CLUSTER_ADVICE)
    if len(meant) > 1:
        listed = "; ".join(f"{cluster.name} {cluster.id} at {cluster.address}" for cluster in meant)
        raise UsageError(
            f"There are {len(meant)} clusters to choose from: {listed}.",
            "Name one by its id, `wormhole join ID`, or give its code, `--code CODE`.",
        )
    check(meant[0].id)
    if meant[0].admission == "closed":
        raise RefusedError(f"The cluster {meant[0].name} takes in no new pods.", ADMISSION_ADVICE)
    if meant[0].admission == "code":
        pods = ", ".join(service.pod_name for service in meant[0].pods[:4])
        raise UsageError(
            f"The cluster {meant[0].name} takes in new pods by a join code.",
            f"Run `wormhole invite` on one of its pods ({pods}) and type `wormhole join --code CODE` here.",
        )
    return meant[0]


def _is_called(service: Service, name: str | None) -> bool:
    return name is None or name in (service.cluster_name, service.cluster_id)
