"""Names: making, removing, renaming, linking, listing; with the error numbers that POSIX asks for."""

import errno
import os
import socket
import stat

from tests.mount.posix import fails, next_millisecond

RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2


def renameat2(old, new, flags):
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def test_create_exclusive_and_existing(work):
    fd = os.open(work / "a", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
    os.close(fd)
    assert stat.S_IMODE((work / "a").stat().st_mode) == 0o640
    fails(errno.EEXIST, os.open, work / "a", os.O_CREAT | os.O_EXCL)
    fails(errno.ENOENT, os.open, work / "missing", os.O_RDONLY)
    fails(errno.EISDIR, os.open, work, os.O_WRONLY)
    fails(errno.ENOTDIR, os.open, work / "a" / "b", os.O_RDONLY)
    fails(errno.ENOTDIR, os.open, work / "a", os.O_DIRECTORY)


def test_names_of_every_byte_and_too_long_ones(work):
    top = os.fsencode(work)
    names = [b"\xff\xfe", "grüße ☃".encode(), b"new\nline", b" ", b"-", b"a" * 255, b".hidden", b"...", b"\x01"]
    for name in names:
        os.close(os.open(top + b"/" + name, os.O_CREAT))
    assert sorted(os.listdir(top)) == sorted(names)
    long = top + b"/" + b"b" * 256
    for function in (os.stat, os.mkdir, os.unlink, os.rmdir):
        fails(errno.ENAMETOOLONG, function, long)
    fails(errno.ENAMETOOLONG, os.open, long, os.O_CREAT)
    fails(errno.ENAMETOOLONG, os.rename, top + b"/-", long)
    fails(errno.ENAMETOOLONG, os.symlink, b"x", long)


def test_directories(work):
    os.mkdir(work / "d", 0o750)
    fails(errno.EEXIST, os.mkdir, work / "d")
    fails(errno.ENOENT, os.mkdir, work / "x" / "y")
    assert (work / "d").stat().st_nlink == 2
    os.mkdir(work / "d" / "e")
    assert (work / "d").stat().st_nlink == 3
    fails(errno.ENOTEMPTY, os.rmdir, work / "d")
    fails(errno.EISDIR, os.unlink, work / "d")
    (work / "f").write_text("x")
    fails(errno.ENOTDIR, os.rmdir, work / "f")
    fails(errno.ENOENT, os.rmdir, work / "missing")
    fails(errno.EINVAL, os.rmdir, str(work / "d") + "/.")
    os.rmdir(work / "d" / "e")
    assert (work / "d").stat().st_nlink == 2
    os.rmdir(work / "d")
    assert not (work / "d").exists()


def test_a_removed_directory_is_empty_for_those_inside(work):
    os.mkdir(work / "d")
    fd = os.open(work / "d", os.O_RDONLY)
    os.rmdir(work / "d")
    try:
        assert os.listdir(fd) == []
        assert os.fstat(fd).st_nlink == 0
        fails(errno.ENOENT, os.open, "x", os.O_CREAT, dir_fd=fd)
    finally:
        os.close(fd)


def test_parents_change_their_times(work):
    before = work.stat()
    next_millisecond()
    os.mkdir(work / "d")
    after = work.stat()
    assert after.st_mtime_ns > before.st_mtime_ns
    assert after.st_ctime_ns > before.st_ctime_ns
    next_millisecond()
    os.rmdir(work / "d")
    assert work.stat().st_mtime_ns > after.st_mtime_ns


def test_dot_and_dotdot(work):
    os.mkdir(work / "d")
    assert os.stat(str(work / "d") + "/.").st_ino == (work / "d").stat().st_ino
    assert os.stat(str(work / "d") + "/..").st_ino == work.stat().st_ino
    out = os.popen(f"ls -ai {work}").read().split()
    numbers = dict(zip(out[1::2], out[::2], strict=True))
    assert int(numbers["."]) == work.stat().st_ino
    assert int(numbers[".."]) == work.parent.stat().st_ino


def test_hard_links(work):
    (work / "a").write_text("one")
    os.link(work / "a", work / "b")
    assert (work / "a").stat().st_ino == (work / "b").stat().st_ino
    assert (work / "a").stat().st_nlink == 2
    (work / "b").write_text("two")
    assert (work / "a").read_text() == "two"
    fails(errno.EEXIST, os.link, work / "a", work / "b")
    fails(errno.ENOENT, os.link, work / "missing", work / "c")
    os.mkdir(work / "d")
    fails(errno.EPERM, os.link, work / "d", work / "e")
    os.unlink(work / "a")
    assert (work / "b").stat().st_nlink == 1
    assert (work / "b").read_text() == "two"


def test_a_removed_link_stays_away_when_the_file_is_published_by_another_name(work, pod):
    for number in range(20):
        (work / f"a{number}").write_text("one")
        os.link(work / f"a{number}", work / f"b{number}")
        (work / f"b{number}").write_text("two")
        if number % 2:
            os.unlink(work / f"a{number}")
        else:
            (work / "c").write_text("three")
            os.rename(work / "c", work / f"a{number}")
    pod.settled()
    pod.forget()
    for number in range(20):
        assert (work / f"b{number}").stat().st_nlink == 1
        assert (work / f"b{number}").read_text() == "two"
        assert (work / f"a{number}").exists() == (number % 2 == 0)


def test_symlinks(work):
    os.symlink("target/none", work / "s")
    assert os.readlink(work / "s") == "target/none"
    assert (work / "s").lstat().st_size == len("target/none")
    assert stat.S_ISLNK((work / "s").lstat().st_mode)
    fails(errno.ENOENT, os.stat, work / "s")
    fails(errno.EEXIST, os.symlink, "x", work / "s")
    (work / "f").write_text("x")
    fails(errno.EINVAL, os.readlink, work / "f")
    os.symlink("loop", work / "loop")
    fails(errno.ELOOP, os.stat, work / "loop")
    fails(errno.ELOOP, os.open, work / "s", os.O_NOFOLLOW)
    long = "x/" * 2000
    os.symlink(long, work / "long")
    assert os.readlink(work / "long") == long


def test_special_files(work):
    os.mkfifo(work / "fifo", 0o600)
    assert stat.S_ISFIFO((work / "fifo").stat().st_mode)
    reader = os.open(work / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(work / "fifo", os.O_WRONLY)
    os.write(writer, b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    os.close(writer)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(work / "sock"))
        assert stat.S_ISSOCK((work / "sock").stat().st_mode)
    os.mknod(work / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    assert (work / "null").stat().st_rdev == os.makedev(1, 3)
    os.mknod(work / "plain", 0o644 | stat.S_IFREG)
    (work / "plain").write_text("x")
    assert (work / "plain").read_text() == "x"


def test_rename(work):
    (work / "a").write_text("a")
    number = (work / "a").stat().st_ino
    os.rename(work / "a", work / "b")
    assert not (work / "a").exists()
    assert (work / "b").stat().st_ino == number
    (work / "c").write_text("c")
    os.rename(work / "b", work / "c")
    assert (work / "c").read_text() == "a"
    os.rename(work / "c", work / "c")
    assert os.listdir(work) == ["c"]
    fails(errno.ENOENT, os.rename, work / "missing", work / "x")
    fails(errno.ENOENT, os.rename, work / "c", work / "x" / "y")


def test_rename_of_directories(work):
    os.makedirs(work / "d" / "e")
    (work / "d" / "e" / "f").write_text("x")
    os.rename(work / "d", work / "g")
    assert (work / "g" / "e" / "f").read_text() == "x"
    fails(errno.EINVAL, os.rename, work / "g", work / "g" / "e" / "h")
    os.mkdir(work / "empty")
    os.rename(work / "g" / "e", work / "empty")
    assert (work / "empty" / "f").read_text() == "x"
    os.mkdir(work / "other")
    fails(errno.ENOTEMPTY, os.rename, work / "other", work / "empty")
    (work / "file").write_text("x")
    fails(errno.ENOTDIR, os.rename, work / "other", work / "file")
    fails(errno.EISDIR, os.rename, work / "file", work / "other")


def test_rename_of_two_links_to_one_file_does_nothing(work):
    (work / "a").write_text("x")
    os.link(work / "a", work / "b")
    os.rename(work / "a", work / "b")
    assert sorted(os.listdir(work)) == ["a", "b"]


def test_rename_without_replacing_and_exchange(work):
    (work / "a").write_text("a")
    (work / "b").write_text("b")
    fails(errno.EEXIST, renameat2, work / "a", work / "b", RENAME_NOREPLACE)
    renameat2(work / "a", work / "c", RENAME_NOREPLACE)
    assert sorted(os.listdir(work)) == ["b", "c"]
    renameat2(work / "b", work / "c", RENAME_EXCHANGE)
    assert ((work / "b").read_text(), (work / "c").read_text()) == ("a", "b")
    os.mkdir(work / "d")
    (work / "d" / "inside").write_text("x")
    renameat2(work / "b", work / "d", RENAME_EXCHANGE)
    assert (work / "b" / "inside").read_text() == "x"
    assert (work / "d").read_text() == "a"
    fails(errno.ENOENT, renameat2, work / "b", work / "missing", RENAME_EXCHANGE)


def test_listing_while_names_come_and_go(work):
    names = {f"file-{number:04}" for number in range(3000)}
    for name in names:
        os.close(os.open(work / name, os.O_CREAT))
    seen = []
    with os.scandir(work) as entries:
        for entry in entries:
            seen.append(entry.name)
            if len(seen) == 10:
                for number in range(0, 3000, 2):
                    os.unlink(work / f"file-{number:04}")
    assert len(seen) == len(set(seen))
    assert {f"file-{number:04}" for number in range(1, 3000, 2)} <= set(seen)
    assert not (work / "file-2998").exists()
    assert len(os.listdir(work)) == 1500


def test_numbers_stay(work):
    os.mkdir(work / "d")
    (work / "d" / "f").write_text("x")
    number = (work / "d" / "f").stat().st_ino
    assert number > 1
    assert [entry.inode() for entry in os.scandir(work / "d")] == [number]
