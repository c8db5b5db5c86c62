"""The sections of cluster.toml and pod.toml as frozen values: each key's type, check and default in one line.

A field's name is the key's with its unit behind it (``deadline`` → ``deadline_s``). Sizes are in bytes, durations in
seconds, rates in bytes a second; ``None`` stands for ``"none"``, in a rule for "not said". Build configurations with
`policies.config`, which checks them; the constructors here don't.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_type_hints

from msgspec import NODEFAULT, Struct, field
from msgspec.structs import fields as struct_fields

from policies import forms
from policies.forms import Form, Share
from policies.patterns import MEMO_LIMIT, RuleBook

Level = Literal["cluster", "pod"]
Admission = Literal["open", "code", "approve", "closed"]
Profile = Literal["safe", "speed"]
Replicate = Literal["instant", "settled", "interval"]
Strategy = Literal["last-writer-wins", "keep-both"]
Reaction = Literal["continue", "throttle", "freeze", "fewer-copies", "stop"]
Ownership = Literal["mine", "kept"]
CacheMode = Literal["stream", "copy", "auto"]
CutOffReaction = Literal["continue", "freeze", "stop"]
Quorum = Literal["half", "any"]

MiB, GiB = 2**20, 2**30
MAX_RULES = 256
DAY_S = 86_400.0

_P = TypeVar("_P")


class Section(Struct, frozen=True):
    """Base of all sections."""


class ClusterSection(Section, frozen=True):
    """``[cluster]``."""

    name: Annotated[str, forms.name()] = ""
    """Empty when the text doesn't say: then the name is the one that the cluster was founded with."""
    admission: Annotated[Admission, forms.choice(Admission)] = "code"
    allow: Annotated[tuple[str, ...], forms.pods()] = ()
    deny: Annotated[tuple[str, ...], forms.pods()] = ()
    administrators: Annotated[tuple[str, ...], forms.pods(everybody=True)] = ("*",)
    storage_limit_bytes: Annotated[int | None, forms.or_none(forms.size(1))] = None
    forget_after_s: Annotated[float, forms.duration(1.0)] = 180 * DAY_S


class Redundancy(Section, frozen=True):
    """``[redundancy]``; the defaults are those of the profile ``safe``."""

    profile: Annotated[Profile, forms.choice(Profile)] = "safe"
    copies: Annotated[int, forms.integer(1, forms.MAX_COPIES)] = 2
    replicate: Annotated[Replicate, forms.choice(Replicate)] = "instant"
    settle_s: Annotated[float, forms.duration(0.0, DAY_S)] = 10.0
    interval_s: Annotated[float, forms.duration(1.0, 365 * DAY_S)] = 300.0
    fan_out: Annotated[int, forms.integer(1, forms.MAX_COPIES)] = 2
    acknowledge: Annotated[int, forms.integer(1, forms.MAX_COPIES)] = 1
    absent_after_s: Annotated[float, forms.duration(0.1, 365 * DAY_S)] = 60.0
    repair_after_s: Annotated[float, forms.duration(0.0)] = 1800.0
    repair_limit_bytes_per_s: Annotated[int | None, forms.or_none(forms.rate())] = None


PROFILES: dict[str, dict[str, object]] = {
    "safe": {},
    "speed": {"replicate": "settled", "repair_after_s": 7200.0},
}
"""What a profile sets, by field, where the text says nothing. ``speed`` keeps as many copies as ``safe``, but makes
them once a file is left alone, so that they never compete with the work, and repairs only what stays away for long."""


class Conflicts(Section, frozen=True):
    """``[conflicts]``."""

    strategy: Annotated[Strategy, forms.choice(Strategy)] = "keep-both"


class Continuity(Section, frozen=True):
    """``[continuity]``."""

    favourable: Annotated[Reaction, forms.choice(Reaction)] = "continue"
    degraded: Annotated[Reaction, forms.choice(Reaction)] = "continue"
    critical: Annotated[Reaction, forms.choice(Reaction)] = "continue"
    throttle_bytes_per_s: Annotated[int, forms.rate()] = 5_000_000
    least_copies: Annotated[int, forms.integer(1, forms.MAX_COPIES)] = 1


class Trash(Section, frozen=True):
    """``[trash]``."""

    keep_s: Annotated[float, forms.duration(0.0)] = 30 * DAY_S
    versions: Annotated[int, forms.integer(0, 10_000)] = 10


