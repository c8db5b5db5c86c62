"""Logging of what strangers do: once per address and reason, so that nobody can fill the log."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

QUIET_S: Final = 60.0
MAX_KEYS: Final = 1024


class QuietLog:
    """Logs a message at most once a minute for each key, and remembers a bounded number of keys."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float]) -> None:
        self._logger = logger
        self._clock = clock
        self._last: OrderedDict[str, float] = OrderedDict()

    def warning(self, key: str, message: str) -> bool:
        """Log ``message`` unless something was logged for ``key`` within the last minute; tell whether it was."""
        now = self._clock()
        last = self._last.get(key)
        if last is not None and now - last < QUIET_S:
            return False
        self._last[key] = now
        self._last.move_to_end(key)
        if len(self._last) > MAX_KEYS:
            self._last.popitem(last=False)
        self._logger.warning("%s", message)
        return True
