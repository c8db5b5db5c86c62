"""A stolen, unlocked laptop: one command on another pod, and nothing of it gets in, but what others had before stays."""

from __future__ import annotations

from tests.cluster.lab import WORMHOLE, Host, Lab, processes_of, shows, wait_until

MENDED_S = 90
"""After a cut pods dial each other again within half a minute, on a busy machine later."""
OLD, LATE = b"written before the theft", b"written by the thief"


def test_a_stolen_pod_and_all_that_it_minted_stay_out(bare: Lab) -> None:
    laptop, stolen, nas = bare.cluster("home")
    the_last_copy_keeps_it_in(bare)
    laptop.cut()
    (stolen.mount / "old.txt").write_bytes(OLD)
    wait_until(shows(nas.mount / "old.txt", OLD))
    wait_until(lambda: nas.ask("where", path="/old.txt")["local"] in ("kept", "cached"), what="a copy on the nas")
    stolen.cut()
    # away from everybody the thief lets a pod of his own in, and writes
    accomplice = stolen.folder / "accomplice"
    stolen.homes.append(accomplice)
    port = stolen.wormhole("status", check=False)["address"].rpartition(":")[2]
    code = str(stolen.wormhole("invite")["code"])
    stolen.wormhole(
        *("join", "--code", code, "--peer", f"127.0.0.1:{port}", "--home", accomplice),
        *("--no-mount", "--pod", "accomplice", "--listen", "0.0.0.0:7599"),
    )
    (stolen.mount / "late.txt").write_bytes(LATE)
    # in the meantime
    assert laptop.wormhole("evict", "desktop")["evicted"] == ["desktop"]
    laptop.plug()
    wait_until(shows(laptop.mount / "old.txt", OLD), MENDED_S, "only the nas had what was written before")
    for host in (laptop, nas):
        wait_until(lambda host=host: states(host)["desktop"] == "evicted", MENDED_S)  # type: ignore[misc]
    # it comes back
    stolen.plug()
    wait_until(lambda: not processes_of(stolen.home), MENDED_S, "the evicted pod hears of it and stops")
    up = stolen.run(WORMHOLE, "up", check=False)
    assert up.returncode == 4
    assert "evicted" in up.stderr
    for line in ("down", "up"):  # it knocks at once then, unless it has heard of it from its master
        stolen.run(WORMHOLE, line, "--home", accomplice, check=False)
    logs = [host.home / "pod.log" for host in (laptop, nas)]
    wait_until(
        lambda: not processes_of(accomplice) or any("no member" in log.read_text() for log in logs),
        MENDED_S,
        "the accomplice is turned away",
    )
    for host in (laptop, nas):
        assert "accomplice" not in states(host)
        assert not (host.mount / "late.txt").exists()
        wait_until(shows(host.mount / "old.txt", OLD))
    # and the machine, cleaned, may come again
    stolen.run(WORMHOLE, "destroy", "--yes", "--force")
    stolen.join(nas.invite())
    wait_until((stolen.mount / "old.txt").exists)


def the_last_copy_keeps_it_in(made: Lab) -> None:
    laptop, stolen, _ = made.hosts
    made.configure("redundancy.copies", "1")
    (stolen.mount / "single.txt").write_bytes(OLD)
    single = laptop.mount / "single.txt"
    wait_until(lambda: single.stat().st_size == len(OLD))
    wait_until(lambda: laptop.ask("where", path="/single.txt")["kept"] == ["desktop"], what="its holder is known")
    refused = laptop.run(WORMHOLE, "evict", "desktop", check=False)
    assert refused.returncode == 4
    assert "single.txt" in refused.stderr
    assert "--force" in refused.stderr
    made.configure("redundancy.copies", "2")
    wait_until(shows(single, OLD))
    wait_until(lambda: len(laptop.ask("where", path="/single.txt")["kept"]) > 1, what="another copy")


def states(host: Host) -> dict[str, str]:
    return {one["name"]: one["state"] for one in host.ask("pods")["pods"]}
