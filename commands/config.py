"""`wormhole config`: configuration files and the homes of stopped pods. Plain functions; no terminal here."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from base.errors import ConfigError, NotFoundError
from base.home import Home
from policies.changing import changes, parse_level
from policies.config import Level, PodConfig, level_of, parse_cluster, parse_pod
from policies.document import ADVICE, MAX_TEXT_BYTES
from policies.edit import effective, render
from policies.fitting import check_pod

JSON_VERSION = 1


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What `check` found."""

    file: str
    level: Level | None
    """``None`` when the text isn't even TOML."""
    errors: list[str]
    """Lines ``FILE:LINE: key: ...``."""

    @property
    def exit_code(self) -> int:
        """0 fine, 6 bad."""
        return ConfigError.exit_code if self.errors else 0

    def to_json(self) -> dict[str, Any]:
        """Return the document for ``--json``."""
        return {
            "version": JSON_VERSION,
            "file": self.file,
            "level": self.level,
            "valid": not self.errors,
            "errors": self.errors,
        }


@dataclass(frozen=True, slots=True)
class ShowResult:
    """A configuration with all defaults filled in."""

    level: Level
    text: str
    """As TOML."""
    values: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the document for ``--json``."""
        return {
            "version": JSON_VERSION,
            "level": self.level,
            "config": self.values,
        }


def read_text(file: Path) -> str:
    """Return the text of a configuration file.

    Raises `NotFoundError` when it can't be read, `ConfigError` when it is too large or isn't UTF-8.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_TEXT_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or "it isn't a file name").lower()
        raise NotFoundError(f"{file} can't be read: {reason}.", "Name a configuration file.") from None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if len(data) > MAX_TEXT_BYTES:
            raise ConfigError(f"{file}:1: syntax: is larger than {MAX_TEXT_BYTES >> 20} MiB", ADVICE) from None
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}:{line}: syntax: isn't UTF-8 text", ADVICE) from None


def check(file: Path, meant: Level | None = None) -> CheckResult:
    """Check one file, of whichever level its sections tell unless one is ``meant``.

    Raises `NotFoundError` when it can't be read.
    """
    level: Level | None = None
    try:
        text = read_text(file)
        level = meant or level_of(text, str(file))
        parse_level(text, level, str(file))
        return CheckResult(str(file), level, [])
    except ConfigError as error:
        return CheckResult(str(file), level, error.message.splitlines())


def show(text: str, level: Level, file: str = "") -> ShowResult:
    """Return what a configuration text amounts to: the cluster's from the roster, a pod's from its pod.toml.

    Raises `ConfigError`.
    """
    config = parse_cluster(text, file or "cluster.toml") if level == "cluster" else parse_pod(text, file or "pod.toml")
    return ShowResult(level, render(config), effective(config))


# -- without a running pod


def stored_text(home: Home, level: Level) -> str:
    """Return the text in force as the home of a stopped pod has it. Raises what the files of a home may."""
    if level == "pod":
        return read_text(home.pod_toml)
    from mesh.roster_store import RosterStore

    store = RosterStore(home.roster_db)
    try:
        return store.roster.config_toml()
    finally:
        store.close()


def change_stored_pod(home: Home, text: str, file: str, *, dry: bool = False) -> dict[str, object]:
    """Check a pod.toml and put it into the home of a stopped pod, unless ``dry``; answer as a running pod does.

    Raises `ConfigError` with all that is wrong.
    """
    from operations.rendering import replace_text

    before = read_text(home.pod_toml)
    new = parse_pod(text, file)
    check_pod(text, new, file, _name_of(home))
    try:
        found = changes(parse_pod(before), new)
    except ConfigError:  # what is being repaired
        found = changes(PodConfig(), new)
    if text != before and not dry:
        replace_text(home.pod_toml, text)
    return {
        "level": "pod",
        "changed": text != before,
        "changes": [change.to_json() for change in found],
        "warnings": [],
    }


def _name_of(home: Home) -> str:
    from mesh.identity import Identity
    from mesh.roster_store import RosterStore

    store = RosterStore(home.roster_db)
    try:
        entry = store.roster.entry(Identity.load(home.identity).pod_id)
        return entry.name if entry else ""
    finally:
        store.close()


def difference(before: str, after: str, old: str, new: str) -> str:
    """Return the unified difference of two texts, called ``old`` and ``new``; empty when there is none."""
    lines = difflib.unified_diff(before.split("\n"), after.split("\n"), old, new, lineterm="")
    return "\n".join(lines)
