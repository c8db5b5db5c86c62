"""What a PATH on the line means."""

from __future__ import annotations

from pathlib import Path

import pytest

from base.errors import UsageError
from commands.paths import tree_path

MOUNT = "/home/ann/Wormhole"


@pytest.mark.parametrize(
    ("given", "mount", "cwd", "meant"),
    [
        ("/home/ann/Wormhole/photos/a.jpg", MOUNT, "/", "/photos/a.jpg"),
        ("/home/ann/Wormhole", MOUNT, "/", "/"),
        ("/home/ann/Wormhole/", MOUNT, "/", "/"),
        ("/home/ann/Wormholes/x", MOUNT, "/", "/home/ann/Wormholes/x"),
        ("a.jpg", MOUNT, f"{MOUNT}/photos", "/photos/a.jpg"),
        ("../b/./c", MOUNT, f"{MOUNT}/photos", "/b/c"),
        (".", MOUNT, MOUNT, "/"),
        ("photos/a.jpg", MOUNT, "/home/ann", "/photos/a.jpg"),
        ("/photos/a.jpg", MOUNT, "/home/ann", "/photos/a.jpg"),
        ("//photos//a.jpg", MOUNT, "/home/ann", "/photos/a.jpg"),
        ("tree:/home/ann/Wormhole/x", MOUNT, MOUNT, "/home/ann/Wormhole/x"),
        ("tree:x", MOUNT, f"{MOUNT}/photos", "/x"),
        ("x", None, "/anywhere", "/x"),
        ("/x/../y", None, "/anywhere", "/y"),
        ("../../etc", None, "/anywhere", "/etc"),
        ("a\udcff", MOUNT, MOUNT, "/a\udcff"),
        ("", MOUNT, "/", "/"),
    ],
)
def test_meaning(given: str, mount: str | None, cwd: str, meant: str) -> None:
    assert tree_path(given, mount, cwd) == meant


def test_a_relative_path_out_of_the_mount_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="leads out"):
        tree_path("../../secret", MOUNT, f"{MOUNT}/photos")


def test_a_link_to_the_mount_is_followed_and_a_link_in_the_tree_is_not(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    (mount / "photos").mkdir(parents=True)
    (tmp_path / "short").symlink_to(mount)
    (mount / "photos" / "link").symlink_to("/etc/passwd")
    assert tree_path(f"{tmp_path}/short/photos/link", str(mount), "/") == "/photos/link"
