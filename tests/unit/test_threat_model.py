"""`docs/threat-model.md`: each guarantee names tests, and they are there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
MODEL = TESTS.parent / "docs" / "threat-model.md"


def test_each_guarantee_names_a_test_that_exists() -> None:
    rows = [line for line in MODEL.read_text().splitlines() if line.startswith("| ") and "| test |" not in line]
    assert len(rows) > 15
    for row in rows:
        guarantee, *_, cell = [part.strip() for part in row.strip("|").split(" | ")]
        named = re.findall(r"`([^`]+)`", cell)
        assert named, guarantee
        file = ""
        for name in named:
            path, _, function = name.partition("::")
            file = path or file
            assert (TESTS / file).exists(), f"{guarantee}: {file}"
            assert not function or f"def {function}(" in (TESTS / file).read_text(), f"{guarantee}: {name}"
