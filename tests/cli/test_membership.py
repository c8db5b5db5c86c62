"""Who is in and who is out, as people type it: approval, eviction, maintenance, the recovery key."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from tests.cli.runner import WORMHOLE, Person, processes
from tests.cluster.lab import wait_until

LOCAL = ("--listen", "127.0.0.1:0", "--no-mount")


class Somebody:
    """One pod of the person's."""

    def __init__(self, person: Person, name: str) -> None:
        self.person, self.name, self.home = person, name, person.folder / name

    def types(self, *line: str | Path) -> Any:
        done = self.person.run(*line, "--home", self.home, "--json")
        assert done.code == 0, (line, done)
        return done.json

    def fails(self, code: int, *line: str | Path) -> str:
        return self.person.fails(code, *line, "--home", self.home)

    def pods(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in self.types("pods")["pods"]}

    def sees(self, name: str, state: str) -> None:
        wait_until(lambda: self.pods()[name]["state"] == state, what=f"{self.name} sees {name} {state}")


def test_let_in_by_approval_looked_after_and_thrown_out(person: Person) -> None:
    laptop, nas, phone = (Somebody(person, name) for name in ("laptop", "nas", "phone"))
    source = person.folder / "cluster.toml"
    source.write_text('[cluster]\nname = "home"\nadmission = "approve"\n')
    made = laptop.types("new", "home", "--from", source, "--pod", "laptop", *LOCAL)
    assert made["code"] is None
    key = person.folder / "drawer.key"
    Path(made["recovery_key"]).rename(key)
    assert "approve" in laptop.fails(4, "invite")
    assert laptop.types("requests")["requests"] == []
    laptop.fails(3, "approve", "nobody")

    def asks(one: Somebody, at: Somebody) -> subprocess.Popen[bytes]:
        line = [WORMHOLE, "join", "--peer", made["address"], "--pod", one.name, "--home", one.home, *LOCAL]
        process = subprocess.Popen(line, env=person.environment, stderr=subprocess.PIPE)
        wait_until(lambda: [row["name"] for row in at.types("requests")["requests"]] == [one.name], what="it asks")
        return process

    process = asks(nas, laptop)
    (row,) = laptop.types("requests")["requests"]
    assert {"id", "name", "address", "age_s", "fingerprint", "role"} <= row.keys()
    assert laptop.types("approve", row["id"][:8])["name"] == "nas"
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0
    assert row["fingerprint"] in said.decode()
    process = asks(phone, nas)
    nas.types("deny", "phone")
    assert b"denied" in process.communicate(timeout=120)[1]
    assert process.returncode == 4
    assert not phone.home.exists()
    process = asks(phone, nas)
    nas.types("approve", "phone")
    assert process.wait(120) == 0

    nas.types("maintenance", "on")
    nas.types("down")
    laptop.sees("nas", "maintenance")
    phone.sees("nas", "maintenance")
    nas.types("up")
    nas.types("maintenance", "off")
    laptop.sees("nas", "alive")

    laptop.fails(3, "evict", "nobody")
    laptop.fails(4, "evict", "laptop")
    assert nas.types("evict", "phone")["evicted"] == ["phone"]
    laptop.sees("phone", "evicted")
    wait_until(lambda: len(processes(phone.home)) == 0, what="the evicted pod stops")
    assert "evicted" in phone.fails(4, "up")
    assert nas.types("evict", "phone")["already"] is True

    laptop.types("config", "set", "cluster.administrators", '["laptop"]')
    wait_until(lambda: not nas.pods()["nas"]["administrator"], what="nas administers no longer")
    for line in (["requests"], ["evict", "laptop"], ["invite"]):
        nas.fails(4, *line)
    assert "last pod that administers" in laptop.fails(4, "leave")
    laptop.types("down")
    nas.fails(2, "recover", source, "--yes")
    assert nas.types("recover", key, "--yes")["administers"] is True
    assert nas.types("evict", "laptop")["evicted"] == ["laptop"]
    person.run("up", "--home", laptop.home)  # whether it hears of that before it serves is a question of milliseconds
    wait_until(lambda: not processes(laptop.home), what="the evicted pod stops")
    assert "evicted" in laptop.fails(4, "up")
