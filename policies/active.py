"""Which keys this release honours. The others are read and checked in full, and change nothing yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from policies.config import level_of_document
from policies.document import load
from policies.forms import shown
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
            "redundancy.copies",
            "redundancy.absent_after",
            "conflicts.strategy",
            "trash.keep",
            "trash.versions",
            "rule.match",
            "rule.copies",
            "rule.cache",
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
            "cache.mode",
            "cache.copy_below",
            "cache.copy_after_reads",
            "cache.limit",
            "network.deadline",
            "rule.match",
            "rule.cache",
        }
    ),
}
"""The keys whose behaviour is built."""

INACTIVE_VALUES: dict[tuple[str, str], str] = {("cluster.admission", "approve"): "closed"}
"""Values of active keys whose behaviour isn't built, and which value they act as."""

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
    for key, path, value in _set_keys(document.tree):
        line = document.lines.of(path)
        if key not in all_keys(level):
            continue
        if key not in ACTIVE[level]:
            found.append((line, f"{called}:{line}: {key}: not active yet"))
        elif isinstance(value, str) and (key, value) in INACTIVE_VALUES:
            acts_as = shown(INACTIVE_VALUES[key, value])
            found.append((line, f"{called}:{line}: {key}: not active yet: {shown(value)} acts as {acts_as}"))
    return [text for _, text in sorted(found, key=lambda entry: entry[0])]


def _set_keys(tree: dict[str, Any]) -> Iterator[tuple[str, Path, object]]:
    """Give full name, place and value of each key within a section or rule."""
    for name, table in tree.items():
        if isinstance(table, dict):
            for key, value in table.items():
                yield f"{name}.{key}", (name, key), value
        elif name == RULE and isinstance(table, list):
            for index, rule in enumerate(table):
                if isinstance(rule, dict):
                    for key, value in rule.items():
                        yield f"{name}.{key}", (name, index, key), value
