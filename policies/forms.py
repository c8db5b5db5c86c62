"""The forms that a configuration value may have: how each is checked, read and written back.

A `Form` stands in the annotation of a section's field (see `policies.schema`), so that type, check and default of
a key are declared in one line.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from policies import units
from policies.patterns import PatternError, compile_pattern

_T = TypeVar("_T")

MAX_COPIES = 16
MAX_LIST = 1000
MAX_TEXT = 4096
MAX_NAME_BYTES = 63

_ANY = "0.0.0.0"  # noqa: S104 - only ever suggested
_PORT = 7420
_NAME = re.compile(r"[^\W_][\w.-]*")
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]{2,64}(?:%[A-Za-z0-9._-]{1,32})?\]|[^\s:\[\]/@]{1,253}):([0-9]{1,5})")
_HOST_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


class ValueProblem(ValueError):  # noqa: N818 - a value's problem, collected and never fatal by itself
    """What is wrong with one value: ``text`` finishes the sentence "KEY: ...", ``hint`` is what was probably meant."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Form:
    """One kind of value."""

    read: Callable[[object], Any]
    """From the TOML value to the typed one; raises `ValueProblem`."""
    write: Callable[[Any], object]
    """From the typed value to what TOML and JSON show."""
    suffix: str = ""
    """The unit in the name of the field (``_bytes``, ``_s``), which the TOML key doesn't have."""


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole, in percent: above 0, at most 100."""

    percent: float


def shown(value: object) -> str:
    """Return a TOML value for a message: one line, printable, at most about 60 characters."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        short = value if len(value) <= 50 else value[:47] + "..."
        text = json.dumps(short, ensure_ascii=False)
        return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
    if isinstance(value, int | float):
        return repr(value)[:50] if isinstance(value, float) or abs(value) < 2**64 else "a huge number"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "a section"
    return "a date or time"


def closest(word: str, known: list[str] | tuple[str, ...]) -> str:
    """Return the entry of ``known`` that ``word`` is probably a slip of, or the empty string."""
    found = difflib.get_close_matches(word[:64].lower(), known, n=1, cutoff=0.6)
    return found[0] if found else ""


def _same(value: Any) -> object:
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueProblem(f"must be {what} in quotes, not {shown(value)}")
    if len(value) > MAX_TEXT:
        raise ValueProblem(f"is longer than {MAX_TEXT} characters")
    if any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise ValueProblem("contains a control character")
    return value


def flag() -> Form:
    """``true`` or ``false``."""

    def read(value: object) -> bool:
        if isinstance(value, bool):
            return value
        hint = str(value).lower() if isinstance(value, str) and value.lower() in ("true", "false") else ""
        raise ValueProblem(f"must be true or false, not {shown(value)}", hint)

    return Form(read, _same)


