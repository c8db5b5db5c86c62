"""Configuration texts made and changed: single keys set with all comments kept, everything in force written out, and
the texts that a new home gets.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from base.errors import ConfigError
from policies.document import load
from policies.schema import RULE, RULES, ClusterConfig, PodConfig, keys, sections

Setting = object
"""What a key can be set to, a value as TOML has it; ``None`` takes the key away, so that its default counts."""


def set_values(text: str, values: Mapping[tuple[str, str], Setting], file: str = "the configuration") -> str:
    """Return ``text`` with ``(section, key) → value`` set, everything else as it was, comments included.

    The result is TOML but not checked otherwise: parse it before it is used. Raises `ConfigError` when ``text`` isn't
    TOML, or a section of it isn't one.
    """
    for (section, key), value in values.items():
        text = text if value is None else _in_force(text, section, key, file)
    expected: dict[str, Any] = load(text, file).tree
    try:
        document = tomlkit.parse(text.removeprefix("\ufeff"))
        for (section, key), value in values.items():
            _set(document, expected, section, key, value, file)
        result = tomlkit.dumps(document)
        if tomllib.loads(result) == expected:
            return result
    except (TOMLKitError, tomllib.TOMLDecodeError):
        pass
    raise ConfigError(f"{file}:1: syntax: can't be changed key by key.", "Edit the file by hand.")


def set_rules(text: str, rules: list[dict[str, Any]], file: str = "the configuration") -> str:
    """Return ``text`` with its rules replaced; everything else as it was. Unchecked. Raises as `set_values` does."""
    expected: dict[str, Any] = load(text, file).tree
    try:
        document = tomlkit.parse(text.removeprefix("\ufeff"))
        if RULE in expected:
            del expected[RULE], document[RULE]
        if rules:
            expected[RULE] = rules
            tables = tomlkit.aot()
            for rule in rules:
                table = tomlkit.table()
                table.update(rule)
                tables.append(table)
            if document.body and not document.as_string().endswith("\n\n"):
                document.add(tomlkit.nl())
            document[RULE] = tables
        result = tomlkit.dumps(document)
        if tomllib.loads(result) == expected:
            return result
    except (TOMLKitError, tomllib.TOMLDecodeError, TypeError, ValueError):
        pass
    raise ConfigError(f"{file}:1: rule: can't be changed as a whole.", "Edit the file by hand.")


def _in_force(text: str, section: str, key: str, file: str) -> str:
    """Return ``text`` with the commented line that explains a key in force, if there is one and the key is not said."""
    tree = load(text, file).tree
    said = tree.get(section, {})
    if not isinstance(said, dict) or key in said:
        return text
    lines = text.splitlines(keepends=True)
    headers = [index for index, line in enumerate(lines) if _HEADER.match(line)]
    for header in headers:
        name = _HEADER.match(lines[header])
        if name is None or name[1] != section:
            continue
        end = next((index for index in headers if index > header), len(lines))
        found = next((index for index in range(header, end) if lines[index].startswith(f"# {key} = ")), None)
        if found is None:
            return text
        for index in (header, found):
            lines[index] = lines[index].removeprefix("# ")
        changed = "".join(lines)
        try:
            value = tomllib.loads(lines[found])[key]
            same = tomllib.loads(changed) == {**tree, section: {**said, key: value}}
        except (tomllib.TOMLDecodeError, KeyError):
            return text
        return changed if same else text
    return text


_HEADER = re.compile(r"(?:# )?\[\[?([A-Za-z_]+)\]")


def _set(
    document: tomlkit.TOMLDocument, expected: dict[str, Any], section: str, key: str, value: Setting, file: str
) -> None:
    """Set or remove one key in the document, and in the tree that it must amount to."""
    if not isinstance(expected.get(section, {}), dict):
        raise ConfigError(f"{file}:1: {section}: isn't a section.", f"Write it as [{section}].")
    if value is None:
        if key in expected.get(section, {}):
            del expected[section][key]
            del document[section][key]
        return
    if section not in expected:
        if document.body and not document.as_string().endswith("\n\n"):
            document.add(tomlkit.nl())
        document[section] = tomlkit.table()
    expected.setdefault(section, {})[key] = value
    document[section][key] = value


def effective(config: ClusterConfig | PodConfig) -> dict[str, Any]:
    """Return ``{section: {key: value}, "rule": [{key: value}]}``, all defaults included, values as TOML has them.

    A rule has only the keys that it says. A name that the text doesn't say is the empty text.
    """
    shown: dict[str, Any] = {}
    for name, section in sections(config.level).items():
        values = getattr(config, name)
        shown[name] = {key.name: key.form.write(getattr(values, key.attribute)) for key in keys(section).values()}
    shown[RULE] = [
        {
            key.name: key.form.write(said)
            for key in keys(RULES[config.level]).values()
            if (said := getattr(rule, key.attribute)) is not None
        }
        for rule in config.rules
    ]
    return shown


def render(config: ClusterConfig | PodConfig) -> str:
    """Return a TOML text that says all of `effective`, and reads back as ``config``."""
    lines: list[str] = []
    for name, values in effective(config).items():
        tables = values if name == RULE else [values]
        for table in tables:
            lines.append(f"[[{name}]]" if name == RULE else f"[{name}]")
            lines.extend(f"{key} = {_toml(value)}" for key, value in table.items() if (name, key, value) not in _UNSAID)
            lines.append("")
    return "\n".join(lines[:-1]) + "\n"


_UNSAID = (("cluster", "name", ""), ("pod", "name", ""))
"""An empty name is no name: left out, since it can't be written."""


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return "[" + ", ".join(_toml(entry) for entry in value) + "]"
    return str(value)


