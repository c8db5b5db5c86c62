"""`wormhole`: reads the line, runs one command, turns whatever happens into an exit code and at most two sentences.

Must start fast: commands import what they need when they need it. Must never show a traceback.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.exceptions import Abort, Exit, TyperException

from base.errors import ConfigError, UsageError, WormholeError
from base.home import state_directory
from commands import (
    autostart,
    configuring,
    conflicts,
    demo,
    evicting,
    founding,
    freezing,
    importing,
    invite,
    joining,
    leaving,
    maintenance,
    mounting,
    nearby,
    pinning,
    planning,
    pods,
    prepare,
    reconfiguring,
    requests,
    running,
    scrub,
    status,
    sync,
    trash,
    unplugging,
    where,
    why,
)
from commands.invocation import COMMANDS, Invocation, begin

PROGRAM = "wormhole"
MODULES = (
    founding,
    joining,
    nearby,
    invite,
    requests,
    running,
    autostart,
    mounting,
    pods,
    status,
    where,
    why,
    pinning,
    prepare,
    sync,
    conflicts,
    trash,
    importing,
    configuring,
    reconfiguring,
    unplugging,
    planning,
    freezing,
    leaving,
    maintenance,
    evicting,
    scrub,
    demo,
)
"""Each registers its commands when it is imported; this is the order of the help text."""

_WITH_VALUE = ("--home", "--cluster")
_FLAGS = ("--json", "--yes")
_LOG_LIMIT_BYTES = 1 << 20
_NUMBER = re.compile(r"-[0-9]+")
_GROUPS = {
    "config": "Show and change the configuration, of the cluster or of this pod.",
    "conflicts": "List files changed on two pods at the same time; keep one version.",
    "trash": "List what was deleted or overwritten; restore it, or remove it for good.",
}
_LISTING = ("conflicts", "trash")
"""Groups whose name alone, or with something that is no command of theirs, lists."""


class _Signalled(BaseException):
    """A signal asks to end: everything on the way out cleans up."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main() -> NoReturn:
    """Run the command on the process's own line (the console script)."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # file names need not be UTF-8
            stream.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:
        _silence_stdout()
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run the command of ``arguments`` and return the exit code."""
    try:
        with _signals_as_exceptions():
            line = hoist(arguments)
            if not line:
                sys.stderr.write(_help())
                return UsageError.exit_code
            code = application()(line, prog_name=PROGRAM, standalone_mode=False)
            return code if isinstance(code, int) else 0
    except WormholeError as error:
        return _fail(error.message, error.advice, error.exit_code)
    except TyperException as error:
        return _wrong_usage(error)
    except Exit as exit_:
        return exit_.exit_code
    except (KeyboardInterrupt, Abort):
        return 128 + signal.SIGINT
    except _Signalled as signalled:
        return 128 + signalled.number
    except (BrokenPipeError, SystemExit):  # typer exits by itself only when stdout is closed
        _silence_stdout()
        return 128 + signal.SIGPIPE
    except OSError as error:
        return _system_error(error)
    except Exception as error:
        return _unforeseen(error)


def hoist(arguments: list[str]) -> list[str]:
    """Return the line with the global options first, wherever they stood before ``--``. Raises `UsageError`."""
    options: list[str] = []
    others: list[str] = []
    rest = iter(arguments)
    for word in rest:
        name, equals, _value = word.partition("=")
        if word == "--":
            others += [word, *rest]
        elif word in _FLAGS or (equals and name in _WITH_VALUE):
            options.append(word)
        elif word in _WITH_VALUE:
            value = next(rest, None)
            if value is None or value == "--":
                raise UsageError(f"{word} needs a value.", f"See `{PROGRAM} --help`.")
            options.append(f"{word}={value}")
        else:
            others.append(word)
    return [*options, *_listed(_negative(others))]


def _negative(words: list[str]) -> list[str]:
    """Return ``config set affinity.cold -10 --pod-level`` with the number behind all options: it is none."""
    numbers = [word for word in words if _NUMBER.fullmatch(word)]
    if words[:2] != ["config", "set"] or not numbers or "--" in words:
        return words
    return [*(word for word in words if word not in numbers), "--", *numbers]


def _listed(words: list[str]) -> list[str]:
    """Return ``trash photos`` as ``trash list photos``."""
    if not words or words[0] not in _LISTING:
        return words
    known = {command.name.partition(" ")[2] for command in COMMANDS if command.name.startswith(f"{words[0]} ")}
    if len(words) > 1 and words[1] in {*known, "-h", "--help"}:
        return words
    return [words[0], "list", *words[1:]]


