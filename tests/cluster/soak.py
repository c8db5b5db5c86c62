"""Five real pods on a machine that has far too much to do: nobody may be suspected. ``script/soak`` runs it.

    python -m tests.cluster.soak [MINUTES] [--burners N]

Prints the lines of the pods' logs that say that one isn't alive, and ends with exit code 1 if there are any. A second
part shows that it would notice: a pod that is stopped for a while is suspected by all others.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.cluster.lab import Host, lab, wait_until

SUSPECTED = re.compile(r" is (suspect|absent)\b")
STOPPED_S = 12.0


@contextlib.contextmanager
def burning(count: int) -> Iterator[None]:
    """Keep the processors busy with ``count`` processes of ordinary priority."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def suspicions(hosts: list[Host], since: dict[str, int]) -> list[str]:
    """Return the lines about pods that seem dead, behind the first ``since`` bytes of each log."""
    found = []
    for host in hosts:
        text = (host.home / "pod.log").read_bytes()[since[host.name] :].decode(errors="replace")
        found += [f"{host.name}: {line}" for line in text.splitlines() if SUSPECTED.search(line)]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.soak", description=__doc__)
    parser.add_argument("minutes", type=float, nargs="?", default=10.0)
    parser.add_argument("--burners", type=int, default=2 * (os.cpu_count() or 1))
    chosen = parser.parse_args()
    with lab(5) as made, burning(chosen.burners):
        hosts = made.cluster("home")
        since = {host.name: (host.home / "pod.log").stat().st_size for host in hosts}
        end = time.monotonic() + chosen.minutes * 60
        number = 0
        while time.monotonic() < end:
            for host in hosts:  # some ordinary use besides
                (host.mount / f"{host.name}-{number % 20}").write_bytes(os.urandom(100_000))
            number += 1
            time.sleep(5.0)
        wrong = suspicions(hosts, since)
        load = os.getloadavg()[0]
        victim, others = hosts[-1], hosts[:-1]
        pid = victim.pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: len({line.split(":")[0] for line in suspicions(others, since)}) == 4, STOPPED_S)
        finally:
            os.kill(pid, signal.SIGCONT)
    sys.stdout.write("\n".join([*wrong, ""]))
    sys.stdout.write(
        f"{chosen.minutes:.0f} minutes with {chosen.burners} busy processes (load {load:.1f}): "
        f"{len(wrong)} times a pod was suspected that lived\n"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