class ClusterRule(Section, frozen=True):
    """``[[rule]]`` of cluster.toml; ``None``: the rule doesn't say."""

    match: Annotated[str, forms.pattern()]
    copies: Annotated[int | None, forms.integer(1, forms.MAX_COPIES)] = None
    cache: Annotated[bool | None, forms.flag()] = None
    read_only: Annotated[bool | None, forms.flag()] = None
    strategy: Annotated[Strategy | None, forms.choice(Strategy)] = None


class PodSection(Section, frozen=True):
    """``[pod]``."""

    name: Annotated[str, forms.name()] = ""
    """Empty when the text doesn't say: then the name is the one that the pod was admitted with."""
    mount: Annotated[str, forms.mount_point()] = "~/Wormhole"
    """As written; empty: no mount."""
    ownership: Annotated[Ownership, forms.choice(Ownership)] = "mine"
    listen: Annotated[str, forms.host_port(0)] = "0.0.0.0:7420"
    advertise: Annotated[tuple[str, ...], forms.host_ports()] = ()
    peers: Annotated[tuple[str, ...], forms.host_ports()] = ()
    discovery: Annotated[bool, forms.flag()] = True


class Storage(Section, frozen=True):
    """``[storage]``; ``limit`` is bytes for this store, or how full its file system may get."""

    limit: Annotated[int | Share, forms.size_or_share(1)] = Share(90.0)


class Cache(Section, frozen=True):
    """``[cache]``."""

    mode: Annotated[CacheMode, forms.choice(CacheMode)] = "auto"
    copy_below_bytes: Annotated[int, forms.size()] = 64 * MiB
    copy_after_reads: Annotated[int, forms.integer(1, 1_000_000)] = 2
    limit_bytes: Annotated[int, forms.size()] = 20 * GiB


class Affinity(Section, frozen=True):
    """``[affinity]``: -10 avoid ... 10 prefer."""

    replicas: Annotated[int, forms.integer(-10, 10)] = 0
    new_files: Annotated[int, forms.integer(-10, 10)] = 0
    hot: Annotated[int, forms.integer(-10, 10)] = 0
    cold: Annotated[int, forms.integer(-10, 10)] = 0


class Disconnected(Section, frozen=True):
    """``[disconnected]``."""

    reaction: Annotated[CutOffReaction, forms.choice(CutOffReaction)] = "continue"
    quorum: Annotated[Quorum, forms.choice(Quorum)] = "half"
    notify: Annotated[str, forms.command()] = ""


class Network(Section, frozen=True):
    """``[network]``."""

    upload_limit_bytes_per_s: Annotated[int | None, forms.or_none(forms.rate())] = None
    download_limit_bytes_per_s: Annotated[int | None, forms.or_none(forms.rate())] = None
    deadline_s: Annotated[float, forms.duration(0.1, 3600.0)] = 10.0


class PodRule(Section, frozen=True):
    """``[[rule]]`` of pod.toml; ``None``: the rule doesn't say."""

    match: Annotated[str, forms.pattern()]
    keep: Annotated[bool | None, forms.flag()] = None
    cache: Annotated[bool | None, forms.flag()] = None


@dataclass(frozen=True, slots=True)
class FilePolicy:
    """What the cluster wants for one path."""

    copies: int
    """As configured; `policies.placement.copies_wanted` takes the number of members into account."""
    cache: bool
    read_only: bool
    strategy: Strategy


@dataclass(frozen=True, slots=True)
class PodFilePolicy:
    """What a pod wants for one path."""

    keep: bool
    cache: bool | None
    """``None``: the pod doesn't say, so the cluster's answer counts."""

    def may_cache(self, cluster: FilePolicy) -> bool:
        """Say whether this pod may cache the path: its own rule wins over the cluster's."""
        return cluster.cache if self.cache is None else self.cache


