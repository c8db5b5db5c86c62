"""Who is let in, what a stranger sees, and what is left afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from tests.cluster.lab import WORMHOLE, Lab, processes_of, run, shows, wait_until


def refused(done: subprocess.CompletedProcess[str], code: int = 4) -> str:
    assert done.returncode == code, done
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.strip()
    return done.stderr


def test_codes_strangers_and_what_is_left(bare: Lab) -> None:
    laptop, desktop, nas = bare.hosts
    laptop.new("home")
    code = laptop.invite()
    wrong = code[:-6] + ("A" if code[-6].upper() != "A" else "B") + code[-5:]
    refused(desktop.run(WORMHOLE, "join", "--code", wrong, "--mount", desktop.mount, check=False))
    assert not desktop.home.exists(), "a refused join leaves nothing"
    desktop.join(code)
    refused(nas.run(WORMHOLE, "join", "--code", code, "--mount", nas.mount, check=False))
    short = laptop.wormhole("invite", "--expires", "1s")["code"]
    time.sleep(1.2)  # the code's own lifetime
    assert "expired" in refused(nas.run(WORMHOLE, "join", "--code", short, "--mount", nas.mount, check=False))
    nearby = wait_until(lambda: nas.wormhole("nearby", check=False)["clusters"], what="it is announced")
    assert [cluster["name"] for cluster in nearby] == ["home"]
    _, port = laptop.wormhole("status", check=False)["address"].rsplit(":", 1)
    garbage(laptop, port)
    foreign = nas.wormhole("new", "home", "--mount", nas.mount)  # another cluster of the same name
    assert foreign["cluster"] == "home"
    time.sleep(3)  # long enough for both to have heard of each other by multicast
    for one in (laptop, nas):
        names = {pod["name"] for pod in one.wormhole("pods")["pods"]}
        assert names == ({"laptop", "desktop"} if one is laptop else {nas.wormhole("status", check=False)["pod"]})
    (laptop.mount / "still here").write_text("yes")
    wait_until((desktop.mount / "still here").exists)
    assert not (nas.mount / "still here").exists()
    log = (laptop.home / "pod.log").read_text()
    assert "Traceback" not in log
    for each in (nas, desktop):
        each.wormhole("destroy", "--yes", "--force")
        assert not each.home.exists()
        assert not os.path.ismount(each.mount)
        assert not processes_of(each.home)


def garbage(laptop: object, port: str) -> None:
    """Throw rubbish at the port from within the host; the pod must shrug."""
    script = f"""
import os, socket, ssl, struct
def plain(data):
    s = socket.create_connection(("127.0.0.1", {port}), 5); s.settimeout(5)
    try:
        s.sendall(data); s.recv(1000)
    except OSError: pass
    s.close()
for n in range(30): plain(os.urandom(n * 100))
plain(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE
def inside(data):
    try:
        s = c.wrap_socket(socket.create_connection(("127.0.0.1", {port}), 5)); s.settimeout(5); s.sendall(data)
        while s.recv(1000): pass
    except OSError: pass
inside(struct.pack(">IB", 2**31, 1)); inside(os.urandom(5000)); inside(struct.pack(">IB", 100, 2) + os.urandom(99))
"""
    import sys

    laptop.run(sys.executable, "-c", script)  # type: ignore[attr-defined]


def test_a_capture_shows_no_name_and_no_content(bare: Lab, tmp_path: Path) -> None:
    laptop, desktop, _ = bare.hosts
    capture = tmp_path / "capture"
    dump = subprocess.Popen(
        laptop.command("tcpdump", "-Z", "root", "-i", "eth0", "-U", "-s", "0", "-w", str(capture)),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert dump.stderr is not None
    assert "listening" in dump.stderr.readline()
    laptop.new("home")
    desktop.join(laptop.invite())
    secret = b"the-content-that-nobody-may-see" * 3000
    (laptop.mount / "the-name-that-nobody-may-see").write_bytes(secret)
    wait_until(shows(desktop.mount / "the-name-that-nobody-may-see", secret))
    marker = b"a-marker-in-plain-text-seen-by-the-capture"
    laptop.run("python3", "-c", f"import socket; s=socket.socket(2,2); s.sendto({marker!r}, ('{desktop.address}', 9))")
    wait_until(lambda: marker in capture.read_bytes(), what="the capture works")
    dump.send_signal(signal.SIGINT)
    dump.wait(60)
    seen = capture.read_bytes()
    assert len(seen) > len(secret), "the bytes did cross"
    assert b"nobody-may-see" not in seen


def test_by_address_without_multicast(bare: Lab) -> None:
    laptop, desktop, _ = bare.hosts
    laptop.new("home", "--listen", f"{laptop.address}:7555")
    code = laptop.invite()
    run("ip", "-n", desktop.namespace, "link", "set", "eth0", "multicast", "off")
    desktop.join(code, "--peer", f"{laptop.address}:7555", "--listen", f"{desktop.address}:0")
    (desktop.mount / "x").write_text("y")
    wait_until((laptop.mount / "x").exists)
