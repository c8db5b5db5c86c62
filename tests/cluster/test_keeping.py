"""What a person does to be sure of their bytes: pin, scrub, why, safe-to-unplug, on real pods and rotten disks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.lab import WORMHOLE, Host, Lab, wait_until


def kept(host: Host, path: str) -> list[str]:
    return sorted(host.ask("where", path=path)["kept"])


def reasons(host: Host, path: str) -> dict[str, str]:
    return {row["name"]: row["reason"] for row in host.wormhole("why", path)["pods"]}


def rot(path: Path, data: bytes) -> bool:
    """Flip a bit of these bytes where they lie in a file."""
    at = path.read_bytes().find(data)
    if at >= 0:
        with path.open("r+b") as file:
            file.seek(at + len(data) // 2)
            file.write(bytes([data[len(data) // 2] ^ 1]))
    return at >= 0


def rot_in_store(host: Host, data: bytes) -> None:
    store = host.home / "store"
    files = [*(store / "chunks").rglob("*"), *(store / "packs").glob("*.pack")]
    assert [rot(path, data) for path in files if path.is_file()].count(True) == 1


def code(host: Host, *line: str) -> int:
    done: subprocess.CompletedProcess[str] = host.run(WORMHOLE, *line, check=False)
    return done.returncode


@contextmanager
def being_written(path: Path) -> Iterator[None]:
    """Have a process of its own write to a file and not close it: any fork of a writer would flush it."""
    program = f"file = open({str(path)!r}, 'wb', 0); file.write(b'x' * 5000); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline()
        yield
        writer.communicate(b"\n")


def test_pin_why_scrub_and_safe_to_unplug(bare: Lab) -> None:
    laptop, desktop, nas = bare.cluster()
    pictures = laptop.mount / "my [best] pictures"
    pictures.mkdir()
    contents = {f"{number}": os.urandom(4000 + number) for number in range(10)} | {"film": os.urandom(2_500_000)}
    for name, data in contents.items():
        (pictures / name).write_bytes(data)
    (laptop.mount / "else").write_bytes(os.urandom(3000))
    laptop.wormhole("sync")
    folder = "/my [best] pictures"
    third = {name: ({"desktop", "nas"} - set(kept(laptop, f"{folder}/{name}"))).pop() for name in contents}
    unplaced = next(name for name, pod in third.items() if pod == "nas")

    # pinned: here, now and later, moved in as well, over a restart
    pinned = nas.wormhole("pin", folder)
    assert (pinned["pinned"], pinned["files"], pinned["missing"]) == (True, len(contents), 0)
    assert pinned["bytes"] == sum(map(len, contents.values()))
    wait_until(lambda: all("nas" in kept(laptop, f"{folder}/{name}") for name in contents), what="all know of it")
    assert "copies" not in nas.run(WORMHOLE, "config", "check", nas.home / "pod.toml").stderr
    nas.run(WORMHOLE, "down")
    nas.run(WORMHOLE, "up")
    bare.settled()
    (pictures / "later").write_bytes(later := os.urandom(5000))
    (laptop.mount / "else").rename(pictures / "else")
    wait_until(lambda: "nas" in kept(nas, f"{folder}/later") and "nas" in kept(nas, f"{folder}/else"), 20, "kept")
    assert "'/my \\[best] pictures/': keep = true" in reasons(nas, f"{folder}/{unplaced}")["nas"]
    assert "writer" in reasons(nas, f"{folder}/{unplaced}")["laptop"]
    assert any(word in reasons(desktop, f"{folder}/{unplaced}")["nas"] for word in ("more than wanted", "of 2: "))
    assert code(nas, "unpin", f"{folder}/film") == 4

    # rotten bytes, in a pack and in a file, come back; what nobody else has is told
    rot_in_store(nas, contents["3"])
    rot_in_store(nas, contents["film"][1 << 20 : 2 << 20])
    found = nas.wormhole("scrub")
    assert (found["damaged"], found["repaired"], found["lost"]) == (2, 2, [])
    assert found["checked"] >= len(contents) + 5
    assert nas.wormhole("scrub")["damaged"] == 0
    assert {name: (nas.mount / folder[1:] / name).read_bytes() for name in contents} == contents
    unpinned = nas.wormhole("unpin", folder)
    assert (unpinned["pinned"], unpinned["changed"]) == (False, True)
    assert len(kept(laptop, f"{folder}/{unplaced}")) >= 2, "a pinned copy counts; what is too much by it goes"

    # safe to unplug: by what the pod itself says
    for host, line in ((laptop, ()), (desktop, ("laptop",))):
        wait_until(lambda host=host, line=line: code(host, "safe-to-unplug", *line) == 0, what="it is safe")  # type: ignore[misc]
    with being_written(laptop.mount / "unsaved"):
        told: Any = desktop.wormhole("safe-to-unplug", "laptop", check=False)
        assert (told["safe"], told["pod"], told["would_lose"]) == (False, "laptop", ["/unsaved"])
        assert code(laptop, "safe-to-unplug") == 4
    for host in (desktop, nas):
        host.cut()
    wait_until(lambda: laptop.ask("status")["pods"]["alive"] == 1, 20, "alone")
    (laptop.mount / "mine").write_bytes(mine := os.urandom(6000))
    told = laptop.wormhole("safe-to-unplug", check=False)
    assert (told["safe"], told["untold"]) == (False, True)
    assert "/mine" in told["would_lose"]
    assert told["short"] >= len(contents)

    rot_in_store(laptop, mine)
    rot_in_store(laptop, later)
    done = laptop.run(WORMHOLE, "scrub", check=False)
    assert done.returncode == 8
    assert "not repaired: /mine (no other pod has it)" in done.stderr
    assert f"not repaired: {folder}/later (only pods that are away have it" in done.stderr
    for host in (desktop, nas):
        host.plug()
    bare.settled()
    wait_until(lambda: "laptop" in kept(laptop, f"{folder}/later"), 30, "it comes back by itself")
    assert laptop.wormhole("scrub", check=False)["lost"] == ["/mine"]
    (laptop.mount / "mine").unlink()
    assert (pictures / "later").read_bytes() == later
