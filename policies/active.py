"""Which keys this release honours. The others are read and checked in full, and change nothing yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from policies.config import level_of_document
from policies.document import load
from policies.locate import Path
from policies.schema import RULE, Level, all_keys

ACTIVE: dict[Level, frozenset[str]] = {
    "cluster": frozenset(
        {
            "cluster.name",
            "cluster.admission",
            "cluster.allow",
            "cluster.deny",
            "cluster.administrators",
            "cluster.forget_after",
            "cluster.storage_limit",
            "redundancy.acknowledge",
            "redundancy.copies",
            "redundancy.fan_out",
            "redundancy.interval",
            "redundancy.profile",
            "redundancy.replicate",
            "redundancy.settle",
            "redundancy.absent_after",
            "redundancy.repair_after",
            "redundancy.repair_limit",
            "conflicts.strategy",
            "continuity.favourable",
            "continuity.degraded",
            "continuity.critical",
            "continuity.throttle",
            "continuity.least_copies",
            "trash.keep",
            "trash.versions",
            "rule.match",
            "rule.copies",
            "rule.cache",
            "rule.read_only",
            "rule.strategy",
        }
    ),
    "pod": frozenset(
        {
            "pod.name",
            "pod.mount",
            "pod.ownership",
            "pod.listen",
            "pod.advertise",
            "pod.peers",
            "pod.discovery",
            "storage.limit",
            "affinity.replicas",
            "affinity.new_files",
            "affinity.hot",
            "affinity.cold",
            "cache.mode",
            "cache.copy_below",
            "cache.copy_after_reads",
            "cache.limit",
            "disconnected.reaction",
            "disconnected.quorum",
            "disconnected.notify",
            "network.upload_limit",
            "network.download_limit",
            "network.deadline",
            "rule.match",
            "rule.keep",
            "rule.cache",
        }
    ),
}
"""The keys whose behaviour is built."""

LATER: dict[str, str] = {
    "pod.listen": "at the next `wormhole up`",
    "pod.mount": "at the next `wormhole up`",
    "pod.ownership": "when the tree is mounted the next time",
}
"""Active keys that a running pod doesn't take over at once, and when it does."""


def inactive(text: str, file: str = "") -> list[str]:
    """Return a line ``FILE:LINE: key: not active yet`` for each key set in ``text`` that changes nothing yet.

    ``file`` is how the lines call the text; by default ``cluster.toml`` or ``pod.toml``. Unknown keys are left to the
    parser. Raises `ConfigError` when the text isn't TOML.
    """
    document = load(text, file or "the configuration")
    level = level_of_document(document)
    called = file or f"{level}.toml"
    found: list[tuple[int, str]] = []
    for key, path in _set_keys(document.tree):
        line = document.lines.of(path)
        if key in all_keys(level) and key not in ACTIVE[level]:
            found.append((line, f"{called}:{line}: {key}: not active yet"))
    return [text for _, text in sorted(found, key=lambda entry: entry[0])]


def _set_keys(tree: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    """Give full name and place of each key within a section or rule."""
    for name, table in tree.items():
        if isinstance(table, dict):
            for key in table:
                yield f"{name}.{key}", (name, key)
        elif name == RULE and isinstance(table, list):
            for index, rule in enumerate(table):
                if isinstance(rule, dict):
                    for key in rule:
                        yield f"{name}.{key}", (name, index, key)
