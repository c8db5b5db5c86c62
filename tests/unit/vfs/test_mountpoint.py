import os
import subprocess
import sys

import pytest

from base.errors import MachineError
from vfs import mountpoint


def test_a_missing_directory_is_made(tmp_path):
    mountpoint.prepare(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    mountpoint.prepare(tmp_path / "a" / "b")


def test_a_directory_with_something_in_it_and_a_file_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(MachineError, match="not empty"):
        mountpoint.prepare(tmp_path)
    with pytest.raises(MachineError, match="not a directory"):
        mountpoint.prepare(tmp_path / "file")
    with pytest.raises(MachineError):
        mountpoint.prepare(tmp_path / "file" / "below")


def test_without_the_device_there_is_advice(tmp_path, monkeypatch):
    monkeypatch.setattr(mountpoint, "DEVICE", tmp_path / "fuse")
    with pytest.raises(MachineError) as caught:
        mountpoint.prepare(tmp_path)
    assert caught.value.exit_code == 9
    assert "--no-mount" in caught.value.advice


def test_a_plain_user_without_fusermount_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(mountpoint, "is_root", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="fusermount3"):
        mountpoint.prepare(tmp_path / "mount")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_a_mount_of_somebody_else_is_left_alone(tmp_path):
    point = tmp_path / "with space"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(point)], check=True)
    try:
        assert mountpoint.mounted_at(point) == "tmpfs"
        with pytest.raises(MachineError, match="mounted"):
            mountpoint.prepare(point)
        assert mountpoint.mounted_at(point) == "tmpfs"
    finally:
        subprocess.run(["umount", str(point)], check=True)
    assert mountpoint.mounted_at(point) is None


def test_the_users_of_a_directory_are_found(tmp_path):
    code = "import sys; f = open('kept', 'w'); print(flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        assert child.pid in [pid for pid, _ in mountpoint.users(tmp_path)]
        assert mountpoint.users(tmp_path / "other") == []
    finally:
        child.communicate("")
