"""People for the command line's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.runner import Person, end_pods


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    """Somebody whose pods are ended and unmounted, whatever the test did."""
    yield Person(tmp_path)
    end_pods(tmp_path)
