"""What another pod changes shows at once, although the kernel caches names, attributes and pages for long."""

import errno
import mmap
import os
import threading
import time

import pytest


def soon(check, *expected):
    """Wait for what follows the notify thread (milliseconds); fail after 60 s."""
    end = time.monotonic() + 60
    while True:
        try:
            value = check()
        except OSError as error:
            value = error.errno
        if value in expected or time.monotonic() > end:
            break
        time.sleep(0.001)
    assert value in expected
    return value


def test_a_new_file_shows_although_its_absence_was_cached(work, pod):
    with pytest.raises(FileNotFoundError):
        (work / "new").stat()
    assert os.listdir(work) == []
    pod.remote_write(work / "new", b"from afar")
    soon((work / "new").read_bytes, b"from afar")
    assert os.listdir(work) == ["new"]


def test_a_changed_file_shows_in_stat_read_open_handles_and_mappings(work, pod):
    path = work / "f"
    path.write_bytes(b"a" * 5000)
    pod.settled()
    with open(path, "rb", buffering=0) as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert path.stat().st_size == len(file.read()) == 5000
        assert mapped[:5] == b"aaaaa"
        pod.remote_write(path, b"b" * 6000)
        soon(lambda: path.stat().st_size, 6000)
        soon(lambda: os.pread(file.fileno(), 6000, 0), b"b" * 6000)
        soon(lambda: mapped[:5], b"bbbbb")
        soon(path.read_bytes, b"b" * 6000)


def test_removal_rename_and_mode_show(work, pod):
    for name in ("gone", "old", "mode"):
        (work / name).write_bytes(name.encode())
    pod.settled()
    pod.remote("unlink", work / "gone")
    pod.remote("rename", work / "old", work / "new")
    pod.remote("chmod", work / "mode", 0o600)
    soon(lambda: sorted(os.listdir(work)), ["mode", "new"])
    soon(lambda: (work / "gone").stat().st_size, errno.ENOENT)
    soon(lambda: (work / "old").stat().st_size, errno.ENOENT)
    soon((work / "new").read_bytes, b"old")
    soon(lambda: (work / "mode").stat().st_mode & 0o777, 0o600)


def test_what_we_write_meanwhile_is_kept(work, pod):
    path = work / "f"
    path.write_bytes(b"base")
    pod.settled()
    with open(path, "r+b", buffering=0) as file:
        file.write(b"mine")
        pod.remote_write(path, b"theirs, longer")
        soon(lambda: path.stat().st_size, 4)
        assert os.pread(file.fileno(), 100, 0) == b"mine"
    pod.settled()
    contents = sorted((work / name).read_bytes() for name in os.listdir(work))
    assert contents == [b"mine", b"theirs, longer"]


def test_a_name_leads_to_the_file_opened_by_it_until_that_is_closed(work, pod):
    """Made on two pods at the same time: the later one has the name, but not before the other one is closed."""
    path = work / "notes.txt"
    pod.remote_write(work / "before", b"so that the other pod knows the folder")
    path.write_bytes(b"mine")
    pod.settled()
    with open(path, "r+b", buffering=0) as file:
        opened = os.fstat(file.fileno()).st_ino
        pod.apart_write(path, b"theirs, later")
        soon(lambda: len(os.listdir(work)), 3)
        (aside,) = [name for name in os.listdir(work) if ".conflict-" in name]
        assert path.stat().st_ino == opened
        assert path.read_bytes() == b"mine"
        assert (work / aside).read_bytes() == b"theirs, later"
        assert {one.name: one.inode() for one in os.scandir(work)}["notes.txt"] == opened
        file.write(b"mine, saved again")
        assert path.read_bytes() == b"mine, saved again"
    pod.settled()
    soon(path.read_bytes, b"theirs, later")
    soon((work / aside).read_bytes, b"mine, saved again")
    assert path.stat().st_ino != opened
    assert sorted(os.listdir(work)) == sorted(["before", "notes.txt", aside])


