"""Hosts in network namespaces on one bridge, each with real pods: the laboratory of the cluster tests.

Only the network is separate: the hosts share this machine's files and mounts (`nsenter --net`), so that a test reads
each pod's mount directly. Everything that is started is stopped, whatever the test did.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from base.errors import NotFoundError
from base.home import Home
from control.client import call

ROOT = Path(__file__).resolve().parents[2]
WORMHOLE = Path(sys.executable).parent / "wormhole"


def run(*command: str | Path, timeout_s: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command of the test itself."""
    words = [str(part) for part in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False)
    if check and done.returncode:
        raise AssertionError(f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


SLACK: Final = 3
"""How many times as long as it should take is waited for something: that it happens is tested here, speed is measured."""


def wait_until(condition: Callable[[], Any], timeout_s: float = 30, what: str = "") -> Any:
    """Poll until the condition holds and return its value; fail loudly at the deadline, with slack for busy machines.

    Where something isn't there, or can't be read yet, it doesn't hold yet.
    """
    end = time.monotonic() + SLACK * timeout_s
    while True:
        failure: Exception | None = None
        try:
            if value := condition():
                return value
        except (OSError, NotFoundError) as error:
            failure = error
        if time.monotonic() > end:
            raise AssertionError(f"not within {SLACK} x {timeout_s} s: {what or condition}") from failure
        time.sleep(0.05)


def shows(path: Path, data: bytes | str) -> Callable[[], bool]:
    """Return the condition that a file has this content: its name may be seen before, while it is empty."""
    return lambda: path.read_bytes() == (data.encode() if isinstance(data, str) else data)


def at_once(attempt: Callable[[], object], limit_s: float = 1.0) -> Any:
    """Do something until it took less than this once, and return what it returned then.

    What waits for somebody or something takes long each time; a machine that has much to do does so now and then.
    """

    def quick() -> tuple[object] | None:
        began = time.monotonic()
        value = attempt()
        return (value,) if time.monotonic() - began < limit_s else None

    return wait_until(quick, max(5.0, 5 * limit_s), f"done in {limit_s:g} s")[0]


@dataclass
class Host:
    """One machine of the laboratory: a network namespace, a home, a mount."""

    name: str
    namespace: str
    address: str
    folder: Path
    veth: str
    homes: list[Path] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def mount(self) -> Path:
        return self.folder / "mount"

    def command(self, *arguments: str | Path) -> list[str]:
        return ["nsenter", f"--net=/var/run/netns/{self.namespace}", *[str(part) for part in arguments]]

    def environment(self) -> dict[str, str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("WORMHOLE")}
        return environment | {"WORMHOLE_HOME": str(self.home), "HOME": str(self.folder)}

    def run(
        self, *arguments: str | Path, timeout_s: float = 90, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run any command on this host."""
        done = subprocess.run(
            self.command(*arguments),
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=self.environment(),
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
        )
        if check and done.returncode:
            raise AssertionError(f"{self.name}: {arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def start(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start a command on this host."""
        quiet = subprocess.DEVNULL
        words = self.command(*arguments)
        return subprocess.Popen(words, env=self.environment(), stdin=quiet, stdout=quiet, stderr=quiet)

    def wormhole(self, *arguments: str | Path, timeout_s: float = 90, check: bool = True) -> Any:
        """Run `wormhole ... --json` and return the document."""
        done = self.run(WORMHOLE, *arguments, "--json", timeout_s=timeout_s, check=check)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def ask(self, operation: str, **args: object) -> Any:
        """Ask the pod what a command would, over its socket: what is polled need not start a process each time."""
        return call(Home(self.home), operation, args, timeout_s=30)

    def new(self, cluster: str, *more: str) -> Any:
        return self.wormhole("new", cluster, "--mount", self.mount, "--pod", self.name, *more)

    def join(self, code: str, *more: str) -> Any:
        return self.wormhole("join", "--code", code, "--mount", self.mount, "--pod", self.name, *more)

    def invite(self) -> str:
        return str(self.wormhole("invite")["code"])

    def pid(self) -> int:
        return int(self.wormhole("status", check=False)["pid"])

    def kill(self) -> None:
        """SIGKILL this pod's processes."""
        for pid in processes_of(self.home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not processes_of(self.home), what="killed")

    def cut(self) -> None:
        """Take the host off the bridge."""
        run("ip", "link", "set", self.veth, "down")

    def plug(self) -> None:
        """Put it back."""
        run("ip", "link", "set", self.veth, "up")

    def received_bytes(self) -> int:
        """Return what this host received so far: what the bridge's end of its cable sent."""
        return self._counted("tx_bytes")

    def sent_bytes(self) -> int:
        """Return what this host sent so far."""
        return self._counted("rx_bytes")

    def _counted(self, what: str) -> int:
        return int(Path(f"/sys/class/net/{self.veth}/statistics/{what}").read_text())

    def stored(self) -> set[str]:
        """Return the BLAKE3 hashes of what really lies on this host's disk."""
        lines = run(ROOT / "script" / "hash-store", self.home, timeout_s=120).stdout.splitlines()
        return {line.split()[0] for line in lines}


def processes_of(home: Path) -> list[int]:
    """Return the processes whose environment names this home."""
    mark = f"WORMHOLE_HOME={home}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def mounts_below(folder: Path) -> list[str]:
    """Return mount points below a folder, the deepest first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True)


class Lab:
    """N hosts on one bridge."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder
        self.key = f"{os.getpid() % 100000}"
        self.bridge = f"wb{self.key}"
        self.hosts = [self._host(index) for index in range(number)]

    def _host(self, index: int) -> Host:
        name = ("laptop", "desktop", "nas", "attic", "office", "garage", "cellar")[index]
        folder = self.folder / name
        folder.mkdir()
        return Host(name, f"w{index}n{self.key}", f"10.77.0.{index + 1}", folder, f"wv{index}x{self.key}")

    def start(self) -> None:
        run("ip", "link", "add", self.bridge, "type", "bridge")
        run("ip", "link", "set", self.bridge, "up")
        for host in self.hosts:
            run("ip", "netns", "add", host.namespace)
            run("ip", "link", "add", host.veth, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
            run("ip", "link", "set", host.veth, "master", self.bridge, "up")
            inside = ("ip", "-n", host.namespace)
            run(*inside, "addr", "add", f"{host.address}/24", "brd", "+", "dev", "eth0")
            run(*inside, "link", "set", "eth0", "up")
            run(*inside, "link", "set", "lo", "up")
            run(*inside, "route", "add", "default", "dev", "eth0")

    def cluster(self, name: str = "home", *more: str) -> list[Host]:
        """Create a cluster over all hosts by codes and real multicast, and wait until all see all."""
        first, *others = self.hosts
        first.new(name, *more)
        code = str(first.wormhole("invite", "--uses", str(max(1, len(others))))["code"])
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda host: host.join(code), others))
        self.settled()
        return self.hosts

    def configure(self, key: str, value: str, *, on: Host | None = None, hosts: Sequence[Host] = ()) -> None:
        """Change the cluster's configuration on a host (the first) and wait until these (all) have it in force."""
        done = (on or self.hosts[0]).run(WORMHOLE, "config", "set", key, value, check=False)
        assert done.returncode in (0, 1), done  # 1: done, with a warning
        self.in_force(on or self.hosts[0], *hosts)

    def in_force(self, by: Host, *hosts: Host) -> None:
        """Wait until these hosts (all) have the same configuration in force as one of them."""
        text = str(by.wormhole("config", "export")["toml"])
        files = [host.home / "cluster.toml" for host in hosts or self.hosts]  # written once it is in force
        wait_until(lambda: all(file.read_text() == text for file in files), what=f"in force everywhere: {text}")

    def measured(self, *hosts: Host) -> None:
        """Wait until these full pods (all) have measured the network, as each does once some seconds after its start.

        Megabytes cross the network for that, beside what a test counts.
        """
        for host in hosts or self.hosts:
            log = host.home / "pod.log"
            wait_until(
                lambda log=log: "the network was measured" in log.read_text().rpartition(" starting\n")[2],  # type: ignore[misc]
                what=f"{host.name} has measured the network",
            )

    def settled(self) -> None:
        """Wait until every pod sees every other alive."""

        def all_alive() -> bool:
            return all(
                [pod["state"] for pod in host.ask("pods")["pods"]] == ["alive"] * len(self.hosts) for host in self.hosts
            )

        wait_until(all_alive, 30, "all pods alive")

    def stop(self) -> None:
        for host in self.hosts:
            for home in (host.home, *host.homes):
                for pid in processes_of(home):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        for point in mounts_below(self.folder):
            run("umount", "-l", point, check=False)
        for host in self.hosts:
            run("ip", "netns", "del", host.namespace, check=False)
            run("ip", "link", "del", host.veth, check=False)
        run("ip", "link", "del", self.bridge, check=False)


@contextlib.contextmanager
def lab(number: int) -> Iterator[Lab]:
    """Make a laboratory in a short path (a control socket's path is limited) and take it down."""
    folder = Path("/tmp") / f"wh{os.getpid()}-{time.monotonic_ns() % 100000}"
    folder.mkdir()
    made = Lab(folder, number)
    try:
        made.start()
        yield made
    except BaseException:
        for log in folder.glob("*/home/pod.log"):
            sys.stderr.write(f"--- {log}\n{log.read_text(errors='replace')[-6000:]}\n")
        raise
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def below(folder: Path) -> dict[str, bytes | None]:
    """Return everything below a folder that others are changing: path -> content, None for folders."""
    found: dict[str, bytes | None] = {}
    for top, folders, files in os.walk(folder):  # skips folders that went away meanwhile
        for name in (*folders, *files):
            path = Path(top) / name
            with contextlib.suppress(FileNotFoundError):
                found[str(path.relative_to(folder))] = None if path.is_dir() else path.read_bytes()
    return found
