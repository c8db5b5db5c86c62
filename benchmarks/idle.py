"""What pods cost that nobody uses: five real ones in network namespaces, with mounts.

    .venv/bin/python -m benchmarks.idle [--pods 5] [--rest 120] [--seconds 120]

Bytes are those of the network interface, everything included (TCP, TLS, multicast); the processor's time is from
/proc/PID/stat. The machine should have nothing else to do. Takes root.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from tests.cluster.lab import Host, lab, processes_of

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def processor_s(host: Host) -> float:
    """Return what the processes of a host's pod have worked so far, seconds."""
    total = 0
    for pid in processes_of(host.home):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS_PER_S


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle", description=__doc__)
    parser.add_argument("--pods", type=int, default=5, choices=range(1, 8))
    parser.add_argument("--rest", type=float, default=120.0, metavar="SECONDS")
    parser.add_argument("--seconds", type=float, default=120.0)
    chosen = parser.parse_args()
    with lab(chosen.pods) as made:
        hosts = made.cluster("home")
        time.sleep(chosen.rest)
        before = [(host.sent_bytes(), host.received_bytes(), processor_s(host)) for host in hosts]
        began = time.monotonic()
        time.sleep(chosen.seconds)
        after = [(host.sent_bytes(), host.received_bytes(), processor_s(host)) for host in hosts]
        took_s = time.monotonic() - began
    for host, (sent, received, worked), (sent_0, received_0, worked_0) in zip(hosts, after, before, strict=True):
        sys.stdout.write(
            f"{host.name:8} sends {(sent - sent_0) / took_s:6.0f} bytes/s, receives {(received - received_0) / took_s:6.0f} "
            f"bytes/s, {100 * (worked - worked_0) / took_s:.2f} % of a core\n"
        )
    sys.stdout.write(f"load {os.getloadavg()[0]:.1f}\n")


if __name__ == "__main__":
    main()
