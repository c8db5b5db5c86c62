"""Whether a configuration that is good by itself fits the cluster or the pod that it is meant for. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from policies.config import ClusterConfig, PodConfig
from policies.document import Problems, load
from policies.forms import closest, shown


def check_cluster(text: str, config: ClusterConfig, file: str, name: str) -> None:
    """Raise `ConfigError` when a text says another name than that of the cluster."""
    if config.cluster.name not in ("", name):
        problems = Problems(file, load(text, file).lines)
        said = f"is {shown(config.cluster.name)}, but the cluster is called {shown(name)} and keeps its name"
        problems.add(("cluster", "name"), "cluster.name", said, shown(name))
        problems.raise_if_any()


def check_pod(text: str, config: PodConfig, file: str, name: str) -> None:
    """Raise `ConfigError` when a text says another name than that which the pod was admitted with."""
    if config.pod.name not in ("", name):
        problems = Problems(file, load(text, file).lines)
        said = f"is {shown(config.pod.name)}, but the pod was admitted as {shown(name)} and keeps its name"
        problems.add(("pod", "name"), "pod.name", said, shown(name))
        problems.raise_if_any()


def unknown_administrators(
    config: ClusterConfig, full: Collection[str], others: Collection[str], by_id_only: Mapping[str, str]
) -> list[str]:
    """Return a sentence for each listed administrator that is none now.

    ``full`` are names and ids of full members, ``others`` those of pods that are none. Names in ``by_id_only`` (name ->
    id) were chosen by pods that came in by open admission: they mean nobody.
    """
    found: list[str] = []
    for one in config.cluster.administrators:
        if one == "*" or one in full:
            continue
        if one in by_id_only:
            found.append(
                f"cluster.administrators: {shown(one)} came in by open admission and administers only if its id is "
                f"listed: {by_id_only[one]}."
            )
            continue
        if one in others:
            found.append(f"cluster.administrators: {shown(one)} is no full member, so it can't administer.")
            continue
        meant = closest(one, sorted(full))
        found.append(
            f"cluster.administrators: no full pod is called {shown(one)} yet; the first that joins under that name "
            f"will administer{f' (did you mean {meant}?)' if meant else ''}."
        )
    return found
