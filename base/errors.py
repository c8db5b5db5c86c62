"""The one error hierarchy: each class has an exit code for the shell and an errno for the mount.

A message is one sentence on what is wrong; the advice is one sentence on what to do. People see both, never a
traceback. An error crosses the control socket and the mesh as ``(kind, message, advice)``.
"""

from __future__ import annotations

import errno
from typing import ClassVar


class WormholeError(Exception):
    """Base of all errors that people see."""

    exit_code: ClassVar[int] = 1
    default_errno: ClassVar[int] = errno.EIO

    def __init__(self, message: str, advice: str = "", *, errno: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice
        self.errno = self.default_errno if errno is None else errno

    def __str__(self) -> str:
        return f"{self.message} {self.advice}".strip()


class UsageError(WormholeError):
    """Wrong usage: an unknown option, a missing answer without a terminal."""

    exit_code = 2
    default_errno = errno.EINVAL


class NotFoundError(WormholeError):
    """A path, a cluster or a pod that isn't there."""

    exit_code = 3
    default_errno = errno.ENOENT


class RefusedError(WormholeError):
    """Refused by rights, admission or integrity, or not safe."""

    exit_code = 4
    default_errno = errno.EACCES


class NamesakeError(RefusedError):
    """Another process runs with this pod's key, from a copy of its home: this one must stop."""


class UnreachableError(WormholeError):
    """No answer in time, or nobody to answer."""

    exit_code = 5
    default_errno = errno.EIO


class ConfigError(WormholeError):
    """Bad configuration; the message has one line for each error, ``FILE:LINE: key: what is wrong``."""

    exit_code = 6
    default_errno = errno.EINVAL


class NotRunningError(WormholeError):
    """No such pod on this machine, or it isn't running."""

    exit_code = 7
    default_errno = errno.ENOTCONN


class DamagedError(WormholeError):
    """Stored or received data contradicts its hash, its signature or its format."""

    exit_code = 8
    default_errno = errno.EIO


class MachineError(WormholeError):
    """This machine can't: no /dev/fuse, a port or mount point in use, a full disk."""

    exit_code = 9
    default_errno = errno.EIO


class NoSpaceError(MachineError):
    """The disk or a configured limit is full."""

    default_errno = errno.ENOSPC


class FileSystemError(WormholeError):
    """An operation on the tree that POSIX refuses; always made with an explicit errno."""

    def __init__(self, errno_value: int, message: str = "") -> None:
        super().__init__(message or errno.errorcode.get(errno_value, "error"), errno=errno_value)


KINDS: dict[str, type[WormholeError]] = {
    kind.__name__: kind
    for kind in (
        WormholeError,
        UsageError,
        NotFoundError,
        RefusedError,
        NamesakeError,
        UnreachableError,
        ConfigError,
        NotRunningError,
        DamagedError,
        MachineError,
        NoSpaceError,
    )
}


def to_wire(error: WormholeError) -> list[object]:
    """Return ``[kind, message, advice, errno]`` for the control socket or the mesh."""
    kind = type(error).__name__ if type(error).__name__ in KINDS else "WormholeError"
    return [kind, error.message, error.advice, error.errno]


def from_wire(value: object) -> WormholeError:
    """Rebuild an error sent by `to_wire`; anything else becomes a `DamagedError`."""
    match value:
        case [str(kind), str(message), str(advice), int(number)]:
            return KINDS.get(kind, WormholeError)(message, advice, errno=number)
    return DamagedError("The other side sent an error that can't be read.")
