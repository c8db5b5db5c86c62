"""`wormhole config set | apply | edit`: change the cluster's configuration, or this pod's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from base.errors import ConfigError, RefusedError, UsageError, WormholeError
from base.home import Home
from commands.ask import answer, at_terminal, confirm
from commands.configuring import PodLevel, level_named, printable_lines, tell_warnings, version_in_force
from commands.invocation import command, invocation, this_home
from commands.output import document, note, painted, printable, say
from control.client import call
from control.lock import holder

if TYPE_CHECKING:
    from policies.schema import Level

EDITORS = ("editor", "nano", "vi")


@command(
    "config set",
    "wormhole config set redundancy.copies 3",
    "wormhole config set trash.keep 90d",
    'wormhole config set cluster.administrators \'["nas", "desktop"]\'',
    "wormhole config set cache.mode copy --pod-level",
    "wormhole config set affinity.replicas -10 --pod-level",
)
def set_(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Such as redundancy.copies.")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="A TOML value, or else a string.")],
    pod_level: PodLevel = False,
) -> int:
    """Set one key, on all pods at once or with --pod-level on this one. Comments and layout stay."""
    home, level = this_home(), level_named(pod_level)
    if level == "pod" and holder(home) is None:
        from commands.config import change_stored_pod, stored_text
        from policies.changing import set_key

        text = set_key(stored_text(home, level), level, key, value, str(home.pod_toml))
        return tell(change_stored_pod(home, text, str(home.pod_toml)))
    return tell(call(home, "config_set", {"pod_level": pod_level, "key": key, "value": value}))


@command("config apply", "wormhole config apply cluster.toml", "wormhole config apply pod.toml --pod-level --yes")
def apply(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A cluster.toml, or with --pod-level a pod.toml.")],
    pod_level: PodLevel = False,
) -> int:
    """Put a file in force: shows the difference, asks (on a terminal, without --yes), changes all pods at once."""
    from commands.config import read_text

    home, level, path = this_home(), level_named(pod_level), Path(file).expanduser()
    text = read_text(path)
    before, base = version_in_force(home, level, change=True)
    preview = change(home, level, text, file, base, dry=True)
    show_difference(level, before, text, file)
    if preview.get("changed") and not invocation().yes and at_terminal():
        confirm("Put this in force?" if level == "pod" else "Put this in force on all pods?")
    return tell(change(home, level, text, file, base), before, text)


@command("config edit", "wormhole config edit", "EDITOR=nano wormhole config edit --pod-level")
def edit(pod_level: PodLevel = False) -> int:
    """Open the configuration in $VISUAL or $EDITOR; it is checked before it is put in force."""
    home, level = this_home(), level_named(pod_level)
    before, base = version_in_force(home, level, change=True)
    editor = find_editor()
    folder = Path(tempfile.mkdtemp(prefix="wormhole-"))
    draft = folder / f"{level}.toml"
    draft.write_bytes(before.encode())
    try:
        text = edit_until_good(home, level, editor, draft, base)
        show_difference(level, before, text, draft.name)
        code = tell(change(home, level, text, str(draft), base), before, text)
    except WormholeError as error:
        if draft.read_bytes() == before.encode():
            shutil.rmtree(folder)
        else:
            error.advice = f"{error.advice} What you wrote is in {draft}.".strip()
        raise
    shutil.rmtree(folder)
    return code


def edit_until_good(home: Home, level: Level, editor: str, draft: Path, base: str) -> str:
    """Have the draft edited until it is good, and return its text.

    Raises `ConfigError` with all that is wrong when nobody can be asked, `RefusedError` when somebody gives up.
    """
    from commands.config import read_text

    while True:
        open_editor(editor, draft)
        try:
            text = read_text(draft)
            change(home, level, text, str(draft), base, dry=True)
        except ConfigError as error:
            if not at_terminal():
                raise
            note(printable_lines(error.message))
            if answer("Edit it again? [yes/no]", "This needs a yes or a no.", "Start anew.").lower() not in {
                "y",
                "yes",
            }:
                raise RefusedError("Nothing was changed.") from None
        else:
            return text


def find_editor() -> str:
    """Return the command of the editor. Raises `UsageError` when none is named and nobody is there to use one."""
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    found = named or next((one for one in EDITORS if shutil.which(one)), None) if at_terminal() else named
    if not found:
        raise UsageError("There is no editor to open.", "Name one in $EDITOR, or use `wormhole config apply FILE`.")
    return found


def open_editor(editor: str, file: Path) -> None:
    """Run the editor, a shell command as for git, on a file. Raises `WormholeError` when it fails."""
    done = subprocess.run(["sh", "-c", f'{editor} "$@"', editor, file], check=False)
    if done.returncode:
        raise WormholeError(
            f"The editor ({printable(editor)}) failed with exit code {done.returncode}; nothing was changed.",
            "Name another one in $EDITOR.",
        )


def change(home: Home, level: Level, text: str, file: str, base: str, *, dry: bool = False) -> dict[str, object]:
    """Put a text in force, or with ``dry`` only find out what that would change; see `operations.configuration`."""
    from policies.changing import parse_level

    parse_level(text, level, file)
    if level == "pod" and holder(home) is None:
        from commands.config import change_stored_pod

        return change_stored_pod(home, text, file, dry=dry)
    args = {"pod_level": level == "pod", "toml": text, "file": file, "base": base, "dry": dry}
    return call(home, "config_apply", args)


def show_difference(level: Level, before: str, after: str, file: str) -> None:
    """Print the unified difference for people."""
    from commands.config import difference

    if invocation().json:
        return
    styles = {"+": "green", "-": "red", "@": "dim"}
    text = difference(before, after, f"{level}.toml in force", file)
    for line in text.split("\n") if text else ():
        say(painted(printable(line), styles.get(line[:1], "")))


def tell(body: dict[str, object], before: str = "", after: str = "") -> int:
    """Print what a change did; return the exit code."""
    if invocation().json:
        from commands.config import difference

        document(body if not after else {**body, "diff": difference(before, after, "before", "after")})
    warned = tell_warnings(body)
    if not invocation().json and not body.get("changed"):
        note("Nothing to change.")
    elif not invocation().json and not after and sys.stdout.isatty():
        tell_changes(body)
    return 1 if warned else 0


def tell_changes(body: dict[str, object]) -> None:
    """Print the keys that changed."""
    from policies.changing import Change

    found = body.get("changes")
    for one in found if isinstance(found, list) else []:
        say(printable(Change(str(one["key"]), one["old"], one["new"])))
