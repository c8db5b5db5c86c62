"""Keys looked up, set and compared."""

from __future__ import annotations

import pytest

from base.errors import ConfigError
from policies.changing import Change, changes, find_key, get_value, set_key, toml_value, unquoted, warnings, written
from policies.config import parse_cluster, parse_pod
from policies.edit import default_cluster_toml, default_pod_toml
from policies.fitting import check_cluster, check_pod, unknown_administrators

CLUSTER = default_cluster_toml("home")
POD = default_pod_toml("nas", "~/Wormhole", "0.0.0.0:7420")


def set_cluster(key: str, raw: str, text: str = CLUSTER) -> str:
    return set_key(text, "cluster", key, raw, "cluster.toml")


@pytest.mark.parametrize(
    ("key", "raw", "value"),
    [
        ("redundancy.copies", "3", 3),
        ("copies", "3", 3),
        ("trash.keep", "90d", "90d"),
        ("trash.keep", '"90d"', "90d"),
        ("cluster.admission", "closed", "closed"),
        ("cluster.allow", '["nas", "desktop"]', ["nas", "desktop"]),
        ("cluster.name", "123", "123"),
        ("cluster.name", "1979-05-27", "1979-05-27"),
        ("rule", '[{ match = "a/**", copies = 3 }]', [{"match": "a/**", "copies": 3}]),
        ("rule", "[]", []),
    ],
)
def test_a_value_is_toml_or_else_a_string(key: str, raw: str, value: object) -> None:
    assert get_value(parse_cluster(set_cluster(key, raw)), key) == value


def test_everything_else_of_the_text_stays() -> None:
    before, after = CLUSTER.splitlines(), set_cluster("redundancy.copies", "3").splitlines()
    assert [one for one, other in zip(before, after, strict=True) if one != other] == [
        "copies = 2                    # kept copies in total, on different full pods; 1 switches redundancy off"
    ]
    after = set_cluster("versions", "3").splitlines()
    assert [other for one, other in zip(before, after, strict=True) if one != other] == [
        "[trash]",
        "versions = 3               # overwritten contents kept a file, at most one an hour",
    ], "the lines that explain it are put in force"
    text = "[trash]\nkeep = '1d'\n# versions = 10\nversions = 4\n# copies = 5\n[redundancy]\n"
    assert set_cluster("versions", "5", text) == text.replace("= 4", "= 5")
    assert set_cluster("copies", "3", text).endswith("[redundancy]\ncopies = 3\n")


def test_rules_are_replaced_as_a_whole() -> None:
    once = set_cluster("rule", '[{ match = "a/**", copies = 3 }, { match = "b", cache = false }]')
    again = set_cluster("rule", '[{ match = "c" }]', once)
    assert [rule.match for rule in parse_cluster(again).rules] == ["c"]
    assert set_cluster("rule", "[]", again).rstrip() == CLUSTER.rstrip()


