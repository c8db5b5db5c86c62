"""Bytes and attributes of files: reading, writing, truncating, times, modes, owners, extended attributes, mappings."""

import errno
import fcntl
import mmap
import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from tests.mount.oracle import tick
from tests.mount.posix import fails, next_millisecond


def test_write_read_seek_append(work):
    path = work / "f"
    with open(path, "wb") as file:
        file.write(b"hello ")
    with open(path, "ab") as file:
        file.write(b"world")
    assert path.read_bytes() == b"hello world"
    with open(path, "r+b") as file:
        file.seek(6)
        file.write(b"W")
        file.seek(0)
        assert file.read() == b"hello World"
    assert path.stat().st_size == 11


@pytest.mark.parametrize("size", [0, 1, 4096, 128 * 1024, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_000])
def test_contents_of_many_sizes(work, size):
    data = os.urandom(size)
    (work / "f").write_bytes(data)
    assert (work / "f").stat().st_size == size
    assert (work / "f").read_bytes() == data


def test_holes_and_random_writes_match_a_local_file(work, tmp_path):
    import random

    rng = random.Random(7)
    paths = [work / "f", tmp_path / "f"]
    fds = [os.open(path, os.O_CREAT | os.O_RDWR) for path in paths]
    for step in range(300):
        offset, data = rng.randrange(3_000_000), rng.randbytes(rng.choice([1, 100, 5000, 200_000]))
        if step % 40 == 39:
            size = rng.randrange(3_000_000)
            for fd in fds:
                os.ftruncate(fd, size)
        elif step % 50 == 49:
            os.fsync(fds[0])
        elif step % 3 == 2:
            assert os.pread(fds[0], len(data), offset) == os.pread(fds[1], len(data), offset)
        else:
            for fd in fds:
                os.pwrite(fd, data, offset)
        assert os.fstat(fds[0]).st_size == os.fstat(fds[1]).st_size
    for fd in fds:
        os.close(fd)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_truncate_with_and_without_a_handle(work):
    path = work / "f"
    path.write_bytes(b"0123456789")
    before = path.stat()
    tick()
    os.truncate(path, 4)
    assert path.read_bytes() == b"0123"
    assert path.stat().st_mtime_ns > before.st_mtime_ns
    os.truncate(path, 8)
    assert path.read_bytes() == b"0123" + bytes(4)
    with open(path, "r+b") as file:
        file.write(b"ab")
        file.flush()
        os.truncate(path, 3)
        assert os.fstat(file.fileno()).st_size == 3
        file.truncate(5)
    assert path.read_bytes() == b"ab2\0\0"
    with open(path, "wb"):
        pass
    assert path.read_bytes() == b""
    os.mkdir(work / "d")
    fails(errno.EISDIR, os.truncate, work / "d", 0)
    fails(errno.EFBIG, os.truncate, path, 1 << 60)


def test_a_truncated_file_keeps_its_size_after_a_while(work, pod):
    path = work / "f"
    path.write_bytes(b"0123456789")
    os.truncate(path, 4)
    pod.settled()
    assert path.stat().st_size == 4
    assert path.read_bytes() == b"0123"


def test_several_handles_see_each_other(work):
    path = work / "f"
    with open(path, "wb", buffering=0) as one, open(path, "r+b", buffering=0) as two, open(path, "rb") as three:
        one.write(b"aaaa")
        two.seek(2)
        two.write(b"bb")
        assert three.read() == b"aabb"
        assert path.stat().st_size == 4
    assert path.read_bytes() == b"aabb"


def test_unlinked_while_open(work, pod):
    path = work / "f"
    path.write_bytes(b"before")
    fd = os.open(path, os.O_RDWR)
    os.unlink(path)
    assert os.listdir(work) == []
    assert os.fstat(fd).st_nlink == 0
    os.pwrite(fd, b"AFTER and more", 0)
    os.fsync(fd)
    assert os.pread(fd, 100, 0) == b"AFTER and more"
    assert os.fstat(fd).st_size == 14
    os.ftruncate(fd, 5)
    os.fchmod(fd, 0o600)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
    assert os.pread(fd, 100, 0) == b"AFTER"
    path.write_bytes(b"another")
    assert os.pread(fd, 100, 0) == b"AFTER"
    os.close(fd)
    pod.settled()
    assert path.read_bytes() == b"another"
    assert os.listdir(work) == ["f"]


def test_a_file_unlinked_before_it_was_published_stays_away(work, pod):
    for number in range(50):
        path = work / f"{number}"
        path.write_bytes(b"x" * 1000)
        os.unlink(path)
    pod.settled()
    assert os.listdir(work) == []


