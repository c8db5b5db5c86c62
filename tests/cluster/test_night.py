"""A crisis in the night: five pods, disks nearly full, two die one after another, one comes back (R7-R9, R42, R45)."""

from __future__ import annotations

import errno
import itertools
import os
import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from base.ids import hash_bytes
from tests.cluster.lab import WORMHOLE, Host, Lab, lab, shows, wait_until
from tests.cluster.test_crisis import outcome, status

CONFIGURATION = """
[cluster]
name = "home"
[redundancy]
copies = 2
absent_after = "5s"
repair_after = "1h"
[continuity]
degraded = "throttle"
critical = "freeze"
throttle = "50 MB/s"
"""
FILES, FILE_BYTES = 24, 1_000_000
LIMIT = "12 MB"


def on_disks(hosts: list[Host], contents: dict[str, bytes]) -> dict[str, set[str]]:
    """Return on whose disks each file's bytes, one chunk, really are."""
    found = {host.name: host.stored() for host in hosts}
    hashes = {name: hash_bytes(data).hex() for name, data in contents.items()}
    return {name: {host for host, stored in found.items() if one in stored} for name, one in hashes.items()}


def in_pairs(places: dict[str, set[str]]) -> dict[str, set[str]] | None:
    """Return the places if each file is in two: who loses a copy too many otherwise decides who has the only one."""
    return places if all(len(pods) == 2 for pods in places.values()) else None


def one_of_a_pair(places: dict[str, set[str]], hosts: list[Host]) -> Host:
    """Return one of the two hosts that are alone in keeping most of the files."""
    shared = Counter(frozenset(pods) for pods in places.values() if len(pods) == 2)
    pair = max(itertools.combinations(hosts, 2), key=lambda two: shared[frozenset(one.name for one in two)])
    return pair[0]


def in_order(log: str, lines: list[str]) -> None:
    """Assert that a log tells these (regular expressions) one after the other."""
    at = 0
    for line in lines:
        found = re.compile(line).search(log, at)
        assert found, f"{line!r} isn't told after:\n{log[:at][-1500:]}\n... but:\n{log[at:]}"
        at = found.end()


def page(host: Host) -> str:
    done = host.run(WORMHOLE, "status", check=False)
    return done.stdout + done.stderr


def seen(host: Host, situation: str, *doing: str) -> Any:
    """Wait until `status` says so, and return it."""

    def so() -> Any:
        found = status(host)
        stands = found["situation"] == situation and [one["reaction"] for one in found["doing"]] == list(doing)
        return found if stands else None

    return wait_until(so, 60, f"{situation}, {doing} on {host.name}")


def planned(asked: Host, lost: Host, situation: str) -> Any:
    plan = asked.wormhole("plan", "--lose", lost.name, check=False)
    return plan if plan["situation"] == situation else None


def next_blow(asked: Host, hosts: list[Host]) -> Host | None:
    """Return one of some hosts that has the only copy of something."""
    return next((host for host in hosts if planned(asked, host, "critical")), None)


def test_a_night_is_told_in_order_and_loses_nothing(tmp_path: Path) -> None:
    assert os.geteuid() == 0, "network namespaces need root: run the tests as root"
    configuration = tmp_path / "cluster.toml"
    configuration.write_text(CONFIGURATION)
    with lab(5) as made:
        the_night(made, made.cluster("home", "--from", str(configuration)))


