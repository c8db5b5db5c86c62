"""Attributes below ``user.wormhole.`` that can be set: with the file wherever it goes, on every pod, never listed."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

from base.ids import EMPTY_CONTENT, hash_bytes
from tests.mount.conftest import pytestmark  # noqa: F401

COPIES = "user.wormhole.copies"


def test_they_stay_with_the_file(pod, work):
    path = work / "file"
    path.write_bytes(b"x")
    os.setxattr(path, COPIES, b"3")
    os.setxattr(path, "user.other", b"o")
    assert os.getxattr(path, COPIES) == b"3"
    assert os.listxattr(path) == ["user.other"], "never listed"
    path.rename(work / "renamed")
    os.link(work / "renamed", work / "twin")
    (work / "renamed").write_bytes(b"another content")
    assert os.getxattr(work / "twin", COPIES) == b"3"
    shutil.copy2(work / "twin", work / "copied")
    assert os.getxattr(work / "copied", COPIES) == b"0", "a copy is another file"
    os.removexattr(work / "twin", COPIES)
    assert os.getxattr(work / "renamed", COPIES) == b"0"
    with pytest.raises(OSError) as error:
        os.removexattr(work / "renamed", COPIES)
    assert error.value.errno == errno.ENODATA


def test_on_a_file_that_was_just_made_or_has_no_name_any_more(pod, work):
    path = work / "file"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.setxattr(path, COPIES, b"2")
    assert os.getxattr(descriptor, COPIES) == b"2"
    path.unlink()
    os.setxattr(descriptor, "user.other", b"o")
    assert os.listxattr(descriptor) == ["user.other"]
    os.close(descriptor)


def test_they_last(fresh):
    path = fresh.mount / "file"
    path.write_bytes(b"x")
    os.setxattr(path, COPIES, b"5")
    fresh.settled()
    fresh.kill()
    fresh.start()
    assert os.getxattr(path, COPIES) == b"5"


def test_they_speak_of_what_was_closed_a_moment_ago(pod, work):
    for number in range(20):
        path, data = work / f"{number}", os.urandom(5000)
        path.write_bytes(data)
        assert os.getxattr(path, "user.wormhole.content").decode() == hash_bytes(data).hex()
    path.write_bytes(b"rewritten")
    assert os.getxattr(path, "user.wormhole.content").decode() == hash_bytes(b"rewritten").hex()
    with (work / "open").open("wb") as file:
        file.write(b"not closed yet")
        assert os.getxattr(file.fileno(), "user.wormhole.content").decode() == EMPTY_CONTENT.hex()
