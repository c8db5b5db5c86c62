"""Where the workloads run: a local folder, a Wormhole mount, two Wormhole pods, sshfs over loopback."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WORMHOLE = Path(sys.executable).parent / "wormhole"


@dataclass(frozen=True)
class Target:
    """One place to measure."""

    name: str
    write: Path
    """Where files are made."""
    read: Path
    """Where they are read: another machine's view where the target has two."""
    home: Path | None = None
    """The writing pod's home, where it is a pod."""

    def settle(self) -> None:
        """Wait until what was written is where it should be."""
        if self.home is not None:
            wormhole(self.home, "sync", "--timeout", "120s")
        os.sync()


def wormhole(home: Path, *arguments: str) -> dict[str, object]:
    """Run a command of the pod and return its JSON."""
    environment = os.environ | {"WORMHOLE_HOME": str(home)}
    done = subprocess.run(
        [WORMHOLE, *arguments, "--json"], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1):
        raise SystemExit(f"wormhole {' '.join(arguments)}: {done.stderr}")
    document: dict[str, object] = json.loads(done.stdout)
    return document


def drop_kernel_caches() -> None:
    """Forget clean pages, names and inodes, so that the next access is cold."""
    os.sync()
    with contextlib.suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("3")


def one_copy(folder: Path, name: str) -> Path:
    """Write a cluster.toml without redundancy: the comparison is with systems that keep one copy."""
    path = folder / f"{name}.toml"
    path.write_text(f'[cluster]\nname = "{name}"\n\n[redundancy]\ncopies = 1\n')
    return path


@contextlib.contextmanager
def local(folder: Path) -> Iterator[Target]:
    """Yield a folder of the local file system."""
    place = folder / "local"
    place.mkdir()
    yield Target("ext4", place, place)


@contextlib.contextmanager
def one_pod(folder: Path) -> Iterator[Target]:
    """Yield the mount of a single pod."""
    home, mount = folder / "one", folder / "one.mount"
    toml = one_copy(folder, "bench-one")
    wormhole(home, "new", "bench-one", "--from", str(toml), "--mount", str(mount), "--listen", "127.0.0.1:0")
    try:
        yield Target("wormhole", mount, mount, home)
    finally:
        wormhole(home, "destroy", "--yes", "--force")


@contextlib.contextmanager
def two_pods(folder: Path) -> Iterator[Target]:
    """Yield two joined pods: written on one, read on the other."""
    homes, mounts = [folder / "a", folder / "b"], [folder / "a.mount", folder / "b.mount"]
    toml = one_copy(folder, "bench-two")
    made = wormhole(
        homes[0],
        "new",
        "bench-two",
        "--from",
        str(toml),
        "--mount",
        str(mounts[0]),
        "--listen",
        "127.0.0.1:0",
        "--pod",
        "a",
    )
    try:
        join = ("join", "--code", str(made["code"]), "--peer", str(made["address"]))
        wormhole(homes[1], *join, "--mount", str(mounts[1]), "--listen", "127.0.0.1:0", "--pod", "b")
        yield Target("two pods", mounts[0], mounts[1], homes[0])
    finally:
        for home in reversed(homes):
            if home.exists():
                wormhole(home, "destroy", "--yes", "--force")


@contextlib.contextmanager
def sshfs(folder: Path) -> Iterator[Target | None]:
    """Yield a folder and its sshfs mount over loopback; None where sshfs or sshd isn't installed."""
    sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if sshd is None or shutil.which("sshfs") is None:
        yield None
        return
    keys, served, mount = folder / "ssh", folder / "ssh.served", folder / "ssh.mount"
    for place in (keys, served, mount):
        place.mkdir(mode=0o700)
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / key)], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen(
        [
            *(sshd, "-D", "-e", "-f", "/dev/null", "-p", "7422", "-o", "ListenAddress=127.0.0.1"),
            *("-o", f"HostKey={keys / 'host'}", "-o", f"AuthorizedKeysFile={keys / 'user'}.pub"),
            *("-o", "StrictModes=no", "-o", "PidFile=none", "-o", "Subsystem=sftp internal-sftp"),
        ],
        stderr=subprocess.DEVNULL,
    )
    options = f"port=7422,IdentityFile={keys / 'user'},StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null"
    try:
        for _ in range(50):
            done = subprocess.run(["sshfs", f"127.0.0.1:{served}", str(mount), "-o", options], check=False)
            if done.returncode == 0:
                break
            time.sleep(0.1)
        else:
            raise SystemExit("sshfs could not be mounted")
        yield Target("sshfs", served, mount)
    finally:
        subprocess.run(["fusermount3", "-u", "-z", str(mount)], check=False)
        server.terminate()
        server.wait()
