"""The one place where errors become error numbers: nothing that a handler raises may end the mount."""

from __future__ import annotations

import errno
import functools
import logging
import traceback
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import pyfuse3
import trio

from base.errors import WormholeError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from vfs.hold import Hold

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_LOGGED_LIMIT: Final = 256
_PASS: Final = (trio.Cancelled, KeyboardInterrupt, SystemExit, GeneratorExit)

_logged: set[tuple[str, str]] = set()


def _leaf(error: BaseException) -> BaseException:
    """Return the first single exception in a group; a cancellation in it goes before."""
    while isinstance(error, BaseExceptionGroup):
        inner = [_leaf(each) for each in error.exceptions]
        error = next((each for each in inner if isinstance(each, _PASS)), inner[0])
    return error


def errno_of(error: BaseException, doing: str) -> int:
    """Return the error number for an exception; an unknown one is logged, the first of its place with a traceback."""
    if isinstance(error, BaseExceptionGroup):
        error = _leaf(error)
    if isinstance(error, WormholeError):
        return error.errno or errno.EIO
    if isinstance(error, OSError) and error.errno:
        log.warning("%s failed: %s", doing, error)
        return error.errno if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else errno.EIO
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "?"
    key = (type(error).__name__, place)
    if key not in _logged and len(_logged) < _LOGGED_LIMIT:
        _logged.add(key)
        log.error("%s failed unexpectedly", doing, exc_info=error)
    else:
        log.error("%s failed again: %s at %s", doing, type(error).__name__, place)
    return errno.EIO


def guarded(handler: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Wrap a pyfuse3 handler: whatever it raises reaches the caller as an error number, and so does what is held up.

    The handler's first argument is the object that it belongs to; its ``hold`` (`vfs.hold.Hold`), if it has one, is asked.
    """
    name = handler.__name__

    @functools.wraps(handler)
    async def boundary(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            hold: Hold | None = getattr(args[0], "hold", None) if args else None
            if hold is not None and hold.is_on:
                hold.check(name, args)
            return await handler(*args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except _PASS:
            raise
        # A panic of the Rust below pycrdt is no Exception, and must not end the mount either.
        except BaseException as error:
            if isinstance(_leaf(error), _PASS):
                raise
            raise pyfuse3.FUSEError(errno_of(error, name)) from None

    return boundary
