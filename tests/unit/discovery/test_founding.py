from __future__ import annotations

import pytest

from base.errors import MachineError, RefusedError, UsageError
from base.home import Home
from discovery.draft import drafted, has_pod
from discovery.founding import found
from mesh.api import Role
from mesh.identity import Identity, read_certificate
from mesh.roster_store import RosterStore

TOML = '[cluster]\nname = "home"\n'


def test_a_founded_home_is_complete(tmp_path):
    home = Home(tmp_path / "a" / "home")
    founded = found(home, "home", "laptop", TOML, 1_700_000_000.0)
    identity, store = Identity.load(home.identity), RosterStore(home.roster_db)
    roster = store.roster
    assert (roster.cluster_id, roster.cluster_name) == (founded.cluster_id, "home")
    assert roster.config_toml() == TOML
    assert roster.is_admin(identity.pod_id)
    entry = roster.entry(identity.pod_id)
    assert entry is not None
    assert (entry.name, entry.role, entry.issuing) == ("laptop", Role.FULL, identity.issuing_certificate)
    info = read_certificate(identity.certificate())
    assert (info.cluster, info.pod, info.role) == (founded.cluster_id, founded.pod, Role.FULL)
    store.close()
    assert home.path.stat().st_mode & 0o077 == 0
    assert home.identity.stat().st_mode & 0o077 == 0
    assert sorted(path.name for path in home.path.iterdir()) == ["identity", "roster.db"]


def test_two_clusters_of_one_name_are_two(tmp_path):
    one = found(Home(tmp_path / "one"), "home", "laptop", TOML, 1.0)
    two = found(Home(tmp_path / "two"), "home", "laptop", TOML, 1.0)
    assert one.cluster_id != two.cluster_id


@pytest.mark.parametrize(("cluster", "pod"), [("a/b", "laptop"), ("home", ""), ("x" * 64, "laptop"), (".", "a")])
def test_bad_names_leave_nothing(tmp_path, cluster, pod):
    with pytest.raises(UsageError):
        found(Home(tmp_path / "home"), cluster, pod, TOML, 1.0)
    assert not (tmp_path / "home").exists()


def test_a_home_with_a_pod_is_refused(tmp_path):
    home = Home(tmp_path / "home")
    founded = found(home, "home", "laptop", TOML, 1.0)
    with pytest.raises(RefusedError):
        found(home, "other", "laptop", TOML, 1.0)
    assert Identity.load(home.identity).pod_id == founded.pod


def test_a_failure_leaves_what_was_there(tmp_path):
    home = Home(tmp_path / "home")
    home.path.mkdir()
    home.pod_toml.write_text("# mine")

    def fail() -> None:
        with drafted(home) as draft:
            Identity.create(draft.identity)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [path.name for path in home.path.iterdir()] == ["pod.toml"]
    found(home, "home", "laptop", TOML, 1.0)
    assert home.pod_toml.read_text() == "# mine"


def test_what_a_killed_attempt_left_is_cleaned(tmp_path):
    home = Home(tmp_path / "home")
    (home.path / ".draft-old").mkdir(parents=True)
    home.roster_db.write_bytes(b"half a roster")
    home.roster_db.with_name("roster.db-wal").write_bytes(b"its journal")
    assert not has_pod(home)
    found(home, "home", "laptop", TOML, 1.0)
    assert sorted(path.name for path in home.path.iterdir()) == ["identity", "roster.db"]


def test_a_home_that_can_not_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError):
        found(Home(tmp_path / "file" / "home"), "home", "laptop", TOML, 1.0)
