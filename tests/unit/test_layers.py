"""The two modules at the top, which import-linter can't see since they are no packages, are used by nobody."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "base", "commands", "control", "crdt_meta", "discovery", "mesh", "operations", "policies", "transfer", "vfs"
)  # fmt: skip


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_nobody_imports_the_command_line_or_the_composition_root() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert len(files) > 50
    assert not [path for path in files if imported(path) & {"cli", "pod"}]
    assert "pod" not in imported(ROOT / "cli.py")
