"""Configuration texts read and checked in full: the one way from TOML to `ClusterConfig` and `PodConfig`.

Everything that is wrong is told at once, each as ``FILE:LINE: key: what is wrong; did you mean ...``. A text is either
taken whole or refused whole.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

from msgspec.structs import replace

from policies.document import Document, Problems, dotted, load
from policies.forms import Share, ValueProblem, closest, shown
from policies.schema import (
    CONFIGS,
    MAX_RULES,
    PROFILES,
    RULE,
    RULES,
    Cache,
    ClusterConfig,
    ClusterRule,
    FilePolicy,
    Key,
    Level,
    PodConfig,
    PodFilePolicy,
    PodRule,
    Redundancy,
    Section,
    all_keys,
    keys,
    sections,
)
from policies.units import format_size

__all__ = [
    "ClusterConfig",
    "ClusterRule",
    "FilePolicy",
    "Level",
    "PodConfig",
    "PodFilePolicy",
    "PodRule",
    "level_of",
    "parse",
    "parse_cluster",
    "parse_pod",
]

_S = TypeVar("_S", bound=Section)


def parse_cluster(text: str, file: str = "cluster.toml") -> ClusterConfig:
    """Return the cluster's configuration; ``file`` is how messages call it. Raises `ConfigError` with all errors."""
    return cast("ClusterConfig", _read(load(text, file), "cluster"))


def parse_pod(text: str, file: str = "pod.toml") -> PodConfig:
    """Return a pod's configuration; ``file`` is how messages call it. Raises `ConfigError` with all errors."""
    return cast("PodConfig", _read(load(text, file), "pod"))


def parse(text: str, file: str) -> ClusterConfig | PodConfig:
    """Return the configuration of the level that the sections tell. Raises `ConfigError` with all errors."""
    document = load(text, file)
    return _read(document, level_of_document(document))


def level_of(text: str, file: str = "the configuration") -> Level:
    """Return which level a text is of, by its sections; a text that doesn't tell is the cluster's.

    Raises `ConfigError` when the text isn't TOML.
    """
    return level_of_document(load(text, file))


def level_of_document(document: Document) -> Level:
    """Return a loaded text's level; its sections count, the keys of its rules, and else slips of either."""
    votes: dict[Level, int] = {"cluster": 0, "pod": 0}
    own: dict[Level, set[str]] = {level: set(sections(level)) for level in votes}
    rule_keys: dict[Level, set[str]] = {"cluster": {"copies", "read_only", "strategy"}, "pod": {"keep"}}
    rules = document.tree.get(RULE)
    said = {key for rule in rules if isinstance(rule, dict) for key in rule} if isinstance(rules, list) else set()
    for level in votes:
        votes[level] = 2 * len(own[level] & document.tree.keys()) + len(rule_keys[level] & said)
    if votes["cluster"] == votes["pod"] == 0:
        for name in list(document.tree)[:100]:
            meant = closest(name, sorted(own["cluster"] | own["pod"]))
            for level in votes:
                votes[level] += meant in own[level]
    return "pod" if votes["pod"] > votes["cluster"] else "cluster"


def _read(document: Document, level: Level) -> ClusterConfig | PodConfig:
    reader = _Reader(document, level)
    config = reader.run()
    reader.problems.raise_if_any()
    return config


