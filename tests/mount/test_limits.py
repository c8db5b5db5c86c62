"""Much of everything, and too much: full disks, large directories, many open files, long paths, large files, locks."""

import contextlib
import errno
import fcntl
import mmap
import os
import resource
import select
import signal
import subprocess
import sys

import pytest

from tests.mount.posix import fails

DIRECTORY_ENTRIES = 3000
OPEN_FILES = 900


@pytest.fixture
def small_disk(fresh):
    """A pod whose home is on a disk of 64 MiB."""
    fresh.stop()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(fresh.home)], check=True)
    try:
        fresh.start()
        yield fresh
    finally:
        fresh.kill()
        subprocess.run(["umount", "-l", str(fresh.mount)], check=False)
        subprocess.run(["umount", "-l", str(fresh.home)], check=True)


def fill(top, size_bytes):
    """Write files until one fails; return the names of those that were closed without an error."""
    names: list[str] = []
    for number in range(100_000):
        try:
            (top / f"{number}").write_bytes(b"%d " % number + os.urandom(size_bytes))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                return names
            raise
        names.append(f"{number}")
    raise AssertionError("the disk is never full")


@pytest.mark.parametrize("size_bytes", [12_000, 200_000, 5_000_000])
def test_a_disk_full_of_files_says_so_in_time_and_lives_on(small_disk, size_bytes):
    """Whoever closed a file without an error finds it again, also after a restart; removing makes room."""
    top = small_disk.mount / "d"
    top.mkdir()
    names = fill(top, size_bytes)
    assert names
    small_disk.settled()
    for name in names:
        assert (top / name).read_bytes().startswith(name.encode() + b" ")
    for name in os.listdir(top):
        if name not in names or int(name) % 2:
            os.unlink(top / name)
    small_disk.settled()
    small_disk.stop()
    small_disk.start()
    assert sorted(os.listdir(top)) == sorted(name for name in names if not int(name) % 2)


def test_fsync_tells_of_a_full_disk(small_disk):
    fd = os.open(small_disk.mount / "f", os.O_CREAT | os.O_WRONLY)

    def write():
        for _ in range(100):
            os.write(fd, os.urandom(1 << 20))
            os.fsync(fd)

    fails(errno.ENOSPC, write)
    with contextlib.suppress(OSError):
        os.close(fd)


def test_large_directories(work, pod):
    names = [f"file-{number:06}" for number in range(DIRECTORY_ENTRIES)]
    for name in names:
        os.close(os.open(work / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    assert sorted(os.listdir(work)) == names
    pod.forget()
    assert sorted(entry.name for entry in os.scandir(work) if entry.is_file()) == names
    with os.scandir(work) as entries:
        seen = set()
        for number, entry in enumerate(entries):
            seen.add(entry.name)
            if number % 2 == 0:
                os.unlink(work / entry.name)
    assert seen == set(names), "removing while listing hides nothing"
    assert len(os.listdir(work)) == DIRECTORY_ENTRIES // 2
    for name in os.listdir(work):
        os.unlink(work / name)
    assert os.listdir(work) == []


def test_many_open_files_hold_no_descriptors_of_the_pod(work, pod):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, OPEN_FILES + 500), hard))
    before = pod.descriptors()
    files = []
    try:
        for number in range(OPEN_FILES):
            files.append(os.open(work / f"{number}", os.O_CREAT | os.O_RDWR))
            os.write(files[-1], b"%d" % number)
        for number in range(0, OPEN_FILES, 2):
            os.unlink(work / f"{number}")
        for number, fd in enumerate(files):
            assert os.pread(fd, 10, 0) == b"%d" % number
        assert pod.descriptors() < before + 50
        assert not [name for name in os.listdir(work) if name.startswith(".fuse_hidden")]
    finally:
        for fd in files:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_deep_paths(work):
    depth = 300
    here = os.open(work, os.O_RDONLY)
    for level in range(depth):
        os.mkdir(f"level-{level}", dir_fd=here)
        below = os.open(f"level-{level}", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    fd = os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=here)
    os.write(fd, b"deep")
    os.close(fd)
    os.close(here)
    long = "/".join(f"level-{level}" for level in range(depth)) + "/leaf"
    assert (work / long).read_bytes() == b"deep"
    fails(errno.ENAMETOOLONG, os.stat, work / ("x/" * 2048 + "y"))
    subprocess.run(["rm", "-r", str(work / "level-0")], check=True)


