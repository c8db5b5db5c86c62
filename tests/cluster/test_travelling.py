"""A folder is prepared for a journey: what was said to work without a network works, and nothing else; three real pods."""

from __future__ import annotations

import errno
import os
import time
from typing import Any

import pytest

from tests.cluster.lab import WORMHOLE, Host, Lab, wait_until

DEADLINE_S = 2.0


def prepared(host: Host, path: str, *more: str) -> tuple[int, Any]:
    done = host.run(WORMHOLE, "prepare", path, "--for", "offline", *more, check=False)
    return done.returncode, done.stdout


def states(host: Host, name: str) -> set[str]:
    return {pod["state"] for pod in host.wormhole("pods")["pods"] if pod["name"] == name}


def test_what_was_said_to_work_offline_works(bare: Lab) -> None:
    laptop, desktop, nas = bare.cluster("home")
    laptop.wormhole("config", "set", "redundancy.copies", "1")
    laptop.wormhole("config", "set", "network.deadline", f"{DEADLINE_S:g}s", "--pod-level")
    wait_until(lambda: desktop.wormhole("config", "get", "redundancy.copies")["value"] == 1, 10)
    folder = desktop.mount / "trip"
    (folder / "deep" / "er").mkdir(parents=True)
    contents = {f"deep/er/{number}": os.urandom(1000 * number) for number in range(30)}
    contents |= {"film": os.urandom(5_000_000), "empty": b""}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    (desktop.mount / "elsewhere").write_bytes(os.urandom(3000))
    (folder / "out").symlink_to("../elsewhere")
    (folder / "in").symlink_to("deep/er/1")
    wait_until((nas.mount / "trip" / "out").is_symlink, 10)
    (nas.mount / "trip" / "lost").write_bytes(os.urandom(2000))
    wait_until((laptop.mount / "trip" / "lost").exists, 10)
    nas.run(WORMHOLE, "down")
    wait_until(lambda: "alive" not in states(laptop, "nas"), 15, "the NAS is known to be away")

    body = laptop.wormhole("prepare", "trip", "--for", "offline", check=False)
    ready = {"files": len(contents), "bytes": sum(map(len, contents.values()))}
    assert (body["path"], body["works"], body["ready"], body["changes"]) == ("/trip", False, ready, "yes")
    reasons = {row["path"]: row["reason"] for row in body["missing"]}
    assert reasons.keys() == {"/trip/lost", "/elsewhere"}
    assert reasons["/trip/lost"] == "only on nas, which can't be reached"
    assert "/trip/out is a link to it" in reasons["/elsewhere"]
    code, text = prepared(laptop, str(laptop.mount / "trip" / "deep"))
    assert (code, "everything will work without a network: 30 files" in text) == (0, True), text

    laptop.cut()
    wait_until(lambda: laptop.wormhole("status", check=False)["connected"] is False, 20, "cut off")
    there = laptop.mount / "trip"
    assert {name: (there / name).read_bytes() for name in contents} == contents
    assert (there / "in").read_bytes() == contents["deep/er/1"]
    for name in ("lost", "out"):
        began = time.monotonic()
        with pytest.raises(OSError) as error:
            (there / name).read_bytes()
        assert (error.value.errno, time.monotonic() - began < DEADLINE_S + 1) == (errno.EIO, True), name
    (there / "deep" / "note").write_bytes(b"written on the way")
