"""Pins: rules ``match = "/photos/", keep = true`` of a pod.toml that name one file or folder literally. Pure.

A pin is a rule like any other: it may be written by hand, and `wormhole config show --pod-level` lists it.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from base.errors import ConfigError, UsageError
from policies.document import load
from policies.edit import quoted, set_rules
from policies.patterns import PatternError, compile_pattern
from policies.schema import RULE, PodConfig

_SPECIAL = frozenset("\\*?[")
_UNSAYABLE = ("Cc", "Cs")


def pattern_of(path: str, *, folder: bool) -> str:
    """Return the pattern that matches a tree path (``/photos/a.jpg``), of a folder everything below it.

    What a pattern can't say (control characters, bytes that are no UTF-8, white space at the end) becomes ``?``, any one
    character.
    Raises `UsageError` for a path that is too long for a pattern.
    """
    if path == "/":
        return "/**"
    escaped = "".join(_escaped(symbol) for symbol in path)
    if not folder and path[-1].isspace():
        escaped = f"{escaped[:-1]}?"
    pattern = f"{escaped}/" if folder else escaped
    try:
        compile_pattern(pattern)
    except PatternError as error:
        raise UsageError(f"The path can't be pinned: as a pattern it {error.text}.", "Pin a folder above it.") from None
    return pattern


def _escaped(symbol: str) -> str:
    if symbol in _SPECIAL:
        return f"\\{symbol}"
    return "?" if unicodedata.category(symbol) in _UNSAYABLE else symbol


def keeping_rule(config: PodConfig, path: str) -> int | None:
    """Return the number, from 0, of the rule by which a pod must keep a path; None when it needn't."""
    found = [index for index in config.rules_of(path) if config.rules[index].keep is not None]
    return found[-1] if found and config.rules[found[-1]].keep else None


def with_pin(text: str, pattern: str, file: str) -> str:
    """Return a pod.toml with a pin behind all its rules, unless it has it already and no later rule says otherwise.

    Comments and layout stay. Raises `ConfigError`.
    """
    rules = _rules(text, file)
    standing = _pins(rules, pattern)
    if standing and all(rule.get("keep") is not False for rule in rules[standing[-1] :]):
        return text
    text = without_pin(text, pattern, file)
    expected = load(text, file).tree
    rule = {"match": pattern, "keep": True}
    wanted = {**expected, RULE: [*_rules(text, file), rule]}
    longer = f"{text.rstrip()}\n\n[[{RULE}]]\nmatch = {quoted(pattern)}\nkeep = true\n".lstrip("\n")
    try:
        if load(longer, file).tree == wanted:
            return longer
    except ConfigError:  # the rules are a list in brackets
        pass
    return set_rules(text, wanted[RULE], file)


def without_pin(text: str, pattern: str, file: str) -> str:
    """Return a pod.toml without the pins of this very pattern; what such a rule says besides stays. Raises `ConfigError`."""
    while found := _pins(_rules(text, file), pattern):
        text = _without(text, found[-1], file)
    return text


def _without(text: str, index: int, file: str) -> str:
    expected = load(text, file).tree
    rules = [dict(rule) for rule in expected[RULE]]
    whole = rules[index].keys() <= {"match", "keep"}
    if whole:
        del rules[index]
    else:
        del rules[index]["keep"]
    wanted = {key: value for key, value in expected.items() if key != RULE} | ({RULE: rules} if rules else {})
    try:
        document: Any = tomlkit.parse(text.removeprefix("\ufeff"))
        if not rules:
            del document[RULE]
        elif whole:
            del document[RULE][index]
        else:
            del document[RULE][index]["keep"]
        shorter = tomlkit.dumps(document)
        if load(shorter, file).tree == wanted:
            return shorter
    except (TOMLKitError, ConfigError, KeyError, IndexError, TypeError):
        pass
    return set_rules(text, rules, file)


def _rules(text: str, file: str) -> list[dict[str, Any]]:
    found = load(text, file).tree.get(RULE, [])
    if not isinstance(found, list) or not all(isinstance(rule, dict) for rule in found):
        raise ConfigError(f"{file}:1: rule: must be a list of rules.", "Write each as [[rule]].")
    return found


def _pins(rules: list[dict[str, Any]], pattern: str) -> list[int]:
    return [index for index, rule in enumerate(rules) if rule.get("match") == pattern and rule.get("keep") is True]
