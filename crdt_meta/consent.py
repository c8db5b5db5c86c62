"""May the bytes of a content go that nothing here refers to any more? Only when nobody else can still bring it back.

Somebody may restore a file from the trash before hearing that it was purged. So who wants to drop bytes asks, as before
records are collected (`acknowledgement`): everybody's answer comes behind whatever they had done in ignorance. What is
referred to again meanwhile is asked for anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final

from base.ids import ContentId, WriterId
from crdt_meta.acknowledgement import Acknowledgements, Vector, content_mark

CONTENTS_LIMIT: Final = 100_000
"""So many contents are asked for at a time; the others later."""


class Consent:
    """Gathers what shall go, asks for it together, and remembers the answer."""

    def __init__(self, acks: Acknowledgements) -> None:
        self.on_wanted: Callable[[], None] = lambda: None
        """Told when others have to be asked: soon, please."""
        self.on_granted: Callable[[], None] = lambda: None
        self._acks = acks
        self._alone = False
        self._wanted: set[ContentId] = set()
        self._asked: tuple[Vector, set[ContentId]] | None = None
        self._granted: set[ContentId] = set()

    def may_go(self, content: ContentId) -> bool:
        """Tell whether everybody agreed that a content is of no use; if not, they are asked soon."""
        if self._alone or content in self._granted:
            return True
        if len(self._wanted) < CONTENTS_LIMIT and (self._asked is None or content not in self._asked[1]):
            self._wanted.add(content)
            self.on_wanted()
        return False

    def used(self, contents: Iterable[ContentId]) -> None:
        """Note that these gained or lost a reference: an earlier answer is worth nothing any more."""
        self._granted.difference_update(contents)
        if self._asked is not None:
            self._asked[1].difference_update(contents)

    def turn(
        self, counted: Collection[WriterId], retired: Collection[WriterId], acknowledge: Callable[[], Vector]
    ) -> None:
        """Look for answers, and ask for what was wanted since; ``counted``: the writers whose answer is needed."""
        self._alone = not counted
        if self._alone and self._wanted:
            self._wanted.clear()
            self.on_granted()
        if self._asked is not None and self._acks.have(self._asked[0], counted, retired):
            if len(self._granted) > CONTENTS_LIMIT:
                self._granted.clear()
            busy = self._acks.may_come_back(counted)
            self._granted.update(content for content in self._asked[1] if not busy(content_mark(content)))
            self._asked = None
            self.on_granted()
        if self._wanted and self._asked is None:
            wanted, self._wanted = self._wanted, set()
            self._asked = acknowledge(), wanted