def test_files_of_many_gigabytes_are_mostly_holes(work, pod):
    path = work / "large"
    end = 40 << 30
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    os.pwrite(fd, b"in the middle", 5 << 30)
    os.pwrite(fd, b"end", end - 3)
    assert os.fstat(fd).st_size == end
    assert os.pread(fd, 20, (5 << 30) - 3) == b"\0\0\0in the middle\0\0\0\0"
    os.ftruncate(fd, 6 << 30)
    os.close(fd)
    pod.settled()
    pod.forget()
    assert path.stat().st_size == 6 << 30
    with open(path, "rb") as file:
        file.seek(5 << 30)
        assert file.read(13) == b"in the middle"
        assert file.read(1 << 16) == bytes(1 << 16)


LOCKER = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(fd, fcntl.LOCK_EX, 10, 5)
print("locked", flush=True)
sys.stdin.readline()
"""


def test_record_locks_between_processes(work):
    path = work / "f"
    path.write_bytes(bytes(100))
    child = subprocess.Popen([sys.executable, "-c", LOCKER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"locked\n"
        with open(path, "r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 0)
            for wanted in (fcntl.LOCK_EX, fcntl.LOCK_SH):
                with pytest.raises(BlockingIOError):
                    fcntl.lockf(file, wanted | fcntl.LOCK_NB, 10, 14)
            child.kill()
            fcntl.lockf(file, fcntl.LOCK_EX, 10, 5)  # waits until the kernel has let go of the dead one's lock
    finally:
        child.kill()
        child.wait()


WAITER = """
import fcntl, sys
with open(sys.argv[1]) as file:
    print("ready", flush=True)
    fcntl.flock(file, fcntl.LOCK_EX)
    print("mine", flush=True)
"""


def test_waiting_for_a_lock(work):
    path = work / "f"
    path.write_bytes(b"x")
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        child = subprocess.Popen([sys.executable, "-c", WAITER, path], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        assert select.select([child.stdout], [], [], 0.2)[0] == []
        fcntl.flock(file, fcntl.LOCK_UN)
        assert child.stdout.readline() == b"mine\n"
        assert child.wait(30) == 0


def test_a_process_killed_in_the_middle_of_writing_leaves_what_it_wrote(work, pod):
    code = "import os,sys\nfd=os.open(sys.argv[1],os.O_CREAT|os.O_WRONLY)\nwhile True: print(os.write(fd,b'z'*5000))"
    child = subprocess.Popen([sys.executable, "-u", "-c", code, work / "f"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    for _ in range(50):
        child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    written = 50 + len(child.stdout.read().split())
    child.wait()
    pod.settled()
    size = (work / "f").stat().st_size
    assert written * 5000 <= size <= written * 5000 + 5000, "all that was reported, and of the last write a part"
    assert (work / "f").read_bytes() == b"z" * size


def test_a_mapping_of_several_processes(work):
    path = work / "f"
    path.write_bytes(bytes(mmap.PAGESIZE * 4))
    code = "import mmap,sys\nwith open(sys.argv[1],'r+b') as f:\n  m=mmap.mmap(f.fileno(),0)\n  i=int(sys.argv[2])\n"
    code += "  for n in range(2000): m[i*mmap.PAGESIZE+n:i*mmap.PAGESIZE+n+1]=bytes([i+1])\n  m.close()"
    children = [subprocess.Popen([sys.executable, "-c", code, path, f"{number}"]) for number in range(4)]
    assert [child.wait(30) for child in children] == [0] * 4
    data = path.read_bytes()
    for number in range(4):
        page = data[number * mmap.PAGESIZE :][: mmap.PAGESIZE]
        assert page == bytes([number + 1]) * 2000 + bytes(mmap.PAGESIZE - 2000)


def test_times_never_go_back_and_move_with_every_change(work, pod):
    """Change after change as quickly as possible: each moves the ctime, and a publication in between doesn't."""
    path = work / "f"
    path.write_bytes(b"x")
    last = path.stat().st_ctime_ns
    changes = [
        lambda: os.chmod(path, 0o640),
        lambda: os.utime(path, ns=(1, 2)),
        lambda: os.setxattr(path, "user.a", b"1"),
        lambda: os.link(path, work / "g"),
        lambda: os.unlink(work / "g"),
        lambda: os.rename(path, work / "h"),
        lambda: os.rename(work / "h", path),
        lambda: path.write_bytes(b"y"),
        lambda: os.chown(path, 1, 1),
        lambda: os.truncate(path, 0),
    ]
    for turn in range(10):
        for change in changes:
            change()
            now = path.stat().st_ctime_ns if path.exists() else (work / "h").stat().st_ctime_ns
            assert now > last
            last = now
        if turn % 3 == 0:
            pod.settled()
            pod.forget()
            assert path.stat().st_ctime_ns == last
