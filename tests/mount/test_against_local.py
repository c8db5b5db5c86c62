# mypy: disable-error-code="func-returns-value"
"""Each operation with each error that it can give: the mount must do what the local file system does.

One action is run in the same small world on both; compared are its value or error, everything that is there afterwards,
and whose mtime and ctime it moved. Then another pod must see what the mount shows, times included.
"""

import fcntl
import os
import socket
import stat

import pytest

from tests.mount.oracle import LONG, NOBODY, RENAME_EXCHANGE, RENAME_NOREPLACE, effects, inside, renameat2, tick, user

FAR = "/dev/shm"


def world():
    """Make the small world that actions act on."""
    for path, data in (("f", b"content of f"), ("g", b"g"), ("empty", b""), ("locked", b"secret")):
        with open(path, "wb") as file:
            file.write(data)
    os.chmod("locked", 0o600)
    for path in ("d", "e", "full", "sticky", "closed", "setgid"):
        os.mkdir(path)
    os.chmod("sticky", 0o1777)
    os.chmod("closed", 0o700)
    os.chown("setgid", 0, 4321)
    os.chmod("setgid", 0o2777)
    for path in ("full/x", "full/y", "sticky/roots", "closed/z"):
        with open(path, "wb") as file:
            file.write(b"in it")
    with open("sticky/theirs", "wb"):
        pass
    os.chown("sticky/theirs", NOBODY, NOBODY)
    with open("theirs", "wb") as file:
        file.write(b"of nobody")
    os.chown("theirs", NOBODY, NOBODY)
    os.chmod("theirs", 0o6755)
    with open("suid", "wb") as file:
        file.write(b"x")
    os.chmod("suid", 0o6777)
    with open("sgid", "wb") as file:
        file.write(b"x")
    os.chmod("sgid", 0o2767)
    os.link("f", "hard")
    os.symlink("f", "link")
    os.symlink("d", "dirlink")
    os.symlink("nowhere", "dangling")
    os.symlink("loop", "loop")
    os.mkfifo("fifo")
    os.setxattr("g", "user.a", b"1")
    os.chmod(".", 0o777)


def opened(path, flags, mode=0o644):
    """Open and close; return what an open file knows of itself."""
    fd = os.open(path, flags, mode)
    try:
        return oct(os.fstat(fd).st_mode), os.fstat(fd).st_size
    finally:
        os.close(fd)


def through(path, flags, use):
    """Open, use, close."""
    fd = os.open(path, flags, 0o644)
    try:
        return use(fd)
    finally:
        os.close(fd)


def bound(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)


def as_nobody(action):
    def acting():
        with user(NOBODY):
            return action()

    return acting


def masked(mask, action):
    def acting():
        before = os.umask(mask)
        try:
            return action()
        finally:
            os.umask(before)

    return acting


def in_turn(*actions):
    return lambda: [action() for action in actions]


R, W, RW = os.O_RDONLY, os.O_WRONLY, os.O_RDWR
CREATE, EXCL, TRUNC, APPEND, DIR = os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_DIRECTORY