def test_rename_over_an_open_file(work, pod):
    (work / "old").write_bytes(b"old")
    (work / "new").write_bytes(b"new")
    with open(work / "old", "r+b", buffering=0) as old:
        os.rename(work / "new", work / "old")
        assert old.read() == b"old"
        old.write(b"!")
        assert (work / "old").read_bytes() == b"new"
    pod.settled()
    assert (work / "old").read_bytes() == b"new"
    assert os.listdir(work) == ["old"]


def test_rename_of_a_file_that_is_being_written(work, pod):
    with open(work / "a", "wb", buffering=0) as file:
        file.write(b"first ")
        os.rename(work / "a", work / "b")
        file.write(b"second")
        assert (work / "b").stat().st_size == 12
    pod.settled()
    assert (work / "b").read_bytes() == b"first second"
    assert os.listdir(work) == ["b"]


def test_times(work, pod):
    path = work / "f"
    path.write_bytes(b"x")
    os.utime(path, ns=(1_000_000_001, 2_000_000_003))
    info = path.stat()
    assert (info.st_atime_ns, info.st_mtime_ns) == (1_000_000_001, 2_000_000_003)
    assert abs(info.st_ctime - time.time()) < 60
    pod.settled()
    assert path.stat().st_mtime_ns == 2_000_000_003
    with open(path, "ab") as file:
        file.write(b"y")
        file.flush()
        os.utime(file.fileno(), ns=(5, 6_000_000_000))
    assert path.stat().st_mtime_ns == 6_000_000_000
    pod.settled()
    assert path.stat().st_mtime_ns == 6_000_000_000
    before = time.time_ns() - 100_000_000
    os.utime(path)
    assert before <= path.stat().st_mtime_ns <= time.time_ns() + 100_000_000
    os.utime(path, ns=(-1_500_000_000, -2_500_000_000))
    assert path.stat().st_mtime_ns == -2_500_000_000


def test_what_is_touched_later_is_newer(work):
    """The kernel says "now" by its last tick, which may be before what was made since; make compares such times."""
    older = work / "older"
    for turn in range(100):
        newer = work / f"{turn % 2}"
        newer.write_bytes(b"")
        made = newer.stat().st_mtime_ns
        older.touch()
        assert older.stat().st_mtime_ns >= made
        os.utime(newer)
        assert newer.stat().st_mtime_ns >= older.stat().st_mtime_ns
        chosen = time.time_ns()
        os.utime(newer, ns=(chosen - 1, chosen))
        assert (newer.stat().st_atime_ns, newer.stat().st_mtime_ns) == (chosen - 1, chosen)


def test_attributes_do_not_move_when_a_file_is_published(work, pod):
    """git and tar compare the times that they saw at writing with those that they find later."""
    path = work / "f"
    with open(path, "wb") as file:
        file.write(b"content")
    first = path.stat()
    pod.settled()
    pod.forget()
    second = path.stat()
    assert (first.st_size, first.st_mtime_ns, first.st_ino) == (second.st_size, second.st_mtime_ns, second.st_ino)