def default_cluster_toml(name: str) -> str:
    """Return the cluster.toml of a new cluster: all keys explained, the defaults in force."""
    return _CLUSTER.replace("@NAME@", quoted(name))


def default_pod_toml(name: str, mount: str, listen: str) -> str:
    """Return the pod.toml of a new pod: all keys explained; an empty ``mount`` for none."""
    text = _POD.replace("@NAME@", quoted(name)).replace("@MOUNT@", quoted(mount))
    return text.replace("@LISTEN@", quoted(listen))


def quoted(text: str) -> str:
    """Return ``text`` as a TOML basic string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


_CLUSTER = """\
# What the whole cluster agrees on. A key that is absent, or behind a '#', has the value shown.
# Sizes: B kB MB GB TB, KiB MiB GiB TiB. Durations: ms s m h d. Rates: "5 MB/s".

[cluster]
name = @NAME@
admission = "code"            # who may join: open | code | approve | closed
allow = []                    # pod names or ids; when not empty, only these
deny = []
# administrators = ["*"]      # pods that may admit, evict and change this file; "*" = every full pod
# storage_limit = "none"      # or "2 TiB": the most that the cluster offers
# forget_after = "180d"       # a pod absent for longer holds nothing up

[redundancy]
# profile = "safe"            # safe | speed: the defaults for the keys below
copies = 2                    # kept copies in total, on different full pods; 1 switches redundancy off
# replicate = "instant"       # instant | settled (after `settle` of quiet) | interval (every `interval`)
# settle = "10s"
# interval = "5m"
# fan_out = 2                 # nobody but the writer's one upload sends a content to more pods than this
# acknowledge = 1             # full pods that must hold the data before fsync returns
absent_after = "60s"          # unreachable this long: absent, the situation is judged
# repair_after = "30m"        # absent this long: its copies are made anew elsewhere
# repair_limit = "none"       # or "20 MB/s"

[conflicts]
strategy = "keep-both"        # last-writer-wins | keep-both

# [continuity]                # reactions: continue | throttle | freeze | fewer-copies | stop
# favourable = "continue"     # a failure that hinders nothing
# degraded = "continue"       # copies are missing, no file is lost
# critical = "continue"       # files are missing
# throttle = "5 MB/s"         # between pods; never local work
# least_copies = 1            # the floor of fewer-copies

# [trash]
# keep = "30d"
# versions = 10               # overwritten contents kept a file, at most one an hour

# Rules for files and folders: `match` is a pattern as in .gitignore; later rules win, key by key.
# [[rule]]
# match = "photos/**"
# copies = 3
# [[rule]]
# match = "scratch/**"
# copies = 1
# cache = false
# [[rule]]
# match = "archive/**"
# read_only = true
"""

_POD = """\
# What this pod alone decides. A key that is absent, or behind a '#', has the value shown.
# Sizes: B kB MB GB TB, KiB MiB GiB TiB. Durations: ms s m h d. Rates: "5 MB/s".

[pod]
name = @NAME@
mount = @MOUNT@
ownership = "mine"            # mine: files belong to who mounts | kept: uid and gid as stored
listen = @LISTEN@
advertise = []                # addresses told to others, when not obvious
peers = []                    # fixed addresses, where multicast does not reach
discovery = true

# [storage]
# limit = "90%"               # a size for this store, or: no growth once its file system is this full

[cache]
mode = "auto"                 # stream | copy | auto
copy_below = "64 MiB"         # auto: smaller files are cached at first read
copy_after_reads = 2          # auto: larger ones from this read on
limit = "20 GiB"              # within storage.limit

# [affinity]                  # -10 avoid ... 0 ... 10 prefer
# replicas = 0
# new_files = 0
# hot = 0
# cold = 0

# [disconnected]
# reaction = "continue"       # continue | freeze | stop
# quorum = "half"             # half | any: what counts as being cut off
# notify = ""                 # a command run when the pod is cut off, rejoins, or the situation changes

[network]
# upload_limit = "none"
# download_limit = "none"
deadline = "10s"              # a call on the mount fails after this long without progress

# Rules for files and folders: `match` is a pattern as in .gitignore; later rules win, key by key.
# [[rule]]
# match = "projects/**"
# keep = true
"""