@pytest.mark.parametrize(
    ("key", "raw", "text"),
    [
        (
            "redundancy.copies",
            "lots",
            'cluster.toml:15: redundancy.copies: must be a whole number from 1 to 16, not "lots"',
        ),
        ("redundancy.copies", "{ a = 1 }", "cluster.toml:15: redundancy.copies: must be a whole number"),
        (
            "allow",
            "nas",
            'cluster.toml:7: cluster.allow: must be a list of pod names or ids, not "nas"; did you mean ["nas"]?',
        ),
        ("redundancy.copis", "3", "cluster.toml:1: redundancy.copis: unknown key; did you mean redundancy.copies?"),
        ("copis", "3", "did you mean redundancy.copies?"),
        ("redundency.copies", "3", "did you mean redundancy.copies?"),
        ("cache.mode", "copy", "belongs to pod.toml: say `--pod-level`"),
        ("rule.copies", "3", "is of one rule"),
        ("redundancy", "3", "is a section"),
        ("rule", "3", "must be a list of rules"),
        ("rule", "[{ copies = 3 }]", "rule.match: is missing"),
        ("xyzzy", "3", "unknown key."),
        ("a\x1bb", "3", "unknown key"),
        ("least_copies", "9", "the floor lies above what is wanted"),
        ("copies", "3" * 70_000, "longer than 64 KiB"),
    ],
)
def test_what_is_wrong_is_told_with_line_and_key(key: str, raw: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        set_cluster(key, raw)
    assert text in caught.value.message
    assert caught.value.message.isprintable()


def test_short_names_must_be_plain() -> None:
    assert find_key("pod", "deadline") == ("network", "deadline")
    with pytest.raises(ConfigError, match=r"may be cache\.limit or storage\.limit"):
        find_key("pod", "limit")
    assert find_key("pod", "storage.limit") == ("storage", "limit")
    with pytest.raises(ConfigError, match="leave `--pod-level` out"):
        find_key("pod", "copies")


def test_values_for_a_shell_have_no_quotes() -> None:
    config = parse_cluster('[cluster]\nallow = ["a", "b"]\n[[rule]]\nmatch = "x"\ncache = false\n')
    shown = {key: unquoted(get_value(config, key)) for key in ("admission", "copies", "allow", "deny", "rule", "trash")}
    assert shown == {
        "admission": "code",
        "copies": "2",
        "allow": "a\nb",
        "deny": "",
        "rule": '[[rule]]\nmatch = "x"\ncache = false',
        "trash": 'keep = "30d"\nversions = 10',
    }
    assert unquoted(get_value(parse_pod(POD), "discovery")) == "true"


def test_toml_values() -> None:
    assert toml_value("3") == 3
    assert toml_value("true") is True
    assert toml_value("3 # three") == 3
    assert toml_value("3\nother = 4") == "3\nother = 4"
    assert toml_value("home") == "home"


def test_changes_and_what_to_know_of_them() -> None:
    old = parse_cluster("[[rule]]\nmatch = 'a'\ncopies = 2\n[[rule]]\nmatch = 'b'\n")
    new = parse_cluster("[redundancy]\ncopies = 3\nfan_out = 3\n[[rule]]\nmatch = 'a'\nread_only = true\n")
    found = changes(old, new)
    assert list(map(str, found)) == [
        "redundancy.copies: 2 -> 3",
        "redundancy.fan_out: 2 -> 3",
        'rule[1]: { match = "a", copies = 2 } -> { match = "a", read_only = true }',
        'rule[2]: { match = "b" } -> -',
    ]
    assert warnings(found) == []
    assert changes(new, new) == []
    assert warnings(changes(parse_pod(""), parse_pod("[pod]\nlisten = '1.2.3.4:5'\n[cache]\nmode = 'copy'"))) == [
        "pod.listen: takes effect at the next `wormhole up`."
    ]
    approve = [Change("cluster.admission", "code", "open")]
    assert warnings(approve) == []
    assert written([True, "a", {"b": None}]) == '[true, "a", { b = - }]'


def test_a_configuration_has_to_fit() -> None:
    def misfit(text: str) -> str:
        with pytest.raises(ConfigError) as caught:
            check_cluster(text, parse_cluster(text), "f.toml", "home")
        return caught.value.message

    assert misfit('\n[cluster]\nname = "work"').startswith('f.toml:3: cluster.name: is "work"')
    for text in ("", '[cluster]\nname = "home"'):
        check_cluster(text, parse_cluster(text), "f.toml", "home")
    check_pod(POD, parse_pod(POD), "pod.toml", "nas")
    with pytest.raises(ConfigError, match=r'pod\.name: is "nas".*did you mean "desktop"'):
        check_pod(POD, parse_pod(POD), "pod.toml", "desktop")
    config = parse_cluster('[cluster]\nadministrators = ["nas", "nsa", "phone", "guest", "x"]')
    found = unknown_administrators(config, {"nas", "1" * 32}, {"phone"}, {"guest": "2" * 32})
    assert [sentence.split('"')[1] for sentence in found] == ["nsa", "phone", "guest", "x"]
    assert "did you mean nas?" in found[0]
    assert "2" * 32 in found[2]
    assert unknown_administrators(parse_cluster(""), set(), set(), {}) == []
