"""A folder is prepared for a journey: what was said to work without a network works, and nothing else; three real pods."""

from __future__ import annotations

import errno
import os
from typing import Any

from tests.cluster.lab import WORMHOLE, Host, Lab, at_once, wait_until
from tests.cluster.test_rules import refused

DEADLINE_S = 2.0


def prepared(host: Host, path: str, *more: str) -> tuple[int, Any]:
    done = host.run(WORMHOLE, "prepare", path, "--for", "offline", *more, check=False)
    return done.returncode, done.stdout


def states(host: Host, name: str) -> set[str]:
    return {pod["state"] for pod in host.ask("pods")["pods"] if pod["name"] == name}


def test_what_was_said_to_work_offline_works(bare: Lab) -> None:
    laptop, desktop, nas = bare.cluster("home")
    bare.configure("redundancy.copies", "1")
    laptop.wormhole("config", "set", "network.deadline", f"{DEADLINE_S:g}s", "--pod-level")
    folder = desktop.mount / "trip"
    (folder / "deep" / "er").mkdir(parents=True)
    contents = {f"deep/er/{number}": os.urandom(1000 * number) for number in range(30)}
    contents |= {"film": os.urandom(5_000_000), "empty": b""}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    (desktop.mount / "elsewhere").write_bytes(os.urandom(3000))
    (folder / "out").symlink_to("../elsewhere")
    (folder / "in").symlink_to("deep/er/1")
    wait_until((nas.mount / "trip" / "out").is_symlink)
    (nas.mount / "trip" / "lost").write_bytes(os.urandom(2000))
    wait_until(lambda: (laptop.mount / "trip" / "lost").stat().st_size == 2000)
    wait_until((laptop.mount / "trip" / "in").is_symlink)
    nas.run(WORMHOLE, "down")
    wait_until(lambda: "alive" not in states(laptop, "nas"), 15, "the NAS is known to be away")

    ready = {"files": len(contents), "bytes": sum(map(len, contents.values()))}

    def comes() -> Any:
        """Prepare; what can't come at that moment is given up after some seconds, and may come the next time."""
        body = laptop.wormhole("prepare", "trip", "--for", "offline", check=False)
        return body if body["ready"] == ready else None

    body = wait_until(comes, what="all comes that can")
    assert (body["path"], body["works"], body["changes"]) == ("/trip", False, "yes")
    reasons = {row["path"]: row["reason"] for row in body["missing"]}
    assert reasons.keys() == {"/trip/lost", "/elsewhere"}
    assert reasons["/trip/lost"] == "only on nas, which can't be reached"
    assert "/trip/out is a link to it" in reasons["/elsewhere"]
    code, text = prepared(laptop, str(laptop.mount / "trip" / "deep"))
    assert (code, "everything will work without a network: 30 files" in text) == (0, True), text

    laptop.cut()
    wait_until(lambda: laptop.ask("status")["connected"] is False, 20, "cut off")
    there = laptop.mount / "trip"
    assert {name: (there / name).read_bytes() for name in contents} == contents
    assert (there / "in").read_bytes() == contents["deep/er/1"]
    for name in ("lost", "out"):
        assert at_once(lambda name=name: refused((there / name).read_bytes), DEADLINE_S + 1) == errno.EIO, name  # type: ignore[misc]
    (there / "deep" / "note").write_bytes(b"written on the way")