CASES = {
    # open and create
    "create": lambda: opened("new", CREATE | W),
    "create exclusive": lambda: opened("new", CREATE | EXCL | W),
    "create exclusive, there": lambda: opened("f", CREATE | EXCL | W),
    "create exclusive, dangling": lambda: opened("dangling", CREATE | EXCL | W),
    "create through dangling": lambda: opened("dangling", CREATE | W),
    "create in a file": lambda: opened("f/new", CREATE | W),
    "create in nothing": lambda: opened("no/new", CREATE | W),
    "create too long": lambda: opened(LONG + "n", CREATE | W),
    "create longest": lambda: opened(LONG, CREATE | W),
    "create mode 0": lambda: opened("new", CREATE | RW, 0),
    "create setuid": masked(0, lambda: opened("new", CREATE | W, 0o6755)),
    "create umask": masked(0o077, lambda: opened("new", CREATE | W, 0o666)),
    "create in setgid": lambda: opened("setgid/new", CREATE | W),
    "create in setgid, nobody": as_nobody(masked(0, lambda: opened("setgid/new", CREATE | W, 0o2755))),
    "create where it's forbidden": as_nobody(lambda: opened("d/new", CREATE | W)),
    "create by nobody": as_nobody(lambda: opened("new", CREATE | W)),
    "create trailing slash": lambda: opened("new/", CREATE | W),
    "open read": lambda: opened("f", R),
    "open nothing": lambda: opened("no", R),
    "open loop": lambda: opened("loop", R),
    "open link, not following": lambda: opened("link", R | os.O_NOFOLLOW),
    "open directory": lambda: opened("d", R)[0],
    "open directory to write": lambda: opened("d", W),
    "open directory to create": lambda: opened("d", CREATE | R),
    "open directory truncating": lambda: opened("d", R | TRUNC),
    "open file as directory": lambda: opened("f", R | DIR),
    "open fifo without reader": lambda: opened("fifo", W | os.O_NONBLOCK),
    "open truncating": lambda: opened("f", W | TRUNC),
    "open truncating empty": lambda: opened("empty", W | TRUNC),
    "open truncating, suid, nobody": as_nobody(lambda: opened("suid", W | TRUNC)),
    "open locked, nobody": as_nobody(lambda: opened("locked", R)),
    "open below closed, nobody": as_nobody(lambda: opened("closed/z", R)),
    "open to write, nobody": as_nobody(lambda: opened("f", W)),
    "open noatime": lambda: opened("f", R | os.O_NOATIME),
    "open noatime, nobody": as_nobody(lambda: opened("f", R | os.O_NOATIME)),
    # read and write
    "read": lambda: through("f", R, lambda fd: os.read(fd, 100)),
    "read past the end": lambda: through("f", R, lambda fd: os.pread(fd, 10, 100)),
    "read a directory": lambda: through("d", R, lambda fd: os.read(fd, 1)),
    "read, open to write": lambda: through("f", W, lambda fd: os.read(fd, 1)),
    "write": lambda: through("f", W, lambda fd: os.write(fd, b"new")),
    "write nothing": lambda: through("f", W, lambda fd: os.write(fd, b"")),
    "write, open to read": lambda: through("f", R, lambda fd: os.write(fd, b"x")),
    "write past the end": lambda: through("f", W, lambda fd: os.pwrite(fd, b"x", 50)),
    "append": lambda: through("f", W | APPEND, lambda fd: os.write(fd, b"more")),
    "append, positioned": lambda: through("f", W | APPEND, lambda fd: os.pwrite(fd, b"more", 0)),
    "write vectors": lambda: through("f", RW, lambda fd: (os.writev(fd, [b"ab", b"cd"]), os.pread(fd, 9, 0))),
    "write suid, nobody": as_nobody(lambda: through("suid", W, lambda fd: os.write(fd, b"y"))),
    "write suid, root": lambda: through("suid", W, lambda fd: os.write(fd, b"y")),
    "seek": lambda: through("f", R, lambda fd: (os.lseek(fd, -3, os.SEEK_END), os.read(fd, 9))),
    "seek before the start": lambda: through("f", R, lambda fd: os.lseek(fd, -1, os.SEEK_SET)),
    "seek to the end as hole": lambda: through("f", R, lambda fd: os.lseek(fd, 0, os.SEEK_HOLE)),
    "seek to data behind the end": lambda: through("f", R, lambda fd: os.lseek(fd, 99, os.SEEK_DATA)),
    "copy range": lambda: through("f", R, lambda a: through("new", CREATE | W, lambda b: os.copy_file_range(a, b, 7))),
    "send file": lambda: through("f", R, lambda a: through("new", CREATE | W, lambda b: os.sendfile(b, a, 0, 7))),
    "fsync": lambda: through("f", W, lambda fd: (os.write(fd, b"z"), os.fsync(fd))),
    "fdatasync reading": lambda: through("f", R, os.fdatasync),
    "fsync directory": lambda: through("d", R, os.fsync),
    # truncate
    "truncate": lambda: os.truncate("f", 3),
    "truncate longer": lambda: os.truncate("f", 30),
    "truncate same": lambda: os.truncate("f", 12),
    "ftruncate same": lambda: through("f", W, lambda fd: os.ftruncate(fd, 12)),
    "ftruncate": lambda: through("f", RW, lambda fd: (os.ftruncate(fd, 5), os.fstat(fd).st_size)),
    "ftruncate, open to read": lambda: through("f", R, lambda fd: os.ftruncate(fd, 5)),
    "truncate directory": lambda: os.truncate("d", 0),
    "truncate nothing": lambda: os.truncate("no", 0),
    "truncate negative": lambda: os.truncate("f", -1),
    "truncate fifo": lambda: os.truncate("fifo", 0),
    "truncate, nobody": as_nobody(lambda: os.truncate("f", 0)),
    "truncate suid, nobody": as_nobody(lambda: os.truncate("suid", 9)),
    "truncate in a file": lambda: os.truncate("f/x", 0),
    # unlink, rmdir, mkdir
    "unlink": lambda: os.unlink("g"),
    "unlink one of two": lambda: os.unlink("hard"),
    "unlink the first of two": lambda: os.unlink("f"),
    "unlink link": lambda: os.unlink("link"),
    "unlink fifo": lambda: os.unlink("fifo"),
    "unlink directory": lambda: os.unlink("d"),
    "unlink nothing": lambda: os.unlink("no"),
    "unlink in a file": lambda: os.unlink("f/x"),
    "unlink trailing slash": lambda: os.unlink("f/"),
    "unlink too long": lambda: os.unlink(LONG + "n"),
    "unlink, nobody": as_nobody(lambda: os.unlink("full/x")),
    "unlink sticky, nobody": as_nobody(lambda: os.unlink("sticky/roots")),
    "unlink own in sticky": as_nobody(lambda: os.unlink("sticky/theirs")),
    "rmdir": lambda: os.rmdir("d"),
    "rmdir full": lambda: os.rmdir("full"),
    "rmdir file": lambda: os.rmdir("f"),
    "rmdir link": lambda: os.rmdir("dirlink"),
    "rmdir nothing": lambda: os.rmdir("no"),
    "rmdir dot": lambda: os.rmdir("d/."),
    "rmdir dotdot": lambda: os.rmdir("d/.."),
    "rmdir too long": lambda: os.rmdir(LONG + "n"),
    "rmdir, nobody": as_nobody(lambda: os.rmdir("sticky")),
    "mkdir": lambda: os.mkdir("new"),
    "mkdir sticky": masked(0, lambda: os.mkdir("new", 0o1777)),
    "mkdir setuid": masked(0, lambda: os.mkdir("new", 0o6777)),
    "mkdir in setgid": lambda: os.mkdir("setgid/new", 0o755),
    "mkdir there": lambda: os.mkdir("d"),
    "mkdir on a file": lambda: os.mkdir("f"),
    "mkdir on a dangling link": lambda: os.mkdir("dangling"),
    "mkdir in a file": lambda: os.mkdir("f/x"),
    "mkdir in nothing": lambda: os.mkdir("no/x"),
    "mkdir dot": lambda: os.mkdir("."),
    "mkdir too long": lambda: os.mkdir(LONG + "n"),
    "mkdir trailing slash": lambda: os.mkdir("new/"),
    "mkdir, nobody": as_nobody(lambda: os.mkdir("d/x")),
    # rename
    "rename": lambda: os.rename("g", "new"),
    "rename to elsewhere": lambda: os.rename("g", "d/new"),
    "rename over": lambda: os.rename("g", "empty"),
    "rename over one of two": lambda: os.rename("g", "hard"),
    "rename one of two over the other": lambda: os.rename("hard", "f"),
    "rename to itself": lambda: os.rename("g", "g"),
    "rename link": lambda: os.rename("link", "new"),
    "rename over link": lambda: os.rename("g", "dangling"),
    "rename directory": lambda: os.rename("full", "new"),
    "rename directory elsewhere": lambda: os.rename("full", "d/new"),
    "rename directory over empty": lambda: os.rename("full", "d"),
    "rename directory over full": lambda: os.rename("d", "full"),
    "rename directory over file": lambda: os.rename("d", "f"),
    "rename file over directory": lambda: os.rename("f", "d"),
    "rename directory into itself": lambda: os.rename("full", "full/new"),
    "rename directory over its parent": lambda: os.rename("full/x", "full"),
    "rename dot": lambda: os.rename("d/.", "new"),
    "rename dotdot": lambda: os.rename("d/..", "new"),
    "rename nothing": lambda: os.rename("no", "new"),
    "rename to nothing": lambda: os.rename("f", "no/new"),
    "rename in a file": lambda: os.rename("f", "g/new"),
    "rename from a file": lambda: os.rename("f/x", "new"),
    "rename file with slash": lambda: os.rename("f", "new/"),
    "rename too long": lambda: os.rename("f", LONG + "n"),
    "rename far": lambda: os.rename("f", FAR + "/wormhole-new"),
    "rename, nobody": as_nobody(lambda: os.rename("full/x", "full/z")),
    "rename sticky, nobody": as_nobody(lambda: os.rename("sticky/roots", "new")),
    "rename over sticky, nobody": as_nobody(lambda: os.rename("sticky/theirs", "sticky/roots")),
    "rename not replacing": lambda: renameat2("f", "new", RENAME_NOREPLACE),
    "rename not replacing, there": lambda: renameat2("f", "g", RENAME_NOREPLACE),
    "rename not replacing itself": lambda: renameat2("f", "hard", RENAME_NOREPLACE),
    "exchange": lambda: renameat2("f", "g", RENAME_EXCHANGE),
    "exchange file and directory": lambda: renameat2("g", "full", RENAME_EXCHANGE),
    "exchange across": lambda: renameat2("full/x", "d", RENAME_EXCHANGE),
    "exchange with nothing": lambda: renameat2("f", "new", RENAME_EXCHANGE),
    "exchange with its child": lambda: renameat2("full", "full/x", RENAME_EXCHANGE),
    "exchange two links": lambda: renameat2("f", "hard", RENAME_EXCHANGE),
    "rename with both flags": lambda: renameat2("f", "g", RENAME_EXCHANGE | RENAME_NOREPLACE),
    # link, symlink, readlink
    "link": lambda: os.link("g", "new"),
    "link a third time": lambda: os.link("hard", "d/new"),
    "link a symlink": lambda: os.link("link", "new", follow_symlinks=False),
    "link what a symlink shows": lambda: os.link("link", "new"),
    "link fifo": lambda: os.link("fifo", "new"),
    "link directory": lambda: os.link("d", "new"),
    "link there": lambda: os.link("f", "g"),
    "link nothing": lambda: os.link("no", "new"),
    "link into nothing": lambda: os.link("f", "no/new"),
    "link into a file": lambda: os.link("f", "g/new"),
    "link too long": lambda: os.link("f", LONG + "n"),
    "link far": lambda: os.link("f", FAR + "/wormhole-new"),
    "link, nobody": as_nobody(lambda: os.link("f", "d/new")),
    "symlink": lambda: os.symlink("whatever/there", "new"),
    "symlink of 4095 bytes": lambda: os.symlink("x" * 4095, "new"),
    "symlink of 4096 bytes": lambda: os.symlink("x" * 4096, "new"),
    "symlink empty": lambda: os.symlink("", "new"),
    "symlink there": lambda: os.symlink("x", "f"),
    "symlink on dangling": lambda: os.symlink("x", "dangling"),
    "symlink in nothing": lambda: os.symlink("x", "no/new"),
    "symlink in a file": lambda: os.symlink("x", "f/new"),
    "symlink too long": lambda: os.symlink("x", LONG + "n"),
    "symlink, nobody": as_nobody(lambda: os.symlink("x", "d/new")),
    "readlink": lambda: os.readlink("link"),
    "readlink file": lambda: os.readlink("f"),
    "readlink nothing": lambda: os.readlink("no"),
    "follow loop": lambda: os.stat("loop"),
    "follow into file": lambda: os.stat("link/x"),
    # mknod
    "mkfifo": lambda: os.mkfifo("new", 0o640),
    "mkfifo there": lambda: os.mkfifo("f"),
    "mknod file": lambda: os.mknod("new", stat.S_IFREG | 0o604),
    "mknod device": lambda: os.mknod("new", stat.S_IFCHR | 0o600, os.makedev(1, 7)),
    "mknod block": lambda: os.mknod("new", stat.S_IFBLK | 0o600, os.makedev(7, 300)),
    "mknod device, nobody": as_nobody(lambda: os.mknod("new", stat.S_IFCHR | 0o600, os.makedev(1, 7))),
    "mknod too long": lambda: os.mknod(LONG + "n", stat.S_IFIFO),
    "socket": lambda: bound("new"),
    "socket there": lambda: bound("f"),
    # attributes
    "chmod": lambda: os.chmod("f", 0o640),
    "chmod the same": lambda: os.chmod("f", stat.S_IMODE(os.stat("f").st_mode)),
    "chmod everything": lambda: os.chmod("f", 0o7777),
    "chmod directory": lambda: os.chmod("d", 0o1700),
    "chmod through link": lambda: os.chmod("link", 0o600),
    "chmod nothing": lambda: os.chmod("no", 0o600),
    "chmod dangling": lambda: os.chmod("dangling", 0o600),
    "chmod loop": lambda: os.chmod("loop", 0o600),
    "chmod too long": lambda: os.chmod(LONG + "n", 0o600),
    "chmod, nobody": as_nobody(lambda: os.chmod("f", 0o600)),
    "chmod own": as_nobody(lambda: os.chmod("theirs", 0o4700)),
    "fchmod": lambda: through("f", R, lambda fd: os.fchmod(fd, 0o4755)),
    "chown": lambda: os.chown("f", 12, 34),
    "chown group only": lambda: os.chown("f", -1, 34),
    "chown suid": lambda: os.chown("suid", 12, -1),
    "chown sgid without group execution": lambda: os.chown("sgid", 12, 13),
    "chown directory with setgid": lambda: os.chown("setgid", 1, 1),
    "chown link": lambda: os.lchown("link", 12, 34),
    "chown nothing": lambda: os.chown("no", 1, 1),
    "chown, nobody": as_nobody(lambda: os.chown("f", NOBODY, NOBODY)),
    "chown own away": as_nobody(lambda: os.chown("theirs", 0, -1)),
    "chown own to itself": as_nobody(lambda: os.chown("theirs", NOBODY, NOBODY)),
    "utime": lambda: os.utime("f", ns=(1_000_000_007, 2_000_000_009)),
    "utime now": lambda: os.utime("f"),
    "utime directory": lambda: os.utime("full", ns=(5, 6)),
    "utime link": lambda: os.utime("link", ns=(5, 6), follow_symlinks=False),
    "utime fifo": lambda: os.utime("fifo", ns=(5, 6)),
    "utime nothing": lambda: os.utime("no"),
    "utime, nobody": as_nobody(lambda: os.utime("g", ns=(1, 1))),
    "utime now, nobody": as_nobody(lambda: os.utime("g")),
    "utime now, nobody may write": as_nobody(lambda: os.utime("suid")),
    "utime, nobody may write": as_nobody(lambda: os.utime("suid", ns=(1, 1))),
    "access": lambda: [os.access("locked", mode) for mode in (os.F_OK, os.R_OK, os.W_OK, os.X_OK)],
    "access, nobody": as_nobody(lambda: [os.access("locked", m, effective_ids=True) for m in (os.R_OK, os.F_OK)]),
    "stat below closed, nobody": as_nobody(lambda: os.stat("closed/z")),
    "list closed, nobody": as_nobody(lambda: os.listdir("closed")),
    "list": lambda: sorted(os.listdir("full")),
    "list file": lambda: os.listdir("f"),
    "list nothing": lambda: os.listdir("no"),
    "change into file": lambda: os.chdir("f"),
    # extended attributes
    "setxattr": lambda: os.setxattr("f", "user.new", b"value"),
    "setxattr anew": lambda: os.setxattr("g", "user.a", b"value"),
    "setxattr create, there": lambda: os.setxattr("g", "user.a", b"", os.XATTR_CREATE),
    "setxattr replace, not there": lambda: os.setxattr("g", "user.b", b"", os.XATTR_REPLACE),
    "setxattr directory": lambda: os.setxattr("d", "user.new", b"value"),
    "setxattr on a link itself": lambda: os.setxattr("link", "user.new", b"v", follow_symlinks=False),
    "setxattr fifo": lambda: os.setxattr("fifo", "user.new", b"v"),
    "setxattr name too long": lambda: os.setxattr("f", "user." + "n" * 251, b"v"),
    "setxattr without a namespace": lambda: os.setxattr("f", "name", b"v"),
    "setxattr nothing": lambda: os.setxattr("no", "user.new", b"v"),
    "setxattr, nobody": as_nobody(lambda: os.setxattr("f", "user.new", b"v")),
    "setxattr trusted": lambda: os.setxattr("f", "trusted.new", b"v"),
    "setxattr trusted, nobody": as_nobody(lambda: os.setxattr("theirs", "trusted.new", b"v")),
    "setxattr too large": lambda: os.setxattr("f", "user.new", b"v" * 65_537),
    "getxattr": lambda: os.getxattr("g", "user.a"),
    "getxattr missing": lambda: os.getxattr("g", "user.b"),
    "getxattr, nobody": as_nobody(lambda: os.getxattr("locked", "user.a")),
    "removexattr": lambda: os.removexattr("g", "user.a"),
    "removexattr missing": lambda: os.removexattr("g", "user.b"),
    "listxattr": lambda: os.listxattr("g"),
    # locks
    "flock": lambda: through("f", R, lambda fd: fcntl.flock(fd, fcntl.LOCK_EX)),
    "flock, taken": lambda: through(
        "f", R, lambda a: (fcntl.flock(a, fcntl.LOCK_EX), through("f", R, lambda b: fcntl.flock(b, 6)))
    ),
    "lock, open to read": lambda: through("f", R, lambda fd: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)),
    # what happens to open files
    "unlink open": lambda: through(
        "g", RW, lambda fd: (os.unlink("g"), os.write(fd, b"!!"), os.fstat(fd).st_nlink, os.pread(fd, 9, 0))
    ),
    "rename open": lambda: through("g", RW, lambda fd: (os.rename("g", "new"), os.write(fd, b"!!"))),
    "replace open": lambda: through(
        "g", RW, lambda fd: (os.rename("f", "g"), os.write(fd, b"!!"), os.fstat(fd).st_nlink, os.pread(fd, 9, 0))
    ),
    "link open and unlinked": lambda: through(
        "g", RW, lambda fd: (os.unlink("g"), os.link(f"/proc/self/fd/{fd}", "new", follow_symlinks=True))
    ),
    "chmod open and unlinked": lambda: through(
        "g", RW, lambda fd: (os.unlink("g"), os.fchmod(fd, 0o600), oct(os.fstat(fd).st_mode))
    ),
    "truncate open and unlinked": lambda: through(
        "g", RW, lambda fd: (os.unlink("g"), os.ftruncate(fd, 9), os.pread(fd, 20, 0))
    ),
    "xattr open and unlinked": lambda: through(
        "g", RW, lambda fd: (os.unlink("g"), os.getxattr(fd, "user.a"), os.listxattr(fd))
    ),
    "set xattr open and unlinked": lambda: through(
        "g", RW, lambda fd: (os.unlink("g"), os.setxattr(fd, "user.b", b"2"), os.getxattr(fd, "user.b"))
    ),
    "rmdir open": lambda: through("d", R, lambda fd: (os.rmdir("d"), os.fstat(fd).st_nlink, os.listdir(fd))),
    "create in removed": lambda: through("d", R, lambda fd: (os.rmdir("d"), os.open("new", CREATE | W, dir_fd=fd))),
    "stat dot in removed": lambda: through("d", R, lambda fd: (os.rmdir("d"), os.stat(".", dir_fd=fd).st_nlink)),
    "mkdir and rmdir again": in_turn(lambda: os.rmdir("d"), lambda: os.mkdir("d"), lambda: os.rmdir("d")),
}