def application() -> typer.Typer:
    """Build the command line."""
    app = typer.Typer(
        name=PROGRAM,
        help="One folder over all your machines.",
        epilog="'wormhole COMMAND --help' shows examples. --home, --cluster, --json and --yes may stand anywhere.",
        add_completion=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_global_options)
    groups: dict[str, typer.Typer] = {}
    names = [module.__name__ for module in MODULES]
    for command in sorted(COMMANDS, key=lambda command: names.index(command.function.__module__)):
        group, _space, name = command.name.rpartition(" ")
        if group and group not in groups:
            groups[group] = typer.Typer(help=_GROUPS[group], rich_markup_mode=None)
            app.add_typer(groups[group], name=group)
        parent = groups[group] if group else app
        parent.command(name, epilog=_examples(command.examples))(command.function)
    return app


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import version

    sys.stdout.write(f"{PROGRAM} {version('wormhole-mesh')}\n")
    raise Exit(0)


def _global_options(
    home: Annotated[str, typer.Option("--home", metavar="DIR", help="The pod's home.")] = "",
    cluster: Annotated[
        str, typer.Option("--cluster", metavar="NAME", help="Which cluster, if this machine is in several.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Answer every question with yes.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    begin(Invocation(Path(home) if home else None, cluster or None, json, yes))


def _examples(lines: tuple[str, ...]) -> str:
    return "\n".join(["\b", "Examples:" if len(lines) > 1 else "Example:", *(f"  {line}" for line in lines)])


def _help() -> str:
    command = typer.main.get_command(application())
    with command.make_context(PROGRAM, [], resilient_parsing=True) as context:
        return command.get_help(context) + "\n"


@contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command as an interrupt does, through every `finally`."""

    def raise_it(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # once is enough: cleaning up is not interrupted
        raise _Signalled(number)

    before: dict[int, Any] = {}
    for number in (int(signal.SIGTERM), int(signal.SIGHUP)):
        if signal.getsignal(number) is signal.SIG_DFL:  # under nohup it stays ignored
            before[number] = signal.signal(number, raise_it)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_PLACED = re.compile(r".+:[0-9]+: ")
"""How each line of what is wrong with a configuration begins: with its file and line."""


def _fail(message: str, advice: str, code: int) -> int:
    """Print what is wrong and what to do, and return ``code``."""
    lines = message.strip().splitlines() or ["it failed"]
    with suppress(OSError):
        if code == ConfigError.exit_code and all(_PLACED.match(line) for line in lines):
            sys.stderr.write("".join(f"{line}\n" for line in lines))
        else:
            sys.stderr.write(f"{PROGRAM}: {' '.join(lines)}\n")
        if advice:
            sys.stderr.write(f"{advice}\n")
        sys.stderr.flush()
    return code


def _wrong_usage(error: TyperException) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else PROGRAM
    text = " ".join(error.format_message().replace("Value error, ", "").split())
    return _fail(text if text.endswith((".", "?")) else f"{text}.", f"See `{path} --help`.", UsageError.exit_code)


def _system_error(error: OSError) -> int:
    """The system refused something of this command's own: a full disk, missing rights."""
    what = error.strerror or str(error)
    where = f": {error.filename}" if error.filename is not None else ""
    log = _write_traceback(error)
    return _fail(f"This machine refused it{where}: {what}.", f"The details are in {log}." if log else "", 9)


def _unforeseen(error: Exception) -> int:
    log = _write_traceback(error)
    at = f"; the details are in {log}" if log else ""
    return _fail(f"It failed in a way that was not foreseen ({type(error).__name__}){at}.", "Please report it.", 1)


def _write_traceback(error: BaseException) -> Path | None:
    """Append the traceback to a log of bounded size; return where, or None when nowhere can be written."""
    text = f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}\n{''.join(traceback.format_exception(error))}"
    for folder in (state_directory(), Path(tempfile.gettempdir()) / f"wormhole-{os.getuid()}"):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = folder / "commands.log"
            full = path.exists() and path.stat().st_size > _LOG_LIMIT_BYTES
            with path.open("w" if full else "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            return path
    return None


def _silence_stdout() -> None:
    """Whoever read stdout is gone: let nothing more fail on it, the interpreter's own last flush included."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


if __name__ == "__main__":
    main()
