"""The mount's life: start, unmount, killed pods, and what a kill in the middle of writing leaves."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vfs import mountpoint

WRITER = """
import os, sys, time
top, number = sys.argv[1], 0
while True:
    number += 1
    path = f"{top}/synced-{number}"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.write(fd, (f"{number}\\n" * 1000).encode())
    os.fsync(fd)
    if number % 2:
        os.close(fd)
    print("synced", number, flush=True)
    temporary = f"{top}/tmp-{number}"
    with open(temporary, "w") as file:
        file.write(f"{number}\\n" * 20000)
    os.rename(temporary, f"{top}/saved")
    print("saved", number, flush=True)
"""


def kill_in_the_middle(pod, code, top, at_least):
    """Run a writer, kill the pod while it writes, and return what the writer reported."""
    child = subprocess.Popen([sys.executable, "-c", code, str(top)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    lines = []
    assert child.stdout is not None
    for line in child.stdout:
        lines.append(line.decode().split())
        if len(lines) >= at_least:
            break
    pod.kill()
    lines += [line.decode().split() for line in child.stdout]
    child.wait(30)
    return lines


def test_killed_in_the_middle_of_writing(fresh):
    for turn in range(3):
        top = fresh.mount / f"turn-{turn}"
        top.mkdir()
        (top / "saved").write_text("0\n" * 20000)
        fd = os.open(top, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        lines = kill_in_the_middle(fresh, WRITER, top, 40 + 7 * turn)
        with pytest.raises(OSError) as caught:
            os.listdir(top)
        assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
        fresh.start()
        synced = [int(number) for word, number in lines if word == "synced"]
        assert len(synced) > 10
        for number in synced:
            assert (top / f"synced-{number}").read_text() == f"{number}\n" * 1000
        saved = (top / "saved").read_text()
        assert len(saved.split()) == 20000
        assert len(set(saved.split())) == 1
        for name in os.listdir(top):
            lines_of = (top / name).read_text().split()
            assert len(set(lines_of)) <= 1
            assert len(lines_of) in (0, 1000, 20000)


def test_a_kill_brings_back_neither_older_versions_nor_removed_files(fresh):
    """What was made durable by fsync and then published, or removed, is not published again at the next start."""
    path, gone, open_one = (fresh.mount / name for name in ("f", "gone", "open"))
    for each in (path, gone, open_one):
        each.write_bytes(b"published")
    fresh.settled()
    fds = {each: os.open(each, os.O_RDWR) for each in (path, gone, open_one)}
    for fd in fds.values():
        os.pwrite(fd, b"durable!!", 0)
        os.fsync(fd)
    os.pwrite(fds[path], b"and later", 9)
    os.close(fds[path])
    os.unlink(gone)
    os.pwrite(fds[open_one], b"not durable", 0)
    fresh.settled()
    fresh.kill()
    for each in (gone, open_one):
        with contextlib.suppress(OSError):
            os.close(fds[each])
    for _ in range(2):
        fresh.start()
        assert sorted(os.listdir(fresh.mount)) == ["f", "open"]
        assert path.read_bytes() == b"durable!!and later"
        assert open_one.read_bytes() == b"durable!!"
        fresh.kill()


def test_everything_is_there_after_an_orderly_stop(fresh):
    (fresh.mount / "d").mkdir()
    for number in range(100):
        (fresh.mount / "d" / f"{number}").write_bytes(b"%d" % number)
    number = (fresh.mount / "d" / "7").stat().st_ino
    fresh.stop()
    assert mountpoint.mounted_at(fresh.mount) is None
    assert os.listdir(fresh.mount) == []
    fresh.start()
    assert (fresh.mount / "d" / "7").stat().st_ino == number
    for each in range(100):
        assert (fresh.mount / "d" / f"{each}").read_bytes() == b"%d" % each


def test_a_signal_ends_the_pod_and_its_mount_with_files_open(fresh):
    fd = os.open(fresh.mount / "f", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"not closed yet")
    fresh.signal(signal.SIGTERM)
    assert fresh.wait() == 0
    assert mountpoint.mounted_at(fresh.mount) is None
    with pytest.raises(OSError):
        os.fsync(fd)
    with contextlib.suppress(OSError):
        os.close(fd)
    fresh.start()
    assert (fresh.mount / "f").read_bytes() == b"not closed yet"


def test_a_busy_mount_names_who_holds_it(fresh):
    child = subprocess.Popen(["sleep", "1000"], cwd=fresh.mount)
    try:
        answer = fresh.ask("unmount", force=False)
        assert f"sleep ({child.pid})" in answer["error"]
        assert mountpoint.mounted_at(fresh.mount)
        (fresh.mount / "f").write_text("still works")
        assert fresh.ask("unmount", force=True) == {}
        assert mountpoint.mounted_at(fresh.mount) is None
    finally:
        child.kill()
        child.wait()
    fresh.start()
    assert (fresh.mount / "f").read_text() == "still works"


def test_unmounting_from_outside_ends_the_serving(fresh):
    (fresh.mount / "f").write_text("x")
    subprocess.run(["umount", str(fresh.mount)], check=True)
    assert fresh.wait() == 0
    fresh.start()
    assert (fresh.mount / "f").read_text() == "x"


def test_mounts_of_killed_pods_are_taken_off_even_when_stacked(fresh):
    for _ in range(2):
        fresh.kill()
        assert mountpoint.mounted_at(fresh.mount)
        assert not mountpoint.answers(fresh.mount)
        fresh.start()
    fresh.stop()
    assert mountpoint.mounted_at(fresh.mount) is None


def test_files_belong_to_who_mounts_or_keep_their_owner(fresh):
    (fresh.mount / "f").write_text("x")
    os.chown(fresh.mount / "f", 1234, 2345)
    assert ((fresh.mount / "f").stat().st_uid, (fresh.mount / "f").stat().st_gid) == (1234, 2345)
    fresh.stop()
    fresh.start(ownership="mine")
    assert ((fresh.mount / "f").stat().st_uid, (fresh.mount / "f").stat().st_gid) == (os.getuid(), os.getgid())
    os.chown(fresh.mount / "f", 77, 77)
    assert (fresh.mount / "f").stat().st_uid == os.getuid()


def test_a_full_disk_is_told_at_write_fsync_or_close_and_the_rest_goes_on(fresh):
    fresh.stop()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(fresh.home)], check=True)
    try:
        fresh.start()
        (fresh.mount / "small").write_bytes(b"here before")
        fresh.settled()
        fd = os.open(fresh.mount / "large", os.O_CREAT | os.O_WRONLY)
        block = os.urandom(1 << 20)

        def fill():
            for number in range(120):
                os.write(fd, bytes([number]) + block[1:])
            os.fsync(fd)

        with pytest.raises(OSError) as caught:
            fill()
        assert caught.value.errno == errno.ENOSPC
        with contextlib.suppress(OSError):
            os.close(fd)
        assert (fresh.mount / "small").read_bytes() == b"here before"
        assert sorted(os.listdir(fresh.mount)) == ["large", "small"]
        os.unlink(fresh.mount / "large")
        assert os.listdir(fresh.mount) == ["small"]
    finally:
        fresh.kill()
        subprocess.run(["umount", "-l", str(fresh.mount)], check=False)
        subprocess.run(["umount", "-l", str(fresh.home)], check=True)


def test_read_ahead_is_set_and_requests_are_large(fresh):
    device = fresh.mount.stat().st_dev
    setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    assert setting.read_text().strip() == "1024"


def test_closed_files_are_in_the_tree_soon(fresh):
    """Without fsync: nothing but the publisher brings it there."""
    (fresh.mount / "f").write_text("x")
    end = time.monotonic() + 60
    while fresh.ask("unpublished")["count"] and time.monotonic() < end:
        time.sleep(0.01)
    assert fresh.ask("unpublished")["count"] == 0


APPENDER = """
import os, sys, random
top, number, rng = sys.argv[1], 0, random.Random(int(sys.argv[2]))
fds = [os.open(f"{top}/log-{each}", os.O_CREAT | os.O_RDWR | os.O_APPEND) for each in range(3)]
while True:
    for each, fd in enumerate(fds):
        number += 1
        for part in range(rng.choice([1, 1, 1, 3])):
            os.write(fd, b"%08d" % number * rng.choice([1, 512, 700]))
        os.fsync(fd)
        print(each, os.fstat(fd).st_size, number, flush=True)
    if rng.random() < 0.03:
        os.close(fds[0])
        fds[0] = os.open(f"{top}/log-0", os.O_RDWR | os.O_APPEND)
    if rng.random() < 0.03:
        os.rename(f"{top}/log-1", f"{top}/log")
        os.rename(f"{top}/log", f"{top}/log-1")
    if rng.random() < 0.03:
        os.pwrite(os.open(f"{top}/log-2", os.O_RDWR), b"X" * 8, 0)
    if rng.random() < 0.03:
        os.ftruncate(fds[2], os.fstat(fds[2]).st_size // 16 * 8)
        os.fsync(fds[2])
        print(2, os.fstat(fds[2]).st_size, number, flush=True)
"""


def test_small_appends_with_fsync_survive_a_kill(fresh):
    """What fsync wrote down as it was is put together at the next start: all of it, in order, nothing torn."""
    for turn in range(4):
        top = fresh.mount / f"appends-{turn}"
        top.mkdir()
        code = APPENDER.replace("int(sys.argv[2])", str(turn))
        lines = kill_in_the_middle(fresh, code, top, 30 + 230 * turn)
        fresh.start()
        sizes = {int(each): (int(size), int(number)) for each, size, number in lines}
        for each, (size, number) in sizes.items():
            data = (top / f"log-{each}").read_bytes()
            assert len(data) >= size
            words = [data[at : at + 8] for at in range(0, len(data), 8)]
            if words[0] == b"XXXXXXXX":
                del words[0]
            assert words == sorted(words)
            assert b"%08d" % number in words