def the_night(made: Lab, hosts: list[Host]) -> None:
    laptop, desktop, *others = hosts
    for host in hosts:
        tight, text = host.folder / "pod.toml", (host.home / "pod.toml").read_text()
        text = text.replace('"20 GiB"', '"1 MB"').replace(
            '# [storage]\n# limit = "90%"', f'[storage]\nlimit = "{LIMIT}"'
        )
        tight.write_text(text)
        assert len(host.wormhole("config", "apply", tight, "--pod-level")["changes"]) == 2
    contents = {f"{number}": os.urandom(FILE_BYTES) for number in range(FILES)}
    for host, (name, data) in zip(itertools.cycle(hosts), contents.items(), strict=False):
        (host.mount / name).write_bytes(data)
    for host in hosts:
        host.wormhole("sync")
    assert all(len(pods) >= 2 for pods in on_disks(hosts, contents).values())
    before = wait_until(lambda: in_pairs(on_disks(hosts, contents)), 30, "what was too much is gone")
    first = one_of_a_pair(before, others)

    plan = wait_until(lambda: planned(laptop, first, "degraded"), 30, "everybody has said how full it is")
    assert (plan["reaction"], plan["lost"]) == ("throttle", [])
    first.kill()
    found = seen(laptop, plan["situation"], plan["reaction"])
    assert f" of {FILES} files have too few copies, and too few pods with room" in found["reason"]
    assert (found["missing"], found["frozen"], found["pods"]["absent"]) == ([], False, 1)
    assert [one["pod"] for one in found["repair"]] == [first.name]

    # what now has its only copy on one of the others had another one on the first
    second = wait_until(lambda: next_blow(laptop, [host for host in others if host is not first]), 30, "the next blow")
    left = [host for host in hosts if host not in (first, second)]
    written = [outcome(partial((host.mount / f"written on {host.name}").write_bytes, b"meanwhile")) for host in left]
    assert written.count(0) >= 1, "whoever isn't full takes it"
    assert set(written) <= {0, errno.ENOSPC}
    told = page(laptop)
    in_order(
        told, ["degraded", "too few pods with room", "slowed down", f"What {first.name} keeps is copied to others"]
    )
    in_order(told, [f"{first.name} does not answer. .* `wormhole evict {first.name}`"])

    plan = wait_until(lambda: planned(laptop, second, "critical"), 30, "what else would be lost")
    second.kill()
    doomed = seen(laptop, plan["situation"], plan["reaction"])["missing"]
    assert 0 < len(doomed) <= len(plan["lost"])
    assert set(doomed) <= set(plan["lost"]), "what was being copied to make room on a full disk may be safe by now"
    for host in left:
        assert sorted(seen(host, "critical", "freeze")["missing"]) == sorted(doomed), host.name
        assert outcome((host.mount / "not now").mkdir) == errno.EROFS
    in_order(page(desktop), ["critical", rf"{len(doomed)} of \d+ files can't be read", "Frozen", "can't be read +/"])
    after = on_disks(left, contents)
    assert {f"/{name}" for name, pods in after.items() if not pods} == set(doomed), "and no file that has a live copy"
    for name, pods in after.items():
        if pods:
            wait_until(
                shows(desktop.mount / name, contents[name]), what="what has a live copy is read while it is frozen"
            )

    first.run(WORMHOLE, "up")
    for host in left:
        found = seen(host, "degraded", "throttle")
        assert (found["missing"], found["frozen"]) == ([], False)
    wait_until(lambda: outcome((laptop.mount / "goes on").mkdir) == 0, what="it goes on")
    laptop.wormhole("config", "set", "redundancy.repair_after", "1s")
    wait_until(lambda: status(laptop)["repair"] == [{"pod": second.name, "in_s": 0}], 20, "copies are made anew")
    alive = [*left, first]
    for host in alive:  # the owner finds more room in the morning
        host.wormhole("config", "set", "storage.limit", "90%", "--pod-level", check=False)
    assert all(seen(host, "favourable") for host in left), "each judges for itself, when it has heard of the copies"
    wait_until(lambda: all(len(pods) >= 2 for pods in on_disks(alive, contents).values()), 60, "two copies of all")
    assert wait_until(lambda: status(laptop)["files"]["short_of_copies"] == 0, 30)
    for host in alive:
        for name, data in contents.items():
            wait_until(shows(host.mount / name, data))
    in_order(page(laptop), ["favourable", "every file has copies elsewhere"])

    one, other = re.escape(first.name), re.escape(second.name)
    story = [
        rf"{one} \(\w+\) is absent",
        r"the situation is degraded: \d+ of \d+ files have too few copies",
        r"throttle \(situation\)",
        rf"{other} \(\w+\) is absent",
        r"the situation is critical: \d+ of \d+ files can't be read",
        r"freeze \(situation\)",
        rf"{one} \(\w+\) is alive",
    ]
    for host, number in zip(left, written, strict=True):
        log = (host.home / "pod.log").read_text()
        for told in (
            "no longer freeze",
            "the situation is degraded",
        ):  # in either order: its room is told a little later
            in_order(log, [*story, told, r"the situation is favourable"])
        in_order(log, [rf"{other} \(\w+\) is absent", f"{other} stays away: what it keeps gets copies elsewhere"])
        if number == errno.ENOSPC:  # the program was told, and the log tells it
            log = log.replace(" ERROR vfs.openfiles: What was last written to a file could not be stored", "", 1)
        assert not re.search(r" (ERROR|CRITICAL) |Traceback|cut off", log)
