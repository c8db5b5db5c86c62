"""R7-R9, R42, R44, R46, F1, F5: losses, what `plan` says of them, what is done by itself and on a person's word."""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.lab import WORMHOLE, Host, Lab, at_once, lab, shows, wait_until

CONFIGURATION = """
[cluster]
name = "home"
[redundancy]
copies = 2
replicate = "settled"
settle = "1h"
absent_after = "5s"
repair_after = "1h"
[continuity]
degraded = "throttle"
critical = "freeze"
[[rule]]
match = "single/**"
copies = 1
"""


DRILL_S = 12.0
"""So long that all can be looked at meanwhile on a busy machine."""


def outcome(attempt: Callable[[], object]) -> int:
    """Return the error number of what is tried, 0 when it works."""
    try:
        attempt()
    except OSError as error:
        return error.errno or -1
    return 0


def status(host: Host) -> Any:
    return host.ask("status")


def planned(hosts: Sequence[Host], lose: str, lost: list[str]) -> Any:
    """Wait until all these know who has what, so that each plans the same, and return the plan."""

    def same() -> Any:
        first, *others = [host.wormhole("plan", "--lose", lose, check=False) for host in hosts]
        return first if first["lost"] == lost and all(other == first for other in others) else None

    return wait_until(same, 30, f"all know that the loss of {lose} is that of {lost}")


def comes_true(plan: Any, host: Host) -> Any:
    """Wait until a pod reacts as `plan` said, and all else is as it said, and return the pod's status."""
    doing = [] if plan["reaction"] == "continue" else [plan["reaction"]]
    wanted = (plan["situation"], doing, plan["lost"], plan["short_of_copies"], len(plan["lost"]))
    seen: list[object] = []

    def comes() -> Any:
        found = status(host)
        files = found["files"]
        as_planned = (
            found["situation"],
            [one["reaction"] for one in found["doing"]],
            sorted([*found["missing"], *found["pending"]]),
            files["short_of_copies"],
            files["missing"] + files["pending"],
        )
        seen[:] = as_planned
        return found if as_planned == wanted and found["pods"]["absent"] else None

    try:
        found = wait_until(comes, 30)
    except AssertionError:
        raise AssertionError(f"{host.name}: {seen}, but planned was {wanted}") from None
    for path in plan["lost"]:
        assert outcome((host.mount / path[1:]).read_bytes) == errno.EIO
    return found


NUMBERS = itertools.count()


def frozen(host: Host) -> bool:
    """Tell whether making, writing and renaming are all refused with EROFS."""
    probe = host.mount / f"probe {host.name} {next(NUMBERS)}"
    if outcome(probe.mkdir) != errno.EROFS:
        return False
    attempts = (
        lambda: (host.mount / "kept").write_text("x"),
        lambda: (host.mount / "kept").rename(host.mount / "renamed"),
        lambda: probe.write_text("x"),
        lambda: (host.mount / "kept").chmod(0o600),
        lambda: os.setxattr(host.mount / "kept", "user.a", b"b"),
        lambda: os.link(host.mount / "kept", probe),
    )
    return [outcome(attempt) for attempt in attempts] == [errno.EROFS] * len(attempts)


def writable(host: Host) -> bool:
    return outcome((host.mount / f"probe {host.name} {next(NUMBERS)}").mkdir) == 0


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    assert os.geteuid() == 0, "network namespaces need root: run the tests as root"
    configuration = tmp_path_factory.mktemp("configuration") / "cluster.toml"
    configuration.write_text(CONFIGURATION)
    with lab(4) as made:
        made.cluster("home", "--from", str(configuration))
        yield made