class _Reader:
    """Reads one document; every problem goes to ``problems``, a default stands in for the bad value."""

    def __init__(self, document: Document, level: Level) -> None:
        self.tree = document.tree
        self.level: Level = level
        self.other: Level = "pod" if level == "cluster" else "cluster"
        self.problems = Problems(document.file, document.lines)
        self.bad: set[str] = set()

    def run(self) -> ClusterConfig | PodConfig:
        known = sections(self.level)
        for name in self.tree:
            if name not in known and name != RULE:
                self._unknown_section(name)
        values: dict[str, Any] = {name: self._section(name, section) for name, section in known.items()}
        values["rules"] = self._rules()
        config = CONFIGS[self.level](**values)
        if isinstance(config, PodConfig):
            return self._within_storage(config)
        self._check_cluster(config)
        return config

    def _unknown_section(self, name: str) -> None:
        known = [*sections(self.level), RULE]
        what = "section" if isinstance(self.tree[name], dict) else "key"
        if self.problems.full:
            self.problems.add((name,), "", "")
        elif name in sections(self.other):
            self.problems.add((name,), name, f"belongs to {self.other}.toml, and this is a {self.level}.toml")
        else:
            meant = closest(name, known)
            hint = (f"[[{meant}]]" if meant == RULE else f"[{meant}]") if meant else self._key_elsewhere(name)
            self.problems.add((name,), dotted(name), f"unknown {what}", hint)

    def _key_elsewhere(self, key: str) -> str:
        return next((full for full in sorted(all_keys(self.level)) if full.partition(".")[2] == key), "")

    def _section(self, name: str, section: type[Section]) -> Section:
        said = self.tree.get(name, {})
        if not isinstance(said, dict):
            brackets = f"[{name}]" if isinstance(said, list) else ""
            self.problems.add((name,), name, f"must be a section, not {shown(said)}", brackets)
            return section()
        values = self._values(section, said, (name,), name)
        if section is Redundancy:
            values = {**PROFILES[values.get("profile", "safe")], **values}
        return section(**values)

    def _values(
        self, section: type[Section], said: dict[str, Any], path: tuple[str | int, ...], name: str
    ) -> dict[str, Any]:
        """Return the good values of a table by attribute."""
        known = keys(section)
        values: dict[str, Any] = {}
        for key, value in said.items():
            if key not in known:
                self._unknown_key(key, known, path, name)
                continue
            try:
                values[known[key].attribute] = known[key].form.read(value)
            except ValueProblem as problem:
                self.bad.add(f"{name}.{key}")
                self.problems.add((*path, key), f"{name}.{key}", problem.text, problem.hint)
        return values

    def _unknown_key(self, key: str, known: dict[str, Key], path: tuple[str | int, ...], name: str) -> None:
        text, hint = "unknown key", ""
        if self.problems.full:
            pass
        elif f"{name}.{key}" in all_keys(self.other):
            text = f"belongs to {self.other}.toml, and this is a {self.level}.toml"
        elif key in sections(self.level):
            hint = f"[{key}]"
        elif key == RULE:
            hint = f"[[{RULE}]]"
        else:
            hint = closest(key, tuple(known)) or self._key_elsewhere(key)
        self.problems.add((*path, key), dotted(name, key), text, hint)

    def _rules(self) -> tuple[Section, ...]:
        said = self.tree.get(RULE, [])
        if not isinstance(said, list) or not all(isinstance(rule, dict) for rule in said):
            self.problems.add((RULE,), RULE, "must be a list of sections", f"[[{RULE}]]")
            return ()
        if len(said) > MAX_RULES:
            self.problems.add((RULE, MAX_RULES), RULE, f"there are {len(said)} rules, more than {MAX_RULES}")
            said = said[:MAX_RULES]
        rules: list[Section] = []
        for index, table in enumerate(said):
            before = len(self.problems.found)
            values = self._values(RULES[self.level], table, (RULE, index), RULE)
            if "match" not in table:
                self.problems.add((RULE, index), f"{RULE}.match", 'is missing; a rule needs one, such as "photos/**"')
            if len(self.problems.found) == before and not self.problems.full:
                rules.append(RULES[self.level](**values))
        return tuple(rules)

    def _said(self, section: str, key: str) -> bool:
        table = self.tree.get(section)
        return isinstance(table, dict) and key in table

    def _check_cluster(self, config: ClusterConfig) -> None:
        """Refuse what asks of every file more copies than any file has."""
        if self.bad & {"redundancy.copies", f"{RULE}.copies"}:
            return
        most = max([config.redundancy.copies, *(rule.copies for rule in config.rules if rule.copies)])
        for section, key, value, why in (
            ("redundancy", "acknowledge", config.redundancy.acknowledge, "so fsync would never return"),
            ("continuity", "least_copies", config.continuity.least_copies, "so the floor lies above what is wanted"),
        ):
            if value > most:
                text = f"is {value} but no file has more copies than {most}, {why}"
                self.problems.add((section, key), f"{section}.{key}", text)

    def _within_storage(self, config: PodConfig) -> PodConfig:
        """Keep the cache's limit within the store's: a default gives way, which may be written down; another contradicts."""
        limit, cache = config.storage.limit, config.cache.limit_bytes
        if isinstance(limit, Share) or cache <= limit:
            return config
        if not self._said("cache", "limit") or cache == Cache().limit_bytes:
            return replace(config, cache=replace(config.cache, limit_bytes=limit))
        if "cache.limit" not in self.bad:
            sizes = f'is "{format_size(cache)}" but lies within storage.limit, which is "{format_size(limit)}"'
            self.problems.add(("cache", "limit"), "cache.limit", sizes)
        return config
