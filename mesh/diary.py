"""One line in the log for each change of membership: who was admitted, evicted, left, came, went.

Must never be called more often than something changes: the log is read by people.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from base.ids import PodId
from mesh.api import State
from mesh.roster import PodEntry, Roster

logger = logging.getLogger(__name__)


class Diary:
    """What was written down last of each pod; the roster at the start is known."""

    def __init__(self, me: PodId, roster: Roster) -> None:
        self._me = me
        self._roster = roster
        self._entries = roster.pods()
        self._maintained = {pod for pod in self._entries if roster.is_maintained(pod)}
        self._administrators = {pod for pod in self._entries if roster.is_admin(pod)}
        self._states: dict[PodId, State] = {}

    def roster_changed(self) -> None:
        """Write down what records changed."""
        roster, before = self._roster, self._entries
        self._entries = roster.pods()
        for pod, entry in self._entries.items():
            for line in self._lines(before.get(pod), entry):
                logger.info("%s %s", _called(entry), line)
        maintained = {pod for pod in self._entries if roster.is_maintained(pod)}
        self._tell(maintained - self._maintained, "is in maintenance")
        self._tell(self._maintained - maintained, "is no longer in maintenance")
        administrators = {pod for pod in self._entries if roster.is_admin(pod)}
        self._tell(administrators - self._administrators - (self._entries.keys() - before.keys()), "administers now")
        self._tell(self._administrators - administrators, "administers no longer")
        self._maintained, self._administrators = maintained, administrators

    def looked(self, pods: Iterable[PodId], state_of: Callable[[PodId], State]) -> None:
        """Write down what became of these pods, as far as this one sees it."""
        for pod in pods:
            entry = self._entries.get(pod)
            if entry is None or entry.left or entry.revoked or pod == self._me:
                continue
            state = state_of(pod)
            before, self._states[pod] = self._states.get(pod), state
            if before is not state and (before is not None or state is State.ALIVE):
                logger.info("%s is %s", _called(entry), state.value)

    def _lines(self, before: PodEntry | None, after: PodEntry) -> Iterable[str]:
        if before is None and not after.revoked:
            by = self._entries.get(after.by)
            how = "" if after.trusted else " openly"
            yield f"was admitted{how} as {after.role.value} by {_called(by) if by else 'the recovery key'}"
        if after.left and not (before and before.left):
            yield "has left"
        if after.revoked and not (before and before.revoked):
            yield "is evicted"
        if before and before.revoked and not after.revoked:
            yield "is a member again"

    def _tell(self, pods: Iterable[PodId], what: str) -> None:
        for pod in sorted(pods):
            logger.info("%s %s", _called(self._entries[pod]), what)


def _called(entry: PodEntry) -> str:
    return f"{entry.name} ({entry.pod[:8]})"