def test_a_loss_freezes_until_it_is_accepted_and_a_new_one_freezes_again(four: Lab, tmp_path: Path) -> None:
    laptop, desktop, nas, attic = four.hosts
    left = (laptop, desktop, attic)
    for host in (nas, attic):
        (host.mount / "single").mkdir(exist_ok=True)
    (nas.mount / "single" / "of the nas").write_bytes(b"nas" * 1000)
    wait_until((attic.mount / "single").exists)
    (attic.mount / "single" / "of the attic").write_bytes(b"attic" * 1000)
    (laptop.mount / "kept").write_text("kept by two")
    (laptop.mount / "to be removed").write_text("soon")
    opened = (laptop.mount / "open").open("w")
    opened.write("written before")
    opened.flush()
    laptop.wormhole("sync")
    (nas.mount / "not copied yet").write_bytes(b"soon" * 2000)
    wait_until((laptop.mount / "not copied yet").exists)
    plan = planned(left, "nas", ["/not copied yet", "/single/of the nas"])
    assert (plan["situation"], plan["reaction"]) == ("critical", "freeze")

    nas.kill()
    for host in left:
        wait_until(lambda host=host: frozen(host), 30, f"{host.name} is frozen")  # type: ignore[misc]
    seen = comes_true(plan, desktop)
    assert (seen["situation"], seen["frozen"], seen["connected"]) == ("critical", True, True)
    assert (seen["missing"], seen["pending"]) == (["/single/of the nas"], ["/not copied yet"])
    known_absence = (desktop.mount / "single" / "of the nas").read_bytes
    assert at_once(lambda: outcome(known_absence)) == errno.EIO
    wait_until(shows(attic.mount / "kept", "kept by two"))
    (laptop.mount / "to be removed").unlink()
    wait_until(lambda: not (attic.mount / "to be removed").exists(), what="removed everywhere")
    assert outcome(lambda: os.write(opened.fileno(), b"x")) == errno.EROFS
    assert outcome(opened.close) in (0, errno.EROFS)
    assert (laptop.mount / "open").read_text() == "written before", "what was written before is published"
    laptop.wormhole("trash", "empty", "--yes")
    laptop.wormhole("config", "set", "trash.versions", "3")
    assert laptop.run(WORMHOLE, "import", tmp_path, check=False).returncode == 4

    answer = desktop.wormhole("unfreeze")
    assert (answer["frozen"], answer["accepted"]["pods"]) == (False, ["nas"])
    for host in left:
        wait_until(lambda host=host: writable(host), 10, f"{host.name} goes on")  # type: ignore[misc]
    seen = status(laptop)
    assert (seen["situation"], seen["frozen"], seen["accepted"]) == ("critical", False, "desktop")
    time.sleep(2)
    assert writable(laptop), "it was accepted"

    plan = planned(left, "attic", ["/not copied yet", "/single/of the attic", "/single/of the nas"])
    attic.kill()  # two of four are left, the founder among them
    for host in (laptop, desktop):
        comes_true(plan, host)
        wait_until(lambda host=host: frozen(host), 30, f"{host.name} is frozen")  # type: ignore[misc]
    assert nas.start(WORMHOLE, "up").wait(90) == 0
    log = laptop.home / "pod.log"
    wait_until(lambda: "nas is back: its loss is no longer accepted" in log.read_text(), 20, "it was seen")
    wait_until(lambda: len(laptop.ask("where", path="/not copied yet")["kept"]) > 1, what="it is copied now")
    (nas.mount / "single" / "new").write_bytes(b"new" * 1000)  # what was asked for in vain may be cached by now
    for host in (laptop, desktop):
        wait_until(lambda host=host: host.ask("where", path="/single/new")["kept"] == ["nas"], what="it is known")  # type: ignore[misc]
    nas.kill()  # a new loss; the attic was away all the while
    assert attic.start(WORMHOLE, "up").wait(90) == 0

    def lost(host: Host) -> set[str]:
        return {*status(host)["missing"]} - {"/single/of the nas"}

    for host in left:
        wait_until(lambda host=host: lost(host) == {"/single/new"}, 30, f"{host.name} misses it")  # type: ignore[misc]
        wait_until(lambda host=host: frozen(host), 30, f"{host.name} knows that it came back meanwhile")  # type: ignore[misc]
    assert nas.start(WORMHOLE, "up").wait(90) == 0
    for host in (laptop, desktop):
        wait_until(lambda host=host: writable(host), 60, "it is solved by itself")  # type: ignore[misc]
    four.settled()
    wait_until(shows(laptop.mount / "single" / "of the nas", b"nas" * 1000), what="back by itself")
    wait_until(shows(laptop.mount / "single" / "new", b"new" * 1000), what="so is this")
    wait_until(lambda: status(laptop)["situation"] == "favourable", 60, "calm again")


