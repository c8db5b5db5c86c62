"""Bytes go only when everybody has answered, and what is used again meanwhile stays."""

from __future__ import annotations

from crdt_meta.consent import Consent
from tests.unit.crdt_meta.pods import Pod, content, exchange


def test_bytes_go_when_everybody_has_answered(ann: Pod, bob: Pod) -> None:
    consent = Consent(ann.meta.acknowledgements)
    counted, unwanted = [bob.writer], content("old")
    consent.turn(counted, [], lambda: ann.meta.acknowledgements.write({}, asks=True))
    assert not consent.may_go(unwanted)
    consent.turn(counted, [], lambda: ann.meta.acknowledgements.write({}, asks=True))
    consent.turn(counted, [], lambda: ann.meta.acknowledgements.write({}, asks=True))
    assert not consent.may_go(unwanted), "nobody has answered"
    exchange(ann, bob)
    assert bob.meta.acknowledgements.wanted([ann.writer])
    bob.meta.acknowledgements.write({}, asks=False)
    exchange(ann, bob)
    consent.turn(counted, [], lambda: ann.meta.acknowledgements.write({}, asks=True))
    assert consent.may_go(unwanted)
    consent.used([unwanted])
    assert not consent.may_go(unwanted), "it was used again since"


def test_who_is_alone_asks_nobody(ann: Pod) -> None:
    consent = Consent(ann.meta.acknowledgements)
    assert not consent.may_go(content("old")), "nobody looked yet whether others count"
    consent.turn([], [], lambda: ann.meta.acknowledgements.write({}, asks=True))
    assert consent.may_go(content("old"))


def test_what_is_used_while_the_others_are_asked_stays(ann: Pod, bob: Pod) -> None:
    consent = Consent(ann.meta.acknowledgements)
    unwanted = content("old")
    assert not consent.may_go(unwanted)
    consent.turn([bob.writer], [], lambda: ann.meta.acknowledgements.write({}, asks=True))
    consent.used([unwanted])
    exchange(ann, bob)
    bob.meta.acknowledgements.write({}, asks=False)
    exchange(ann, bob)
    consent.turn([bob.writer], [], lambda: ann.meta.acknowledgements.write({}, asks=True))
    assert not consent.may_go(unwanted)