class ClusterConfig(Struct, frozen=True, dict=True):
    """cluster.toml with all defaults filled in."""

    level: ClassVar[Level] = "cluster"
    cluster: ClusterSection = field(default_factory=ClusterSection)
    redundancy: Redundancy = field(default_factory=Redundancy)
    conflicts: Conflicts = field(default_factory=Conflicts)
    continuity: Continuity = field(default_factory=Continuity)
    trash: Trash = field(default_factory=Trash)
    rules: tuple[ClusterRule, ...] = ()

    @cached_property
    def _book(self) -> RuleBook:
        return RuleBook([rule.match for rule in self.rules])

    @cached_property
    def _policies(self) -> dict[tuple[int, ...], FilePolicy]:
        return {}

    @cached_property
    def protects(self) -> bool:
        """Whether any rule makes something read only."""
        return any(rule.read_only for rule in self.rules)

    def rules_of(self, path: str) -> tuple[int, ...]:
        """Return the numbers, from 0, of the rules that ``path`` falls under, in order; the last one wins."""
        return self._book.matching(path)

    def for_path(self, path: str) -> FilePolicy:
        """Return what is wanted for ``path`` in the tree (a directory's own path ends in a slash).

        Later rules win, key by key. Quick: answers are remembered.
        """
        found = self._book.matching(path)
        policy = self._policies.get(found)
        if policy is None:
            values: dict[str, Any] = {
                "copies": self.redundancy.copies,
                "cache": True,
                "read_only": False,
                "strategy": self.conflicts.strategy,
            }
            for index in found:
                _overlay(values, self.rules[index])
            policy = _remember(self._policies, found, FilePolicy(**values))
        return policy


class PodConfig(Struct, frozen=True, dict=True):
    """pod.toml with all defaults filled in."""

    level: ClassVar[Level] = "pod"
    pod: PodSection = field(default_factory=PodSection)
    storage: Storage = field(default_factory=Storage)
    cache: Cache = field(default_factory=Cache)
    affinity: Affinity = field(default_factory=Affinity)
    disconnected: Disconnected = field(default_factory=Disconnected)
    network: Network = field(default_factory=Network)
    rules: tuple[PodRule, ...] = ()

    @cached_property
    def _book(self) -> RuleBook:
        return RuleBook([rule.match for rule in self.rules])

    @cached_property
    def _policies(self) -> dict[tuple[int, ...], PodFilePolicy]:
        return {}

    def rules_of(self, path: str) -> tuple[int, ...]:
        """Return the numbers of the rules that ``path`` falls under, as `ClusterConfig.rules_of` does."""
        return self._book.matching(path)

    def for_path(self, path: str) -> PodFilePolicy:
        """Return what this pod wants for ``path``, as `ClusterConfig.for_path` does."""
        found = self._book.matching(path)
        policy = self._policies.get(found)
        if policy is None:
            values: dict[str, Any] = {"keep": False, "cache": None}
            for index in found:
                _overlay(values, self.rules[index])
            policy = _remember(self._policies, found, PodFilePolicy(**values))
        return policy


def _overlay(values: dict[str, Any], rule: Section) -> None:
    values.update({key: said for key in values if (said := getattr(rule, key)) is not None})


def _remember(memo: dict[tuple[int, ...], _P], found: tuple[int, ...], policy: _P) -> _P:
    if len(memo) >= MEMO_LIMIT:
        memo.clear()
    memo[found] = policy
    return policy


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section."""

    name: str
    """As in TOML."""
    attribute: str
    """As in the struct: with the unit."""
    form: Form
    default: Any
    required: bool


CONFIGS: dict[Level, type[ClusterConfig] | type[PodConfig]] = {"cluster": ClusterConfig, "pod": PodConfig}
RULES: dict[Level, type[ClusterRule] | type[PodRule]] = {"cluster": ClusterRule, "pod": PodRule}
RULE = "rule"
"""The name of the list of rules in TOML."""


@cache
def keys(section: type[Section]) -> dict[str, Key]:
    """Return the keys of a section by their TOML name, in the order of their declaration."""
    hints = get_type_hints(section, include_extras=True)
    found: dict[str, Key] = {}
    for item in struct_fields(section):
        form = next(extra for extra in hints[item.name].__metadata__ if isinstance(extra, Form))
        key = item.name.removesuffix(form.suffix) if form.suffix else item.name
        found[key] = Key(key, item.name, form, item.default, required=item.default is NODEFAULT)
    return found


@cache
def sections(level: Level) -> dict[str, type[Section]]:
    """Return the sections of a level by name, without the list of rules."""
    hints = get_type_hints(CONFIGS[level])
    return {item.name: hints[item.name] for item in struct_fields(CONFIGS[level]) if item.name != "rules"}


@cache
def all_keys(level: Level) -> frozenset[str]:
    """Return the full names of all keys of a level: ``redundancy.copies``, ``rule.match``."""
    tables: dict[str, type[Section]] = {**sections(level), RULE: RULES[level]}
    return frozenset(f"{name}.{key}" for name, section in tables.items() for key in keys(section))