def test_frozen_by_hand_and_drills(four: Lab, tmp_path: Path) -> None:
    laptop, desktop, nas, attic = four.hosts
    answer = attic.wormhole("freeze")
    assert answer["frozen"]
    wait_until(lambda: attic.wormhole("freeze")["waiting"] == [], what="all say that they do it")
    assert all(frozen(host) for host in four.hosts)
    attic.kill()  # whoever said it: it stays said
    attic.run(WORMHOLE, "up")
    assert frozen(attic)
    assert laptop.wormhole("unfreeze")["changed"]
    wait_until(lambda: all(map(writable, four.hosts)), 10, "thawed")

    four.configure("continuity.critical", "stop", on=desktop)
    rehearsal = laptop.start(WORMHOLE, "drill", "critical", "--for", f"{DRILL_S:g}s", "--json")
    wait_until(lambda: outcome(lambda: os.listdir(nas.mount)) == errno.ENODEV, DRILL_S, "stopped")
    wait_until(lambda: outcome((desktop.mount / "kept").read_bytes) == errno.ENODEV, DRILL_S, "stopped")
    wait_until(lambda: status(attic)["stopped"], DRILL_S, "stopped")
    assert attic.run(WORMHOLE, "where", "/kept", check=False).returncode == 4
    laptop.kill()  # who began it dies: it ends all the same
    rehearsal.wait(90)
    for host in (desktop, nas, attic):
        wait_until(lambda host=host: outcome((host.mount / "kept").read_bytes) == 0, 2 * DRILL_S, "over")  # type: ignore[misc]
    laptop.run(WORMHOLE, "up")
    four.settled()
    four.configure("continuity.critical", "freeze", on=desktop)

    def all_take_part() -> bool:
        done = desktop.wormhole("drill", "critical", "--for", "2s")
        return (done["took_part"], done["reverted"]) == (["attic", "desktop", "laptop", "nas"], True)

    wait_until(all_take_part, what="all take part, and stop to")
    assert writable(laptop)

    (nas.mount / "single" / "another").write_text("only here")
    wait_until(lambda: (laptop.mount / "single" / "another").stat().st_size)
    nas.run(WORMHOLE, "down")  # it said so: nobody minds, though nobody else has its file
    wait_until(lambda: status(laptop)["files"]["pending"] == 1, 20, "announced")
    time.sleep(2)
    assert writable(laptop)
    assert status(laptop)["situation"] == "favourable"


def test_nobody_is_frozen_who_need_not_be(four: Lab) -> None:
    laptop, desktop, nas, attic = four.hosts
    nas.run(WORMHOLE, "up")
    four.settled()
    four.configure("continuity.degraded", "freeze")
    for file in (laptop.mount / "single").iterdir():
        file.unlink()
    laptop.wormhole("sync")

    def goes_on(*hosts: Host) -> None:
        """Assert for longer than it takes to judge that all of them take changes and do nothing else."""
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert [status(host)["doing"] for host in hosts] == [[]] * len(hosts)
            assert all(map(writable, hosts))

    attic.cut()  # a laptop on a train, three pods at home
    wait_until(lambda: status(laptop)["pods"]["absent"] == 1, 30, "away")
    wait_until(lambda: "cut off" in status(attic)["reason"], 30, "on the train")
    goes_on(*four.hosts)
    attic.plug()
    four.settled()
    for host in (nas, attic):
        host.run(WORMHOLE, "down")
    wait_until(lambda: [status(host)["pods"]["alive"] for host in (laptop, desktop)] == [2, 2], 30, "two pods")
    laptop.kill()  # the one that made the cluster
    wait_until(lambda: "cut off" in status(desktop)["reason"], 30, "alone")
    goes_on(desktop)
