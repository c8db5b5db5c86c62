"""The laboratory as a fixture: three hosts, joined by codes over real multicast."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.cluster.lab import Lab, lab


@pytest.fixture(scope="module")
def three() -> Iterator[Lab]:
    """A running cluster *home* over laptop, desktop and nas."""
    assert os.geteuid() == 0, "network namespaces need root: run the tests as root"
    with lab(3) as made:
        made.cluster("home")
        yield made


@pytest.fixture
def bare() -> Iterator[Lab]:
    """Three hosts without any pod."""
    with lab(3) as made:
        yield made
