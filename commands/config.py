"""`wormhole config`: check configuration files, show what is in force. Plain functions; no terminal here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from base.errors import ConfigError, NotFoundError
from policies.active import inactive
from policies.config import Level, level_of, parse, parse_cluster, parse_pod
from policies.document import ADVICE, MAX_TEXT_BYTES
from policies.edit import effective, render

JSON_VERSION = 1


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What `check` found. Both lists have lines ``FILE:LINE: key: ...``."""

    file: str
    level: Level | None
    """``None`` when the text isn't even TOML."""
    errors: list[str]
    warnings: list[str]

    @property
    def exit_code(self) -> int:
        """0 fine, 1 fine but some keys aren't active yet, 6 bad."""
        if self.errors:
            return ConfigError.exit_code
        return 1 if self.warnings else 0

    def to_json(self) -> dict[str, Any]:
        """Return the document for ``--json``."""
        return {
            "version": JSON_VERSION,
            "file": self.file,
            "level": self.level,
            "valid": not self.errors,
            "errors": self.errors,
            "warnings": self.warnings,
        }


@dataclass(frozen=True, slots=True)
class ShowResult:
    """A configuration with all defaults filled in."""

    level: Level
    text: str
    """As TOML."""
    values: dict[str, Any]
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return the document for ``--json``."""
        return {
            "version": JSON_VERSION,
            "level": self.level,
            "config": self.values,
            "warnings": self.warnings,
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


def check(file: Path) -> CheckResult:
    """Check one file, of whichever level its sections tell. Raises `NotFoundError` when it can't be read."""
    level: Level | None = None
    try:
        text = read_text(file)
        level = level_of(text, str(file))
        parse(text, str(file))
        return CheckResult(str(file), level, [], inactive(text, str(file)))
    except ConfigError as error:
        return CheckResult(str(file), level, error.message.splitlines(), [])


def show(text: str, level: Level, file: str = "") -> ShowResult:
    """Return what a configuration text amounts to: the cluster's from the roster, a pod's from its pod.toml.

    Raises `ConfigError`.
    """
    config = parse_cluster(text, file or "cluster.toml") if level == "cluster" else parse_pod(text, file or "pod.toml")
    return ShowResult(level, render(config), effective(config), inactive(text, file))


def show_pod(file: Path) -> ShowResult:
    """Return what a home's pod.toml amounts to. Raises `NotFoundError` and `ConfigError`."""
    return show(read_text(file), "pod", str(file))
