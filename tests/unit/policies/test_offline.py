"""What is said of a pod without a network."""

from __future__ import annotations

import pytest

from policies.config import parse_cluster, parse_pod
from policies.offline import Missing, cautions, changes


@pytest.mark.parametrize(
    ("missing", "reason", "may_come"),
    [
        (Missing(10, True, ["a", "b", "c"], [], 100), "not fetched yet from a, b and c", True),
        (Missing(10, True, ["a"], ["b"], 9), "no room: 9 B are free here", False),
        (Missing(10, True, [], ["nas"], 100), "only on nas, which can't be reached", False),
        (Missing(10, True, [], [], 100), "no pod is known to have it", False),
        (Missing(10, False, ["a"], [], 100), "its own attribute user.wormhole.keep, or a later rule", False),
    ],
)
def test_why_something_is_missing(missing, reason, may_come):
    assert missing.reason.startswith(reason)
    assert missing.may_come is may_come


@pytest.mark.parametrize(
    ("reaction", "is_client", "is_alone", "answer"),
    [
        ("continue", False, False, "yes"),
        ("freeze", False, False, "read-only"),
        ("stop", False, False, "no"),
        ("stop", False, True, "yes"),
        ("continue", True, False, "read-only"),
    ],
)
def test_what_can_be_changed(reaction, is_client, is_alone, answer):
    pod = parse_pod(f'[disconnected]\nreaction = "{reaction}"\n', "pod.toml")
    assert changes(pod, is_client=is_client, is_alone=is_alone).answer == answer


def test_what_would_surprise():
    plain, strict = parse_cluster(""), parse_cluster("[redundancy]\nacknowledge = 2\n")
    assert cautions(plain, is_client=False, mount="/m") == []
    (about_fsync,) = cautions(strict, is_client=False, mount="/m")
    assert "redundancy.acknowledge = 2" in about_fsync
    assert len(cautions(strict, is_client=True, mount=None)) == 1