@pytest.fixture(scope="module")
def folders(pod, tmp_path_factory):
    """A folder on the mount and one beside it."""
    return pod.mount, tmp_path_factory.mktemp("local")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.replace(" ", "-"))
def test_does_what_a_local_file_system_does(pod, folders, case):
    seen = []
    for folder in folders:
        top = folder / str(list(CASES).index(case))
        top.mkdir()
        with inside(top):
            world()
            tick()
            seen.append(effects(CASES[case]))
    assert seen[0] == seen[1]


def test_another_pod_sees_the_same(pod, folders):
    """Runs last: everything that the cases left. When a directory changed is each pod's own view of it."""
    pod.settled()
    far = pod.ask("far_tree")["shown"]
    for facts in far.values():
        if stat.S_ISDIR(facts[0]):
            facts[4:6] = ()
    pod.forget()
    here = {}
    for folder, names, files in os.walk(folders[0]):
        for name in (*names, *files):
            path = os.path.join(folder, name)
            info = os.lstat(path)
            here["/" + os.path.relpath(path, folders[0])] = [
                *(info.st_mode, info.st_uid, info.st_gid, info.st_nlink, info.st_mtime_ns, info.st_ctime_ns),
                0 if stat.S_ISDIR(info.st_mode) else info.st_size,
            ]
            if stat.S_ISDIR(info.st_mode):
                here["/" + os.path.relpath(path, folders[0])][4:6] = ()
    assert len(far) > len(CASES)
    assert far == here
