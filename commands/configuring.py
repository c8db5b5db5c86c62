"""`wormhole config check | show | get | export | lost`: look at configurations. From the disk where no pod runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from base.errors import WormholeError
from base.home import Home
from commands.invocation import command, invocation, this_home
from commands.output import document, moment, note, printable, say
from control.client import call
from control.lock import holder

if TYPE_CHECKING:
    from policies.schema import Level

PodLevel = Annotated[bool, typer.Option("--pod-level", help="This pod's own (pod.toml), not the cluster's.")]


@command("config check", "wormhole config check cluster.toml", "wormhole config check ~/pod.toml --json")
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A cluster.toml or a pod.toml.")],
    pod_level: Annotated[
        bool, typer.Option("--pod-level", help="It is meant for a pod, whatever its sections.")
    ] = False,
) -> int:
    """Check a configuration file: all errors at once (exit 6)."""
    from commands.config import check as run_check

    result = run_check(Path(file).expanduser(), "pod" if pod_level else None)
    if invocation().json:
        document(result.to_json())
    for line in result.errors:
        note(printable(line))
    if not invocation().json and result.exit_code == 0:
        say(printable(f"{file} is a good configuration of a {result.level}."))
    return result.exit_code


@command("config show", "wormhole config show", "wormhole config show --pod-level")
def show(pod_level: PodLevel = False) -> None:
    """Show the configuration in force, with all defaults."""
    home, level = this_home(), level_named(pod_level)
    if holder(home) is None:
        from commands.config import show as run_show

        result = run_show(text_in_force(home, level), level, _called(home, level))
        body: dict[str, object] = {**result.to_json(), "toml": result.text}
    else:
        body = call(home, "config_show", {"pod_level": pod_level})
    text = body.pop("toml", None)
    if invocation().json:
        document(body)
        return
    if not isinstance(text, str):
        raise WormholeError("The running pod shows no text.", "Restart it with the version of this command.")
    say(text.rstrip("\n"))
    tell_warnings(body)


@command("config get", "wormhole config get redundancy.copies", "wormhole config get cache.mode --pod-level")
def get(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Such as redundancy.copies; a section; or rule.")],
    pod_level: PodLevel = False,
) -> None:
    """Print what a key amounts to, without quotes; a list one entry a line."""
    from policies.changing import get_value, parse_level, unquoted

    home, level = this_home(), level_named(pod_level)
    value = get_value(parse_level(text_in_force(home, level), level, _called(home, level)), key)
    if invocation().json:
        document({"level": level, "key": key, "value": value})
        return
    text = unquoted(value)
    if text:
        say(printable_lines(text))


@command("config export", "wormhole config export > cluster.toml", "wormhole config export --pod-level > pod.toml")
def export(pod_level: PodLevel = False) -> None:
    """Print the configuration as it was written, comments included: `config apply` of it changes nothing."""
    home, level = this_home(), level_named(pod_level)
    text = text_in_force(home, level)
    if invocation().json:
        document({"level": level, "toml": text})
        return
    sys.stdout.write(text)
    sys.stdout.flush()


@command("config lost", "wormhole config lost", "wormhole config lost --done")
def lost(
    done: Annotated[bool, typer.Option("--done", help="Mark them as seen: `status` warns of them no more.")] = False,
) -> None:
    """List changes of the configuration that lost against others made at the same time."""
    from policies.changing import written

    body = call(this_home(), "config_lost", {"done": done})
    if invocation().json:
        document(body)
        return
    found = body.get("lost")
    rows = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    if not rows:
        note("No change was lost.")
    for row in rows:
        say(printable(f"{moment(row.get('time'))}, by {row.get('by')}, lost against one by {row.get('won')}:"))
        for one in row.get("changes", []):
            say(printable(f"  {one['key']} = {written(one['new'])}    (in force: {written(one['old'])})"))


# -- what the commands share


def level_named(pod_level: bool) -> Level:
    """Return the level that the line means."""
    return "pod" if pod_level else "cluster"


def text_in_force(home: Home, level: Level, *, change: bool = False) -> str:
    """Return the text as it was written; ``change``: only to who may change it."""
    return version_in_force(home, level, change=change)[0]


def version_in_force(home: Home, level: Level, *, change: bool = False) -> tuple[str, str]:
    """Return text and version id; without a running pod from the disk, unless the cluster's is to be changed."""
    if holder(home) is None and not (change and level == "cluster"):
        from commands.config import stored_text

        return stored_text(home, level), ""
    body = call(home, "config_text", {"pod_level": level == "pod", "change": change})
    return str(body.get("toml", "")), str(body.get("id", ""))


def tell_warnings(body: dict[str, object]) -> bool:
    """Print the warnings of an answer to stderr; tell whether there were any."""
    warnings = body.get("warnings")
    lines = warnings if isinstance(warnings, list) else []
    for line in lines:
        note(printable(line))
    return bool(lines)


def printable_lines(text: str) -> str:
    """Return lines without what could steer a terminal."""
    return "\n".join(map(printable, text.split("\n")))


def _called(home: Home, level: Level) -> str:
    return str(home.pod_toml) if level == "pod" else "cluster.toml"
