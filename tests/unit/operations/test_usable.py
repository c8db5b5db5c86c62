"""Which version of the cluster's configuration a pod goes by."""

from __future__ import annotations

from pathlib import Path

from mesh.records import EVERYBODY, seal
from mesh.roster import Roster
from operations.settings import admission_policy, usable_configuration
from policies.config import parse_cluster
from tests.unit.mesh.cluster import Home, found


def take(home: Home, text: str) -> None:
    payload = home.roster.next_config(text, [EVERYBODY], 0)
    assert home.store.add([seal(payload, home.roster.cluster_id, home.pod, home.identity.sign)])


def test_a_version_that_can_not_be_read_leaves_the_one_before(tmp_path: Path) -> None:
    home = found(tmp_path / "a")
    assert usable_configuration(Roster()).config == parse_cluster("")
    first = usable_configuration(home.roster)
    assert (first.version, first.problem) == (None, "")
    take(home, "[redundancy]\ncopies = 3\n")
    assert usable_configuration(home.roster).config.redundancy.copies == 3
    take(home, "[redundancy]\ncopies = 4\nsparkle = true\n")
    take(home, "no TOML at all\n")
    found_now = usable_configuration(home.roster)
    assert found_now.config.redundancy.copies == 3
    assert found_now.version == home.roster.configuration().chain[0]
    assert found_now.problem.startswith("cluster.toml:1: syntax: isn't valid TOML")
    take(home, "[redundancy]\ncopies = 5\n")
    again = usable_configuration(home.roster)
    assert (again.config.redundancy.copies, again.problem) == (5, "")


def test_admission_follows_the_configuration() -> None:
    policy = admission_policy(parse_cluster('[cluster]\nadmission = "open"\nallow = ["a"]\ndeny = ["b"]\n'))
    assert (policy.mode, tuple(policy.allow), tuple(policy.deny)) == ("open", ("a",), ("b",))