def test_modes_and_owners(work):
    path = work / "f"
    path.write_bytes(b"x")
    before = path.stat().st_ctime_ns
    next_millisecond()
    os.chmod(path, 0o4751)
    assert stat.S_IMODE(path.stat().st_mode) == 0o4751
    assert path.stat().st_ctime_ns > before
    os.chown(path, 1234, 4321)
    assert stat.S_IMODE(path.stat().st_mode) == 0o751
    os.chmod(path, 0o2755)
    os.chown(path, -1, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    os.chown(path, -1, -1)


def test_setgid_directories_pass_it_on(work):
    os.mkdir(work / "d")
    os.chmod(work / "d", 0o2775)
    os.mkdir(work / "d" / "e")
    assert (work / "d" / "e").stat().st_mode & stat.S_ISGID
    (work / "d" / "f").write_text("x")
    assert not (work / "d" / "f").stat().st_mode & stat.S_ISGID


def test_umask(work):
    old = os.umask(0o027)
    try:
        os.mkdir(work / "d", 0o777)
        os.close(os.open(work / "f", os.O_CREAT, 0o666))
    finally:
        os.umask(old)
    assert stat.S_IMODE((work / "d").stat().st_mode) == 0o750
    assert stat.S_IMODE((work / "f").stat().st_mode) == 0o640


def test_extended_attributes(work):
    path = work / "f"
    path.write_bytes(b"x")
    fails(errno.ENODATA, os.getxattr, path, "user.a")
    os.setxattr(path, "user.a", b"value\0with zero")
    os.setxattr(path, "user.empty", b"")
    assert os.getxattr(path, "user.a") == b"value\0with zero"
    assert os.getxattr(path, "user.empty") == b""
    assert sorted(os.listxattr(path)) == ["user.a", "user.empty"]
    fails(errno.EEXIST, os.setxattr, path, "user.a", b"y", os.XATTR_CREATE)
    fails(errno.ENODATA, os.setxattr, path, "user.b", b"y", os.XATTR_REPLACE)
    os.removexattr(path, "user.a")
    fails(errno.ENODATA, os.removexattr, path, "user.a")
    assert os.listxattr(path) == ["user.empty"]
    os.setxattr(path, "user.large", b"v" * 60_000)
    assert len(os.getxattr(path, "user.large")) == 60_000
    os.setxattr(work, "user.dir", b"1")
    assert os.getxattr(work, "user.dir") == b"1"


def test_attributes_that_tell_about_the_file(work, pod):
    path = work / "f"
    path.write_bytes(b"x")
    pod.settled()
    assert os.getxattr(path, "user.wormhole.content").decode() == pod.content_of(b"x")
    assert os.listxattr(path) == []
    fails(errno.ENODATA, os.getxattr, path, "user.wormhole.nonsense")
    fails(errno.EPERM, os.setxattr, path, "user.wormhole.content", b"y")
    fails(errno.EOPNOTSUPP, os.getxattr, path, "system.posix_acl_access")


def test_statvfs(work):
    info = os.statvfs(work)
    assert info.f_namemax == 255
    assert 0 < info.f_bavail <= info.f_blocks
    assert info.f_files >= info.f_ffree > 0


def test_mappings(work):
    path = work / "f"
    path.write_bytes(bytes(3 * mmap.PAGESIZE))
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as shared:
        shared[0:5] = b"start"
        shared[2 * mmap.PAGESIZE : 2 * mmap.PAGESIZE + 3] = b"end"
        shared.flush()
        assert path.read_bytes()[:5] == b"start"
    fd = os.open(path, os.O_RDWR)
    shared = mmap.mmap(fd, 0)
    os.close(fd)
    shared[10:14] = b"late"
    shared.close()
    data = path.read_bytes()
    assert (data[:5], data[10:14], data[2 * mmap.PAGESIZE :][:3]) == (b"start", b"late", b"end")


def test_programs_can_be_run_from_the_mount(work):
    (work / "tool").write_text("#!/bin/sh\necho ran\n")
    os.chmod(work / "tool", 0o755)
    assert subprocess.run([work / "tool"], capture_output=True, text=True, check=True).stdout == "ran\n"


def test_appends_of_several_processes_do_not_overwrite_each_other(work):
    path = work / "log"
    code = "import os,sys\nfd=os.open(sys.argv[1],os.O_WRONLY|os.O_APPEND|os.O_CREAT)\n"
    code += "for i in range(100): os.write(fd,(sys.argv[2]*49+chr(10)).encode())"
    children = [subprocess.Popen([sys.executable, "-c", code, path, letter]) for letter in "abc"]
    assert [child.wait() for child in children] == [0, 0, 0]
    lines = path.read_text().splitlines()
    assert len(lines) == 300
    assert all(line == line[0] * 49 for line in lines)
    assert [sum(line[0] == letter for line in lines) for letter in "abc"] == [100] * 3


def test_locks_between_processes(work):
    path = work / "f"
    path.write_bytes(b"x")
    with open(path, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code = "import fcntl,sys\ntry: fcntl.flock(open(sys.argv[1]),fcntl.LOCK_SH|fcntl.LOCK_NB)\n"
        code += "except BlockingIOError: sys.exit(7)"
        assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == 7


def test_fsync_of_files_and_directories(work):
    fd = os.open(work / "f", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"x")
    os.fsync(fd)
    os.fdatasync(fd)
    os.close(fd)
    fd = os.open(work, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    os.sync()


def test_many_writers_at_once(work):
    def write(number):
        for turn in range(20):
            (work / f"{number}-{turn}").write_bytes(bytes([number]) * (turn * 5000))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(8):
        for turn in range(20):
            assert (work / f"{number}-{turn}").read_bytes() == bytes([number]) * (turn * 5000)


def test_many_open_files_hold_no_descriptors(work, pod):
    before = pod.descriptors()
    files = [os.open(work / f"{number}", os.O_CREAT | os.O_RDWR) for number in range(500)]
    for file in files:
        os.write(file, b"x")
    assert pod.descriptors() < before + 50
    for file in files:
        os.close(file)
