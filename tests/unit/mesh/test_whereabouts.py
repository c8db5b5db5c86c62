"""Under which address a pod is told to be found while links come and its machine's addresses change."""

from __future__ import annotations

import pytest

from mesh import whereabouts
from mesh.whereabouts import Whereabouts


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What the machine has besides loopback; its routes lead by the least one."""
    hosts: set[str] = set()
    monkeypatch.setattr(whereabouts, "is_own", lambda host: host in hosts)
    monkeypatch.setattr(whereabouts, "own_host", lambda: min(hosts, default="127.0.0.1"))
    return hosts


def test_a_machine_with_both_kinds_is_told_under_the_older_one(own: set[str]) -> None:
    own |= {"10.0.0.2", "fd00::2"}
    pod = Whereabouts("0.0.0.0:7420")
    pod.linked_at("fd00::2")
    assert pod.address == "[fd00::2]:7420", "the only one that is known to work"
    pod.linked_at("10.0.0.2")
    assert pod.address == "10.0.0.2:7420"
    pod.linked_at("fd00::2")
    assert pod.address == "10.0.0.2:7420"


def test_what_the_machine_has_instead_is_told_without_a_link_that_shows_it(own: set[str]) -> None:
    own |= {"10.0.0.2", "fd00::2"}
    pod = Whereabouts("0.0.0.0:7420")
    pod.linked_at("10.0.0.2")
    pod.linked_at("fd00::2")
    own.remove("10.0.0.2")
    assert pod.address == "[fd00::2]:7420", "between two leases"
    own.add("10.0.0.42")
    assert pod.address == "10.0.0.42:7420"
    own.clear()
    assert pod.address == "10.0.0.2:7420", "without a cable there is nothing to be told"
    own.add("fd00::3")
    assert pod.address == "[fd00::3]:7420"


def test_one_kind_only(own: set[str]) -> None:
    pod = Whereabouts("0.0.0.0:7420")
    assert pod.address == "127.0.0.1:7420"
    own.add("fd00::2")
    assert pod.address == "[fd00::2]:7420"
    pod.linked_at("127.0.0.1")
    assert pod.address == "[fd00::2]:7420"
    own |= {"10.0.0.2", "10.0.0.3"}
    pod.linked_at("10.0.0.3")
    assert pod.address == "10.0.0.3:7420", "the other network's may lead nowhere"
    fixed = Whereabouts("10.0.0.2:7420")
    fixed.linked_at("10.0.0.3")
    assert fixed.address == "10.0.0.2:7420"
