"""Changes of a configuration text: a key looked up and set, what differs between two texts, what a person should know of it.

Pure. A key is named in full (``redundancy.copies``), or by its last part where that is plain (``copies``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from base.errors import ConfigError
from policies.config import ClusterConfig, PodConfig, parse_cluster, parse_pod
from policies.document import ADVICE, Problems, load
from policies.edit import effective, quoted, set_rules, set_values
from policies.forms import ValueProblem, closest, shown
from policies.locate import Lines
from policies.schema import RULE, Level, keys, sections

KEYS_ADVICE = "See `wormhole config show` for all keys."
MAX_VALUE = 64 << 10

LATER: dict[str, str] = {
    "pod.listen": "at the next `wormhole up`",
    "pod.mount": "at the next `wormhole up`",
    "pod.ownership": "when the tree is mounted the next time",
}
"""Keys that a running pod doesn't take over at once, and when it does."""


@dataclass(frozen=True, slots=True)
class Change:
    """One key that amounts to something else; a value of None: the key (a rule's) isn't there."""

    key: str
    old: object
    new: object

    def __str__(self) -> str:
        return f"{self.key}: {written(self.old)} -> {written(self.new)}"

    def to_json(self) -> dict[str, object]:
        """Return the change for ``--json``."""
        return {"key": self.key, "old": self.old, "new": self.new}


def parse_level(text: str, level: Level, file: str) -> ClusterConfig | PodConfig:
    """Return the configuration of a text of a level. Raises `ConfigError`."""
    return parse_cluster(text, file) if level == "cluster" else parse_pod(text, file)


def find_key(level: Level, name: str) -> tuple[str, str]:
    """Return section and key of a name; a section, or ``rule``, has an empty key. Raises `ConfigError`."""
    known = {f"{section}.{key}" for section, kind in sections(level).items() for key in keys(kind)}
    if name in known:
        section, _, key = name.partition(".")
        return section, key
    if name == RULE or name in sections(level):
        return name, ""
    short = sorted(full for full in known if full.partition(".")[2] == name)
    if len(short) == 1:
        return find_key(level, short[0])
    if short:
        raise ConfigError(f"{shown(name)} may be {' or '.join(short)}.", "Name the key in full.")
    raise ConfigError(f"{level}.toml:1: {_plain(name)}: {_why_unknown(level, name, known)}", KEYS_ADVICE)


def _why_unknown(level: Level, name: str, known: set[str]) -> str:
    other: Level = "pod" if level == "cluster" else "cluster"
    theirs = {f"{section}.{key}" for section, kind in sections(other).items() for key in keys(kind)}
    if name in theirs or name in sections(other) or name in {full.partition(".")[2] for full in theirs}:
        where = "say `--pod-level`" if other == "pod" else "leave `--pod-level` out"
        return f"belongs to {other}.toml: {where}."
    if name.startswith((f"{RULE}.", f"{RULE}[")):
        return "is of one rule: change rules with `wormhole config edit`, or set `rule` to a list of them."
    last = {full.partition(".")[2]: full for full in sorted(known)}
    meant = closest(name, sorted(known)) or last.get(closest(name.rpartition(".")[2], sorted(last)), "")
    return "unknown key" + (f"; did you mean {meant}?" if meant else ".")


def _plain(name: str) -> str:
    return name if name.isprintable() and len(name) <= 64 else shown(name)


def get_value(config: ClusterConfig | PodConfig, name: str) -> object:
    """Return what a key amounts to: a value, for a section its keys, for ``rule`` a list. Raises `ConfigError`."""
    section, key = find_key(config.level, name)
    found = effective(config)[section]
    return found[key] if key else found


def set_key(text: str, level: Level, name: str, raw: str, file: str) -> str:
    """Return ``text`` with one key set to a TOML value or else a string, all else kept.

    Raises `ConfigError` with every problem that the text then has.
    """
    section, key = find_key(level, name)
    value = toml_value(raw)
    if section == RULE:
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise ConfigError(
                f"{file}:1: rule: must be a list of rules.", "Such as '[{ match = \"a/**\", copies = 3 }]'."
            )
        changed = set_rules(text, value, file)
    elif not key:
        raise ConfigError(f"{file}:1: {section}: is a section.", "Name one key of it.")
    else:
        form = keys(sections(level)[section])[key].form
        try:
            form.read(value)
        except ValueProblem as problem:
            try:
                form.read(raw)
                value = raw
            except ValueProblem:
                if isinstance(value, dict):  # which would change the layout: it is wrong in any case
                    _refuse(text, section, key, problem, file)
        changed = set_values(text, {(section, key): value}, file)
    parse_level(changed, level, file)
    return changed


def _refuse(text: str, section: str, key: str, problem: ValueProblem, file: str) -> None:
    problems = Problems(file, Lines(text))
    problems.add((section, key), f"{section}.{key}", problem.text, problem.hint)
    problems.raise_if_any()


def toml_value(raw: str) -> object:
    """Return the TOML value that a text is, or else the text."""
    if len(raw) > MAX_VALUE:
        raise ConfigError(f"The value is longer than {MAX_VALUE >> 10} KiB.", ADVICE)
    try:
        found = load(f"value = {raw}", "the value").tree
    except ConfigError:
        return raw
    return found["value"] if set(found) == {"value"} else raw


def written(value: object) -> str:
    """Return a value as TOML writes it; a table on one line, nothing as ``-``."""
    match value:
        case None:
            return "-"
        case bool():
            return str(value).lower()
        case str():
            return quoted(value)
        case list():
            return "[" + ", ".join(map(written, value)) + "]"
        case dict():
            return "{ " + ", ".join(f"{key} = {written(one)}" for key, one in value.items()) + " }"
    return str(value)


def unquoted(value: object) -> str:
    """Return a value for a shell: a text as it is, a list one a line, a section or a rule as TOML."""
    match value:
        case str():
            return value
        case list():
            return "\n".join(map(unquoted, value)) if not _has_tables(value) else _rules(value)
        case dict():
            return "\n".join(f"{key} = {written(one)}" for key, one in value.items())
    return written(value)


def _has_tables(value: list[Any]) -> bool:
    return any(isinstance(one, dict) for one in value)


def _rules(rules: list[Any]) -> str:
    return "\n".join(f"[[{RULE}]]\n{unquoted(rule)}" for rule in rules)


def changes(old: ClusterConfig | PodConfig, new: ClusterConfig | PodConfig) -> list[Change]:
    """Return every key that amounts to something else, in the order of the sections; rules by their number from 1."""
    before, after = effective(old), effective(new)
    found: list[Change] = []
    for section in sections(new.level):
        found += [
            Change(f"{section}.{key}", before[section][key], value)
            for key, value in after[section].items()
            if before[section][key] != value
        ]
    count = max(len(before[RULE]), len(after[RULE]))
    for number, (one, other) in enumerate(
        zip(_padded(before[RULE], count), _padded(after[RULE], count), strict=True), 1
    ):
        if one != other:
            found.append(Change(f"{RULE}[{number}]", one, other))
    return found


def _padded(rules: list[dict[str, Any]], count: int) -> list[dict[str, Any] | None]:
    return [*rules, *[None] * (count - len(rules))]


def warnings(changed: list[Change]) -> list[str]:
    """Return a sentence for each changed key that a running pod doesn't take over at once."""
    return [f"{one.key}: takes effect {LATER[one.key]}." for one in changed if one.key in LATER]