def integer(least: int, most: int) -> Form:
    """A whole number from ``least`` to ``most``."""

    def read(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        meant = re.fullmatch(r"(-?[0-9]{1,9})(?:\.0)?", str(value)) if isinstance(value, str | float) else None
        hint = str(int(meant[1])) if meant and least <= int(meant[1]) <= most else ""
        raise ValueProblem(f"must be a whole number from {least} to {most}, not {shown(value)}", hint)

    return Form(read, _same)


def choice(values: Any) -> Form:
    """One of the words of a ``Literal``."""
    words: tuple[str, ...] = get_args(values)
    listed = ", ".join(f'"{word}"' for word in words)

    def read(value: object) -> str:
        if isinstance(value, str) and value in words:
            return value
        meant = closest(value, words) if isinstance(value, str) else ""
        raise ValueProblem(f"must be one of {listed}, not {shown(value)}", meant and f'"{meant}"')

    return Form(read, _same)


def _quantity(value: object, what: str, parse: Callable[[str], _T]) -> _T:
    text = _text(value, what)
    try:
        return parse(text)
    except units.UnitError as error:
        raise ValueProblem(f"{shown(text)} {error.text}", error.hint and f'"{error.hint}"') from None


def size(least_bytes: int = 0) -> Form:
    """A size such as ``"64 MiB"``, as bytes."""

    def read(value: object) -> int:
        number = _quantity(value, 'a size such as "64 MiB"', units.parse_size)
        if number < least_bytes:
            raise ValueProblem(f"must be at least {units.format_size(least_bytes)}, not {shown(value)}")
        return number

    return Form(read, units.format_size, "_bytes")


def duration(least_s: float, most_s: float = units.MAX_DURATION_S) -> Form:
    """A duration such as ``"10s"``, as seconds."""

    def read(value: object) -> float:
        number = _quantity(value, 'a duration such as "10s"', units.parse_duration)
        if not least_s <= number <= most_s:
            bounds = f"from {units.format_duration(least_s)} to {units.format_duration(most_s)}"
            raise ValueProblem(f"must be {bounds}, not {shown(value)}")
        return number

    return Form(read, units.format_duration, "_s")


def rate() -> Form:
    """A rate such as ``"5 MB/s"``, as bytes a second, at least 1 kB/s."""

    def read(value: object) -> int:
        number = _quantity(value, 'a rate such as "5 MB/s"', units.parse_rate)
        if number < 1000:
            raise ValueProblem(f"must be at least 1 kB/s, not {shown(value)}")
        return number

    return Form(read, units.format_rate, "_bytes_per_s")


def or_none(form: Form) -> Form:
    """The word ``"none"`` for no limit, as ``None``, or what ``form`` takes."""

    def read(value: object) -> object:
        if value == "none":
            return None
        try:
            return form.read(value)
        except ValueProblem as problem:
            hint = '"none"' if isinstance(value, str) and closest(value, ("none", "unlimited")) else problem.hint
            raise ValueProblem(problem.text, hint) from None

    return Form(read, lambda value: "none" if value is None else form.write(value), form.suffix)


def size_or_share(least_bytes: int) -> Form:
    """A size, as bytes, or a `Share` such as ``"90%"``."""
    sizes = size(least_bytes)

    def read(value: object) -> int | Share:
        text = _text(value, 'a size such as "500 GB" or a share such as "90%"')
        if "%" in text:
            return Share(_quantity(text, "", units.parse_percent))
        return int(sizes.read(text))

    def write(value: int | Share) -> object:
        return units.format_percent(value.percent) if isinstance(value, Share) else units.format_size(value)

    return Form(read, write)


def name_problem(name: str) -> str:
    """Return why ``name`` can't be the name of a cluster or pod, or the empty string."""
    if not name:
        return "is empty"
    if len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    if not _NAME.fullmatch(name):
        return "must be letters, digits, '-', '_' and '.', beginning with a letter or digit"
    if not unicodedata.is_normalized("NFC", name):
        return "has letters that aren't composed (Unicode normal form C)"
    return ""


def _name(value: object) -> str:
    text = _text(value, "a name")
    problem = name_problem(text)
    if problem:
        short = unicodedata.normalize("NFC", text) if len(text) <= MAX_NAME_BYTES else ""
        hint = re.sub(r"[^\w.-]+", "-", short).strip("-_.")
        raise ValueProblem(f"{shown(text)} {problem}", f'"{hint}"' if hint and not name_problem(hint) else "")
    return text


def name() -> Form:
    """The name of a cluster or a pod."""
    return Form(_name, _same)


def _host_port(value: object, least_port: int) -> str:
    text = _text(value, 'HOST:PORT such as "192.168.1.5:7420"')
    match = _HOST_PORT.fullmatch(text)
    problem = "" if match and _is_host(match[1]) else f'must be HOST:PORT such as "192.168.1.5:7420", not {shown(text)}'
    if match and not problem and not least_port <= int(match[2]) <= 65535:
        problem = f"must have a port from {least_port} to 65535, not {match[2]}"
    if problem:
        hint = "" if match else _full_address(text)
        raise ValueProblem(problem, hint and f'"{hint}"')
    return text


def _full_address(text: str) -> str:
    """Return ``text`` with the host or the port that it lacks, or the empty string."""
    candidates = (f"{_ANY}:{text}", f"{_ANY}{text}", f"{text}:{_PORT}", f"[{text}]:{_PORT}") if len(text) < 300 else ()
    for candidate in candidates:
        match = _HOST_PORT.fullmatch(candidate)
        if match and _is_host(match[1]) and int(match[2]) <= 65535:
            return candidate
    return ""


def _is_host(host: str) -> bool:
    """Say whether ``host`` is an IP address (version 6 in brackets) or looks like a host name."""
    if host.startswith("["):
        try:
            return ipaddress.ip_address(host[1:-1]).version == 6
        except ValueError:
            return False
    labels = host.removesuffix(".").split(".")
    if all(label.isdigit() for label in labels):
        try:
            return ipaddress.ip_address(host).version == 4
        except ValueError:
            return False
    return all(_HOST_LABEL.fullmatch(label) for label in labels)


def host_port(least_port: int) -> Form:
    """``HOST:PORT``, an IPv6 address in brackets."""
    return Form(lambda value: _host_port(value, least_port), _same)


def _many(value: object, read: Callable[[object], str], what: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        hint = f"[{shown(value)}]" if isinstance(value, str) and len(value) <= 50 else ""
        raise ValueProblem(f"must be a list of {what}, not {shown(value)}", hint)
    if len(value) > MAX_LIST:
        raise ValueProblem(f"has more than {MAX_LIST} entries")
    return tuple(read(entry) for entry in value)


def host_ports() -> Form:
    """A list of ``HOST:PORT``."""
    return Form(lambda value: _many(value, lambda entry: _host_port(entry, 1), "HOST:PORT"), list)


def pods(*, everybody: bool = False) -> Form:
    """A list of pod names or ids; with ``everybody``, ``"*"`` may stand in it and it mustn't be empty."""

    def entry(value: object) -> str:
        if value == "*":
            if everybody:
                return "*"
            raise ValueProblem('"*" isn\'t the name of a pod; an empty list means no restriction')
        return _name(value)

    def read(value: object) -> tuple[str, ...]:
        found = _many(value, entry, "pod names or ids")
        if everybody and not found:
            raise ValueProblem("is empty, so nobody could ever change the configuration again", '["*"]')
        return found

    return Form(read, list)


def pattern() -> Form:
    """A gitignore-style pattern."""

    def read(value: object) -> str:
        text = _text(value, "a pattern")
        try:
            compile_pattern(text)
        except PatternError as error:
            raise ValueProblem(f"{shown(text)} {error.text}", error.hint and shown(error.hint)) from None
        return text

    return Form(read, _same)


def mount_point() -> Form:
    """An absolute directory, or one below ``~``; the empty text for a pod without a mount."""

    def read(value: object) -> str:
        text = _text(value, "a directory")
        if text and not text.startswith("/") and text != "~" and not text.startswith("~/"):
            raise ValueProblem(f"must begin with / or ~/, not {shown(text)}", shown(f"~/{text}"))
        return text

    return Form(read, _same)


def command() -> Form:
    """A shell command; the empty text for none."""
    return Form(lambda value: _text(value, "a command"), _same)
