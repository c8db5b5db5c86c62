"""The mount as an ordinary user has it: started as root, it becomes nobody in a mount namespace of its own.

    unshare --mount python tests/mount/plain_user.py FOLDER STORY

The namespace lets nobody read Python and this repository wherever they lie, and keeps the mounts from everybody else.
FOLDER is handed to nobody; STORY is a function of this file.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

NOBODY = 65534
SEEDS = (1, 2)
STEPS = 400


def open_way(needed: list[Path]) -> None:
    """Let everybody reach these folders: what hides them is replaced, in this namespace, by folders that lead to them."""
    hidden: dict[Path, list[Path]] = {}
    for path in needed:
        closed = [one for one in reversed([path, *path.parents]) if not one.stat().st_mode & 0o001]
        if closed:
            hidden.setdefault(closed[0], []).append(path)
    for folder, paths in hidden.items():
        holders = [os.open(path, os.O_PATH) for path in paths]
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder], check=True)
        for path, holder in zip(paths, holders, strict=True):
            path.mkdir(parents=True)
            subprocess.run(
                ["mount", "--no-canonicalize", "--bind", f"/proc/self/fd/{holder}", path], check=True, pass_fds=[holder]
            )
            os.close(holder)


def open_device(folder: Path) -> None:
    """Let everybody use /dev/fuse, as udev does on other machines."""
    device = folder / "device"
    os.mknod(device, stat.S_IFCHR | 0o666, os.stat("/dev/fuse").st_rdev)
    os.chmod(device, 0o666)
    subprocess.run(["mount", "--bind", device, "/dev/fuse"], check=True)


def become_nobody(folder: Path) -> None:
    """Start this file again as nobody."""
    open_device(folder)
    os.chmod(folder, 0o700)
    os.chown(folder, NOBODY, NOBODY)
    open_way([Path(sys.base_prefix), ROOT, Path(sys.prefix)])
    os.chdir(folder)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("WORMHOLE", "XDG"))}
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    os.execve(sys.executable, [sys.executable, *sys.argv], {**environment, "HOME": str(folder)})


def fails(number: int, function: Callable[..., object], *arguments: object) -> None:
    """Check that a call fails with exactly this error number."""
    found = error_of(function, *arguments)
    assert found == number, (function, arguments, errno.errorcode.get(found))


def error_of(function: Callable[..., object], *arguments: object) -> int:
    """Return the error number of a call, 0 when it works."""
    try:
        function(*arguments)
    except OSError as error:
        return error.errno or 0
    return 0


def is_dead(mount: Path) -> bool:
    """Tell whether what served a mount is gone; the first to ask is told that its request was aborted."""
    return error_of(os.listdir, mount) in (errno.ENOTCONN, errno.ECONNABORTED)


def story(folder: Path, ownership: str) -> None:
    """Mount by fusermount3, live on it, be killed, mount again, unmount."""
    from tests.mount.comparer import Comparer
    from tests.mount.conftest import Pod
    from vfs import mountpoint

    pod = Pod(folder)
    pod.start(ownership)
    try:
        info = pod.mount.stat()
        assert (info.st_uid, info.st_gid) == (NOBODY, NOBODY)
        for seed in SEEDS:
            top, plain = pod.mount / f"{seed}", folder / f"plain-{seed}"
            top.mkdir()
            plain.mkdir()
            Comparer(top, plain, seed).run(STEPS)
        file = pod.mount / "f"
        file.write_text("mine")
        fails(errno.EPERM, os.chown, file, 0, 0)
        os.chmod(file, 0o000)
        fails(errno.EACCES, open, file)
        os.chmod(file, 0o600)
        fails(errno.EPERM, os.mknod, pod.mount / "device", 0o020600, os.makedev(1, 3))
        pod.settled()
        pod.kill()
        assert is_dead(pod.mount)
        pod.start(ownership)
        assert file.read_text() == "mine"
        with open(file) as held:
            answer = pod.ask("unmount", force=False)
            assert f"({os.getpid()})" in answer["error"], answer
            assert held.read() == "mine"
        pod.stop()
        assert mountpoint.mounted_at(pod.mount) is None
    finally:
        pod.clean()


def mine(folder: Path) -> None:
    """All files belong to who mounts."""
    story(folder, "mine")


def kept(folder: Path) -> None:
    """Files belong to whom they belong."""
    story(folder, "kept")


def commands(folder: Path) -> None:
    """The commands, from new to destroy, with a kill in between."""
    wormhole = Path(sys.executable).parent / "wormhole"

    def run(*words: str, code: int = 0) -> str:
        done = subprocess.run([wormhole, *words], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code, (words, done)
        return done.stdout + done.stderr

    import json
    import signal

    pid = 0
    try:
        run("new", "home", "--pod", "laptop", "--listen", "127.0.0.1:0")
        mount = folder / "Wormhole"
        (mount / "a").write_text("hello")
        run("sync", "--timeout", "30s")
        pid = json.loads(run("status", "--json"))["pid"]
        os.kill(pid, signal.SIGKILL)
        assert is_dead(mount)
        run("up")
        pid = json.loads(run("status", "--json"))["pid"]
        assert (mount / "a").read_text() == "hello"
        with open(mount / "a"):
            said = run("unmount", code=4)
            assert f"({os.getpid()})" in said, said
        run("unmount")
        assert os.listdir(mount) == []
        run("mount")
        assert os.listdir(mount) == ["a"]
        run("destroy", "--yes", "--force")
    finally:
        if pid and Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)


STORIES: Final = {"mine": mine, "kept": kept, "commands": commands}


def main() -> None:
    folder, name = Path(sys.argv[1]), sys.argv[2]
    if os.geteuid() == 0:
        become_nobody(folder)
    STORIES[name](folder)


if __name__ == "__main__":
    main()
