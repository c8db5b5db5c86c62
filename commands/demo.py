"""`wormhole demo`: three pods on this machine, joined and mounted, to look at and play with.

Everything is real: the commands below are those that a person types, the pods find each other by multicast and are let
in by one-time codes. Must leave no process, mount or file behind, however it ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from base.errors import KINDS, NotFoundError, UnreachableError, WormholeError
from base.home import HOME_VARIABLE, Home
from commands import daemon, machine
from commands.invocation import command, invocation
from commands.output import count, document, note, painted, printable, say, size, table
from control.client import call
from control.lock import holder

NAMES = ("laptop", "desktop", "nas")
CLUSTER = "demo"

_FEWEST_FILES, _MOST_FILES, _MOST_BYTES = 1000, 12_000, 300_000_000
_USUAL_SOURCES = ("/usr/lib/python3.11", "/usr/lib/python3", "/usr/include", "/usr/share/doc", "/etc")
_VISIBLE_S = 120.0
_POLL_S = 0.05
_BEST_SAMPLE_BYTES = 4_000_000
_COMMAND_S = 900.0


@dataclass(frozen=True, slots=True)
class _Pod:
    name: str
    home: Home
    mount: Path


@command("demo", "wormhole demo", "wormhole demo ~/Pictures")
def demo(
    directory: Annotated[
        str, typer.Argument(metavar="DIR", help="What to import; without it something found on this machine.")
    ] = "",
) -> int:
    """Start three pods here, joined and mounted, to play with.

    Stays until Ctrl-C and then leaves no process, mount or file behind.
    """
    machine.check_fuse()
    source = _source(directory)
    folder = Path(tempfile.mkdtemp(prefix="wormhole-demo-"))
    pods = [_Pod(name, Home(folder / "homes" / name), folder / name) for name in NAMES]
    tell: Callable[[str], None] = note if invocation().json else say
    try:
        _start(pods, tell)
        imported = _import(pods, source, tell)
        _look(pods, source, imported, tell)
        if invocation().json:
            named = [{"pod": pod.name, "home": str(pod.home.path), "mount": str(pod.mount)} for pod in pods]
            document({"pods": named, "source": str(source), "path": f"/{source.name}", **imported})
        _suggest(pods, source, tell)
        with suppress(KeyboardInterrupt):
            while True:
                signal.pause()
    finally:
        _clean_up(pods, folder, tell)
    return 0


def _source(directory: str) -> Path:
    """Return the folder to import: the one named, else the first usual one with a few thousand files."""
    if directory:
        named = Path(directory).expanduser().absolute()
        if not named.is_dir():
            raise NotFoundError(f"{named} is no folder.", "Name a folder of this machine.")
        return named.resolve()
    for candidate in (sysconfig.get_path("stdlib"), *_USUAL_SOURCES):
        if Path(candidate).is_dir() and _is_handy(Path(candidate)):
            return Path(candidate).resolve()
    raise NotFoundError("Nothing was found to import.", "Name a folder: `wormhole demo DIR`.")


def _is_handy(folder: Path) -> bool:
    """Return whether a folder is large enough to show something and small enough not to keep anybody waiting."""
    files = size_bytes = 0
    for root, _folders, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size_bytes += (Path(root) / name).lstat().st_size
                files += 1
        if files > _MOST_FILES or size_bytes > _MOST_BYTES:
            return False
    return files >= _FEWEST_FILES


def _start(pods: list[_Pod], tell: Callable[[str], None]) -> None:
    first, *others = pods
    tell(painted("Three pods on this machine, each with a home of its own", "bold"))
    tell(f"$ wormhole new {CLUSTER} --pod {first.name}")
    made = _wormhole(first, "new", CLUSTER, "--pod", first.name, "--mount", first.mount, "--listen", "127.0.0.1:0")
    code = made["code"]
    for pod in others:
        code = code or _wormhole(first, "invite")["code"]
        tell(f"$ wormhole join --code {code} --pod {pod.name}")
        _wormhole(pod, "join", "--code", code, "--pod", pod.name, "--mount", pod.mount, "--listen", "127.0.0.1:0")
        code = None
    _wait(lambda: all(_alive(pod) == len(pods) for pod in pods), "the pods to see each other")
    tell("Found by multicast, let in by one-time codes, mounted side by side:")
    for pod in pods:
        tell(f"  {pod.name:<8} {pod.mount}")


def _import(pods: list[_Pod], source: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    tell("")
    tell(painted(f"Importing {printable(source)} into {pods[0].name}", "bold"))
    began_s = time.monotonic()
    imported = _wormhole(pods[0], "import", source, f"tree:/{source.name}", fine=(0, 1))
    took_s = time.monotonic() - began_s
    tell(f"{count(imported['files'], 'file')}, {size(imported['bytes'])} in {took_s:.1f} s.")
    if imported["skipped"]:
        tell(f"{count(len(imported['skipped']), 'entry', 'entries')} could not be read and were left out.")
    return {"files": imported["files"], "bytes": imported["bytes"]}


def _look(pods: list[_Pod], source: Path, imported: dict[str, Any], tell: Callable[[str], None]) -> None:
    """Show on the others that it is there, what was fetched and which pod holds what."""
    began_s = time.monotonic()
    expected = _files(pods[0])
    _wait(lambda: all(_files(pod) == expected for pod in pods[1:]), "the others to list the files")
    tell(f"Every pod lists them {time.monotonic() - began_s:.1f} s after the last one was stored.")
    _wormhole(pods[0], "sync", "--timeout", "10m")
    tell("Each file has its two copies, on two of the three pods:")
    _stores(pods)
    reader, sample, facts = _sample(pods, source)
    if reader is None or sample is None:
        return
    path = f"/{source.name}/{sample}"
    tell("")
    tell(painted(f"Reading {printable(path)} on {reader.name}, which has not got it", "bold"))
    tell(f"kept by {', '.join(facts['kept'])}; on {reader.name}: {facts['local']}")
    began_s = time.monotonic()
    through = (reader.mount / source.name / sample).read_bytes()
    took_ms = (time.monotonic() - began_s) * 1000
    same = hashlib.sha256(through).digest() == hashlib.sha256((source / sample).read_bytes()).digest()
    tell(f"{size(len(through))} fetched in {took_ms:.0f} ms, {'the same bytes' if same else 'NOT the same bytes'}.")
    after = call(reader.home, "where", {"path": path})
    tell(f"on {reader.name} now: {after['local']} (`wormhole where` shows it)")
    if not same:
        raise WormholeError(f"{path} reads differently on {reader.name}.", "Please report it.")


def _stores(pods: list[_Pod]) -> None:
    rows = []
    for pod in pods:
        status = call(pod.home, "status")
        files, room = status["files"], status["bytes"]
        assert isinstance(files, dict)
        assert isinstance(room, dict)
        rows.append((pod.name, f"{files['total']:,}", size(room["used"]), status["situation"]))
    if not invocation().json:
        table(("pod", "files listed", "stored on its disk", "situation"), rows, right=frozenset({"files listed"}))


def _sample(pods: list[_Pod], source: Path) -> tuple[_Pod | None, Path | None, dict[str, Any]]:
    """Find a fairly large file that some pod has nothing of."""
    found: list[tuple[int, Path]] = []
    for root, _folders, names in os.walk(source):
        for name in names:
            path = Path(root) / name
            with suppress(OSError):
                if path.is_file() and not path.is_symlink() and path.stat().st_size <= _BEST_SAMPLE_BYTES:
                    found.append((path.stat().st_size, path.relative_to(source)))
    for _size_bytes, sample in sorted(found, reverse=True)[:20]:
        for pod in reversed(pods):
            with suppress(NotFoundError):
                facts = call(pod.home, "where", {"path": f"/{source.name}/{sample}"})
                if facts["local"] == "none":
                    return pod, sample, facts
    return None, None, {}


def _suggest(pods: list[_Pod], source: Path, tell: Callable[[str], None]) -> None:
    laptop, desktop, nas = pods
    program = Path(sys.argv[0]).absolute()
    lines = (
        f"ls {desktop.mount}/{source.name}",
        f"echo hello > {laptop.mount}/note.txt; cat {nas.mount}/note.txt",
        f"{program} --home {nas.home.path} pods",
        f"{program} --home {nas.home.path} where /note.txt",
        f"{program} --home {laptop.home.path} status --watch",
        f"{program} --home {laptop.home.path} down; ls {nas.mount}; {program} --home {laptop.home.path} up",
    )
    tell("")
    tell(painted("Try next, in another terminal", "bold"))
    for line in lines:
        tell(f"  {printable(line)}")
    tell("")
    tell("Ctrl-C ends the demo and leaves nothing behind.")


def _wormhole(pod: _Pod, *arguments: str | Path, fine: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """Run a command as a person does and return its JSON document; its progress shows. Raises what it failed with."""
    line = [sys.executable, "-m", "cli", "--home", str(pod.home.path), "--json", *map(str, arguments)]
    environment = {key: value for key, value in os.environ.items() if key != HOME_VARIABLE}
    bars = arguments[0] == "import"
    process = subprocess.Popen(
        line,
        cwd="/",
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if bars else subprocess.PIPE,
        text=True,
        errors="surrogateescape",
    )
    try:
        output, errors = process.communicate(timeout=_COMMAND_S)
    except BaseException:
        daemon.end(process)
        raise
    if process.returncode not in fine:
        told = [text for text in (errors or "").splitlines() if text.strip()]
        start = next((number for number, text in enumerate(told) if text.startswith("wormhole: ")), 0)
        message, advice = (*told[start:], "", "")[:2]
        kinds = {kind.exit_code: kind for kind in reversed(KINDS.values())}
        kind = kinds.get(process.returncode, WormholeError)
        raise kind(message.removeprefix("wormhole: ") or f"`wormhole {arguments[0]}` failed on {pod.name}.", advice)
    result: dict[str, Any] = json.loads(output) if output.strip() else {}
    return result


def _alive(pod: _Pod) -> int:
    members = call(pod.home, "pods")["pods"]
    assert isinstance(members, list)
    return sum(member["state"] == "alive" for member in members)


def _files(pod: _Pod) -> object:
    files = call(pod.home, "status")["files"]
    assert isinstance(files, dict)
    return files["total"]


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + _VISIBLE_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise UnreachableError(f"Waited {_VISIBLE_S:g} s in vain for {what}.", "Try `wormhole demo` again.")
        time.sleep(_POLL_S)


def _clean_up(pods: list[_Pod], folder: Path, tell: Callable[[str], None]) -> None:
    """End the pods, take the mounts off, delete the folder; nothing may interrupt or fail it half way."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        tell("\nEnding the demo ...")
    for pod in reversed(pods):
        pid = holder(pod.home)
        if pid is not None:
            try:
                daemon.stop(pod.home)
            except WormholeError:
                with suppress(WormholeError):
                    daemon.kill(pod.home, pid)
        with suppress(WormholeError, OSError):
            machine.clear_stale_mount(pod.mount)
    if any(pod.mount.is_mount() for pod in pods):
        note(f"A mount below {folder} is still in use; `umount -l` it, then delete {folder}.")
        return
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        tell("Nothing of it is left.")
