"""What was made or removed a moment ago is nowhere but in the mount: nobody must be able to tell."""

import errno
import os
import shutil
import stat

import pytest

MANY = 300


def burst(folder, count=MANY):
    """Make files without a pause, so that some are not in the tree when the function returns."""
    for number in range(count):
        (folder / f"f{number}").write_bytes(b"%d" % number)
    return count


def test_names_times_and_modes_are_those_that_stay(work, pod):
    before = work.stat().st_mtime_ns
    burst(work)
    last = work / f"f{MANY - 1}"
    last.chmod(0o604)
    os.utime(last, ns=(5, 7))
    assert sorted(os.listdir(work)) == sorted(f"f{number}" for number in range(MANY))
    seen = {name: os.stat(work / name) for name in os.listdir(work)}
    folder = work.stat()
    assert folder.st_mtime_ns > before
    pod.settled()
    pod.forget()
    for name, then in seen.items():
        now = os.stat(work / name)
        for field in ("st_ino", "st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_ctime_ns", "st_nlink"):
            assert getattr(now, field) == getattr(then, field), (name, field)
        assert (work / name).read_bytes() == name[1:].encode()
    assert work.stat().st_mtime_ns == folder.st_mtime_ns
    assert seen[last.name].st_mtime_ns == 7
    assert stat.S_IMODE(seen[last.name].st_mode) == 0o604


def test_a_file_that_stays_open_is_in_the_tree_soon_and_is_written_on(work, pod):
    with open(work / "log", "wb", buffering=0) as file:
        file.write(b"one")
        pod.settled()
        file.write(b" two")
        assert (work / "log").read_bytes() == b"one two"
    pod.settled()
    pod.forget()
    assert (work / "log").read_bytes() == b"one two"


@pytest.mark.parametrize("what", ["rename", "replace", "link", "xattr", "exclusive", "directory", "fsync"])
def test_whatever_is_done_next_finds_the_file(work, pod, what):
    burst(work, 50)
    path = work / "f49"
    match what:
        case "rename":
            path.rename(work / "new")
            assert (work / "new").read_bytes() == b"49"
            assert not path.exists()
        case "replace":
            path.replace(work / "f48")
            assert (work / "f48").read_bytes() == b"49"
            assert len(os.listdir(work)) == 49
        case "link":
            os.link(path, work / "new")
            assert path.stat().st_nlink == (work / "new").stat().st_nlink == 2
            with pytest.raises(FileExistsError):
                os.link(path, work / "f48")
        case "xattr":
            with pytest.raises(OSError, match="No data"):
                os.getxattr(path, "user.a")
            os.setxattr(path, "user.a", b"1")
            assert os.getxattr(path, "user.a") == b"1"
        case "exclusive":
            with pytest.raises(FileExistsError):
                os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            with pytest.raises(FileExistsError):
                path.mkdir()
        case "directory":
            with pytest.raises(NotADirectoryError):
                path.rmdir()
            with pytest.raises(OSError) as refused:
                work.rmdir()
            assert refused.value.errno == errno.ENOTEMPTY
        case "fsync":
            with open(path, "r+b") as file:
                file.write(b"5")
                os.fsync(file.fileno())
            assert path.read_bytes() == b"59"
    pod.settled()
    pod.forget()
    assert len(os.listdir(work)) in (49, 50, 51)


def test_made_and_removed_at_once_leaves_nothing(work, pod):
    for _ in range(3):
        burst(work, 40)
        with open(work / "f7", "r+b", buffering=0) as file:
            for name in os.listdir(work):
                (work / name).unlink()
            assert os.listdir(work) == []
            assert file.read() == b"7"
            file.write(b"more")
            assert os.fstat(file.fileno()).st_nlink == 0
    pod.settled()
    pod.forget()
    assert os.listdir(work) == []


def test_a_removed_tree_is_gone_and_its_names_are_free(work, pod):
    top = work / "top"
    for number in range(5):
        (top / f"d{number}").mkdir(parents=True)
        burst(top / f"d{number}", 30)
    pod.settled()
    inner = os.open(top / "d3", os.O_RDONLY)
    try:
        assert top.stat().st_nlink == 7
        shutil.rmtree(top / "d0")
        assert top.stat().st_nlink == 6
        shutil.rmtree(top)
        assert os.listdir(work) == []
        with pytest.raises(FileNotFoundError):
            (top / "d1" / "f1").stat()
        with pytest.raises(FileNotFoundError):
            os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=inner)
        assert os.listdir(inner) == []
    finally:
        os.close(inner)
    (top / "d0").mkdir(parents=True)
    (top / "d0" / "f1").write_bytes(b"anew")
    assert sorted(os.listdir(top)) == ["d0"]
    pod.settled()
    pod.forget()
    assert [(name, (top / "d0" / name).read_bytes()) for name in os.listdir(top / "d0")] == [("f1", b"anew")]


def test_a_name_used_again_and_again(work, pod):
    path = work / "f"
    for number in range(60):
        path.write_bytes(b"%d" % number)
        if number % 3:
            path.unlink()
            with pytest.raises(FileNotFoundError):
                path.unlink()
            if number % 3 == 2:
                path.mkdir()
                assert path.is_dir()
                path.rmdir()
    assert os.listdir(work) == []
    path.write_bytes(b"last")
    pod.settled()
    pod.forget()
    assert path.read_bytes() == b"last"
    assert os.listdir(work) == ["f"]
