"""One cluster over networks of every sort: a LAN, a routed site, one behind NAT, one with IPv6 only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.lab import WORMHOLE, Host, Lab, lab, run, shows, wait_until

RELAY = """
import socket, sys, threading
def pump(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
    except OSError:
        pass
    for s in (a, b):
        try: s.shutdown(socket.SHUT_RDWR)
        except OSError: pass
door = socket.create_server(("10.88.0.1", 7420))
print("ready", flush=True)
while True:
    inner, _ = door.accept()
    try: outer = socket.create_connection(("10.77.0.1", 7420), 5)
    except OSError:
        inner.close()
        continue
    for pair in ((inner, outer), (outer, inner)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""
"""What a router with NAT does for who dials out through it, to one address; nobody can dial in."""


@pytest.fixture
def networks() -> Iterator[tuple[Lab, Path]]:
    with lab(5) as made:
        laptop, _, nas, attic, office = made.hosts
        router = f"wr{made.key}"
        run("ip", "netns", "add", router)
        relay = None
        try:
            inside(laptop, "addr", "add", "fd77::1/64", "dev", "eth0", "nodad")
            inside(attic, "-4", "addr", "flush", "dev", "eth0")
            inside(attic, "addr", "add", "fd77::4/64", "dev", "eth0", "nodad")
            run("ip", "link", "add", f"wo{made.key}", "type", "veth", "peer", "name", "out", "netns", router)
            run("ip", "link", "set", f"wo{made.key}", "master", made.bridge, "up")
            run("ip", "-n", router, "addr", "add", "10.77.0.100/24", "dev", "out")
            run("ip", "-n", router, "link", "set", "out", "up")
            for host, net in ((nas, "10.88.0"), (office, "10.99.0")):
                run("ip", "link", "set", host.veth, "nomaster")
                run("ip", "link", "set", host.veth, "netns", router)
                run("ip", "-n", router, "addr", "add", f"{net}.1/24", "dev", host.veth)
                run("ip", "-n", router, "link", "set", host.veth, "up")
                inside(host, "addr", "flush", "dev", "eth0")
                inside(host, "addr", "add", f"{net}.2/24", "dev", "eth0")
                inside(host, "route", "replace", "default", "via", f"{net}.1")
            run("ip", "netns", "exec", router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
            for host in made.hosts[:2]:
                inside(host, "route", "add", "10.99.0.0/24", "via", "10.77.0.100")
            words = ["ip", "netns", "exec", router, sys.executable, "-c", RELAY]
            relay = subprocess.Popen(words, stdout=subprocess.PIPE)
            assert relay.stdout is not None
            assert relay.stdout.readline() == b"ready\n"
            yield made, made.folder
        finally:
            if relay is not None:
                relay.kill()
                relay.wait()
            run("ip", "netns", "del", router, check=False)
            run("ip", "link", "del", f"wo{made.key}", check=False)


def inside(host: Host, *words: str) -> None:
    run("ip", "-n", host.namespace, *words)


def states(host: Host) -> dict[str, str]:
    return {pod["name"]: pod["state"] for pod in host.ask("pods")["pods"]}


def test_one_cluster_over_all_sorts_of_networks(networks: tuple[Lab, Path]) -> None:
    made, _ = networks
    laptop, desktop, nas, attic, office = made.hosts
    laptop.new("home", "--listen", "0.0.0.0:7420")

    taken = desktop.run(WORMHOLE, "new", "other", "--no-mount", "--listen", "10.77.0.1:7420", check=False)
    assert taken.returncode == 9
    assert "10.77.0.1:7420" in taken.stderr
    assert "Traceback" not in taken.stderr

    desktop.join(laptop.invite())
    nas.join(laptop.invite(), "--peer", "10.88.0.1:7420")
    attic.join(laptop.invite(), "--peer", "[fd77::1]:7420")
    office.join(laptop.invite(), "--peer", "10.77.0.1:7420")
    made.settled()
    for number, host in enumerate(made.hosts):
        (host.mount / f"from {host.name}").write_text(str(number))
    names = {f"from {host.name}" for host in made.hosts}
    for host in made.hosts:
        wait_until(lambda host=host: names <= set(os.listdir(host.mount)), what=f"all names on {host.name}")  # type: ignore[misc]
    for number, host in enumerate(made.hosts):  # who has a link to whom: all to the laptop, which has them to all
        wait_until(shows(laptop.mount / f"from {host.name}", str(number)))
        wait_until(shows(host.mount / "from laptop", "0"))

    # another address by DHCP, while another machine sleeps and wakes
    sleeper = office.pid()
    os.kill(sleeper, signal.SIGSTOP)
    try:
        inside(desktop, "addr", "del", "10.77.0.2/24", "dev", "eth0")
        inside(desktop, "addr", "add", "10.77.0.42/24", "dev", "eth0")
        inside(desktop, "route", "replace", "default", "dev", "eth0")
        wait_until(lambda: states(laptop)["office"] != "alive", 8, "the suspended one is suspected")
    finally:
        os.kill(sleeper, signal.SIGCONT)
    (desktop.mount / "from the new address").write_text("here")
    made.settled()
    for host in made.hosts:
        wait_until((host.mount / "from the new address").exists)

    def address() -> str:
        return next(str(pod["address"]) for pod in laptop.ask("pods")["pods"] if pod["name"] == "desktop")

    wait_until(lambda: address().startswith("10.77.0.42:"), what="the new address is told")
    said = (desktop.home / "pod.log").read_text()
    assert "This machine has another address now" in said
    assert "fell silent" not in said, "it didn't wait for answers to where it is no more"
    for host in made.hosts:
        assert "Traceback" not in (host.home / "pod.log").read_text()