@pytest.mark.parametrize("how", ["unlink", "rename"])
def test_what_is_done_to_the_name_of_an_open_file_is_done_to_that_file(work, pod, how):
    path = work / "notes.txt"
    pod.remote_write(work / "before", b"so that the other pod knows the folder")
    path.write_bytes(b"mine")
    pod.settled()
    with open(path, "rb", buffering=0) as file:
        opened = os.fstat(file.fileno()).st_ino
        pod.apart_write(path, b"theirs, later")
        soon(lambda: len(os.listdir(work)), 3)
        assert path.stat().st_ino == opened
        if how == "unlink":
            path.unlink()
            soon(lambda: sorted(os.listdir(work)), ["before", "notes.txt"])
        else:
            path.rename(work / "elsewhere")
            soon(lambda: sorted(os.listdir(work)), ["before", "elsewhere", "notes.txt"])
            assert (work / "elsewhere").stat().st_ino == opened
        soon(path.read_bytes, b"theirs, later")
        assert os.pread(file.fileno(), 9, 0) == b"mine"


def test_the_name_of_a_file_changed_on_both_sides_leads_to_the_same_inode(work, pod):
    path = work / "f"
    pod.remote_write(path, b"base")
    soon(path.read_bytes, b"base")
    with open(path, "r+b", buffering=0) as file:
        opened = os.fstat(file.fileno()).st_ino
        path.write_bytes(b"mine")
        pod.settled()
        pod.apart_write(path, b"theirs, later")
        soon(lambda: len(os.listdir(work)), 2)
        assert path.stat().st_ino == os.fstat(file.fileno()).st_ino == opened


def test_removed_there_while_written_here_comes_back(work, pod):
    path = work / "f"
    path.write_bytes(b"base")
    pod.settled()
    with open(path, "r+b", buffering=0) as file:
        file.write(b"still mine")
        pod.remote("unlink", path)
        soon(lambda: os.listdir(work), [])
        assert os.pread(file.fileno(), 100, 0) == b"still mine"
    pod.settled()
    soon(path.read_bytes, b"still mine")


def test_removed_there_while_only_read_here_stays_readable_until_closed(work, pod):
    path = work / "f"
    path.write_bytes(b"x" * 300_000)
    pod.settled()
    pod.forget()
    with open(path, "rb", buffering=0) as file:
        pod.remote("unlink", path)
        soon(lambda: os.listdir(work), [])
        assert len(os.pread(file.fileno(), 300_000, 0)) == 300_000
        assert os.fstat(file.fileno()).st_nlink == 0
    pod.settled()
    assert os.listdir(work) == []


def test_a_directory_removed_under_a_process(work, pod):
    os.mkdir(work / "d")
    pod.settled()
    fd = os.open(work / "d", os.O_RDONLY)
    try:
        pod.remote("rmdir", work / "d")
        soon(lambda: os.listdir(work), [])
        with pytest.raises(OSError):
            os.close(os.open("x", os.O_CREAT, dir_fd=fd))
    finally:
        os.close(fd)


def test_no_deadlock_between_requests_and_notifications(work, pod):
    """Readers, listers and creators hammer what another pod keeps changing; each call must end."""
    for number in range(10):
        (work / f"{number}").write_bytes(b"start")
    pod.settled()
    stop = threading.Event()
    failures = []

    def hammer(action):
        turn = 0
        while not stop.is_set():
            turn += 1
            try:
                action(turn)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ESTALE):
                    failures.append(error)

    actions = [
        lambda turn: (work / f"{turn % 10}").read_bytes(),
        lambda turn: os.listdir(work),
        lambda turn: (work / f"{turn % 10}").stat(),
        lambda turn: (work / f"mine-{turn % 20}").write_bytes(b"y" * turn),
        lambda turn: os.rename(work / f"mine-{turn % 20}", work / f"moved-{turn % 20}"),
    ]
    threads = [threading.Thread(target=hammer, args=(action,), daemon=True) for action in actions]
    for thread in threads:
        thread.start()
    for turn in range(100):
        pod.remote_write(work / f"{turn % 10}", b"turn %d" % turn)
        if turn % 5 == 0:
            pod.remote_write(work / f"far-{turn}", b"x")
            pod.remote("unlink", work / f"far-{turn}")
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert failures == []
    for number in range(10):
        soon((work / f"{number}").read_bytes, b"turn %d" % (90 + number))
