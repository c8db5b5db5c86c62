"""`wormhole autostart`: start the pod with the machine, by systemd. A user's own unit lingers: it needs no login."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from base.errors import MachineError
from base.home import HOME_VARIABLE, Home
from commands.invocation import command, invocation, this_home
from commands.output import document, say

_SYSTEMD_RUNS = Path("/run/systemd/system")
"""sd_booted(3): there exactly when systemd is this machine's init."""


class Switch(StrEnum):
    """On or off."""

    ON = "on"
    OFF = "off"


@command("autostart", "wormhole autostart on", "wormhole autostart off")
def autostart(
    switch: Annotated[Switch, typer.Argument(metavar="on|off", help="Start with the machine, or don't.")],
) -> None:
    """Start this pod with the machine, or no longer.

    Takes systemd; a user's own unit lingers, so that it needs no login.
    """
    home = this_home()
    if switch is Switch.ON:
        enable(home)
    else:
        check_systemd()
        disable(home)
    if invocation().json:
        document({"autostart": switch is Switch.ON, "unit": str(unit_path(home))})
    elif switch is Switch.ON:
        say("The pod starts with this machine.")
    else:
        say("The pod no longer starts with this machine.")


def check_systemd() -> None:
    """Raise `MachineError` unless systemd runs this machine."""
    if not _SYSTEMD_RUNS.is_dir() or shutil.which("systemctl") is None:
        raise MachineError(
            "This machine is not run by systemd, so nothing can start the pod with it.",
            f"Let your own init run `{Path(sys.argv[0]).name} up` at boot.",
        )


def unit_path(home: Home) -> Path:
    """Return where the pod's unit file stands: the system's for root, else the user's own."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", home.path.name)[:60]
    mark = hashlib.sha256(os.fsencode(home.path)).hexdigest()[:8]
    return _unit_directory() / f"wormhole-{name}-{mark}.service"


def unit_text(home: Home) -> str:
    """Return the unit file of the pod in ``home`` (systemd.service(5))."""
    command_line = [sys.executable, "-m", "pod", "--home", str(home.path)]
    target = "multi-user.target" if os.geteuid() == 0 else "default.target"
    return f"""[Unit]
Description=Wormhole pod in {str(home.path).replace("%", "%%")}
After=network.target

[Service]
Type=exec
ExecStart={" ".join(_quoted(part) for part in command_line)}
Environment={_quoted(f"{HOME_VARIABLE}={home.path}", variables=False)}
WorkingDirectory=/
Restart=on-failure
RestartSec=5
TimeoutStopSec=90

[Install]
WantedBy={target}
"""


def enable(home: Home) -> None:
    """Write the unit and enable it; leave nothing when that fails. Raises `MachineError`."""
    check_systemd()
    path = unit_path(home)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(unit_text(home))
        if os.geteuid() != 0:
            _run(["loginctl", "enable-linger"])
        _systemctl("daemon-reload")
        _systemctl("enable", path.name)
    except OSError as error:
        raise MachineError(f"{path} can't be written: {error.strerror}.", "Check its rights.") from error
    except MachineError:
        _remove(path)
        raise


def disable(home: Home) -> None:
    """Take the unit away, if there is one."""
    path = unit_path(home)
    if not path.exists():
        return
    if _SYSTEMD_RUNS.is_dir():
        with suppress(MachineError):
            _systemctl("disable", path.name)
    _remove(path)
    if _SYSTEMD_RUNS.is_dir():
        with suppress(MachineError):
            _systemctl("daemon-reload")


def _remove(path: Path) -> None:
    for entry in (path, *path.parent.glob(f"*.target.wants/{path.name}")):
        entry.unlink(missing_ok=True)


def _unit_directory() -> Path:
    if os.geteuid() == 0:
        return Path("/etc/systemd/system")
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "systemd" / "user"


def _systemctl(*arguments: str) -> None:
    _run(["systemctl", *([] if os.geteuid() == 0 else ["--user"]), *arguments])


def _run(command_line: list[str]) -> None:
    environment = {"XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}", **os.environ}
    try:
        done = subprocess.run(
            command_line,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(
            f"`{' '.join(command_line)}` can't be run: {error}.", "Check systemd on this machine."
        ) from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        why = said[-1].rstrip(".") if said else f"exit code {done.returncode}"
        raise MachineError(f"`{' '.join(command_line)}` failed: {why}.", "Check systemd on this machine.")


def _quoted(text: str, *, variables: bool = True) -> str:
    """Quote one word for a unit file: `%` are specifiers everywhere, `$` variables in ExecStart only."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("\n", "\\n")
    return f'"{escaped.replace("$", "$$") if variables else escaped}"'
