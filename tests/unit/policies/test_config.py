"""Every key of INTERFACE.md: its default, a good value, bad values; and what a message looks like."""

from __future__ import annotations

import pytest

from base.errors import ConfigError
from policies.config import level_of, parse, parse_cluster, parse_pod
from policies.forms import Share
from policies.schema import Level, all_keys

MIB, GIB, DAY_S = 2**20, 2**30, 86400

# key in TOML, attribute, default, good TOML value, what it becomes, bad TOML values
KEYS: dict[Level, list[tuple[str, str, object, str, object, list[str]]]] = {
    "cluster": [
        (
            "cluster.name",
            "name",
            "",
            '"home"',
            "home",
            ['""', "3", '"a b"', '"-a"', f'"{"x" * 64}"', '"a/b"', '"u\\u0308"'],
        ),
        ("cluster.admission", "admission", "code", '"approve"', "approve", ['"codes"', "true", '""']),
        ("cluster.allow", "allow", (), '["nas", "büro"]', ("nas", "büro"), ['"nas"', "[3]", '["a b"]', '["*"]']),
        ("cluster.deny", "deny", (), '["x"]', ("x",), ["{}", "[[]]", "false"]),
        ("cluster.administrators", "administrators", ("*",), '["nas"]', ("nas",), ["[]", '"*"', '["a", 1]']),
        ("cluster.storage_limit", "storage_limit_bytes", None, '"2 TiB"', 2 * 2**40, ["0", '"0 B"', '"2"', '"non"']),
        ("cluster.forget_after", "forget_after_s", 180 * DAY_S, '"1d"', DAY_S, ['"none"', "180", '"0s"', '"1 w"']),
        ("redundancy.profile", "profile", "safe", '"speed"', "speed", ['"fast"', "1"]),
        ("redundancy.copies", "copies", 2, "16", 16, ["0", "17", "-1", "true", '"2"', "2.0", "2.5", "[2]"]),
        ("redundancy.replicate", "replicate", "instant", '"settled"', "settled", ['"later"', "1"]),
        ("redundancy.settle", "settle_s", 10, '"0s"', 0, ["10", '"10"', '"2d"', '"-1s"']),
        ("redundancy.interval", "interval_s", 300, '"1m"', 60, ['"0s"', "300", '"x"']),
        ("redundancy.fan_out", "fan_out", 2, "1", 1, ["0", "17", '"2"']),
        ("redundancy.acknowledge", "acknowledge", 1, "2", 2, ["0", "3", "false"]),
        ("redundancy.absent_after", "absent_after_s", 60, '"500ms"', 0.5, ['"0s"', "60", '"1 y"']),
        ("redundancy.repair_after", "repair_after_s", 1800, '"0s"', 0, ["1800", '"later"']),
        (
            "redundancy.repair_limit",
            "repair_limit_bytes_per_s",
            None,
            '"5 MB/s"',
            5_000_000,
            ['"5 MB"', '"0 B/s"', "5"],
        ),
        ("conflicts.strategy", "strategy", "keep-both", '"last-writer-wins"', "last-writer-wins", ['"both"', "true"]),
        ("continuity.favourable", "favourable", "continue", '"throttle"', "throttle", ['"go on"', "1"]),
        ("continuity.degraded", "degraded", "continue", '"fewer-copies"', "fewer-copies", ['"none"', "1"]),
        ("continuity.critical", "critical", "continue", '"freeze"', "freeze", ['"frozen"', "false"]),
        ("continuity.throttle", "throttle_bytes_per_s", 5_000_000, '"1 MiB/s"', MIB, ['"none"', '"5 MB"', "5"]),
        ("continuity.least_copies", "least_copies", 1, "2", 2, ["0", "3", '"1"']),
        ("trash.keep", "keep_s", 30 * DAY_S, '"0s"', 0, ["30", '"forever"']),
        ("trash.versions", "versions", 10, "0", 0, ["-1", "10001", '"10"']),
    ],
    "pod": [
        ("pod.name", "name", "", '"nas"', "nas", ['""', "1", '"a b"']),
        ("pod.mount", "mount", "~/Wormhole", '"/srv/w"', "/srv/w", ['"Wormhole"', '"./x"', "true", '"/a\\u0000"']),
        ("pod.ownership", "ownership", "mine", '"kept"', "kept", ['"yours"', "1"]),
        (
            "pod.listen",
            "listen",
            "0.0.0.0:7420",
            '"[::]:0"',
            "[::]:0",
            ['":7420"', '"0.0.0.0"', '"a:65536"', "7420", '"[1]:2"'],
        ),
        (
            "pod.advertise",
            "advertise",
            (),
            '["nas.lan:7420"]',
            ("nas.lan:7420",),
            ['["a:0"]', '"a:1"', '["a"]', '["1.2.3:4"]'],
        ),
        ("pod.peers", "peers", (), '["10.0.0.1:7"]', ("10.0.0.1:7",), ['["::1:7"]', '["256.1.1.1:1"]', "[7420]"]),
        ("pod.discovery", "discovery", True, "false", False, ['"false"', "1", '"on"']),
        (
            "storage.limit",
            "limit",
            Share(90.0),
            '"500 GB"',
            500 * 10**9,
            ['"101%"', '"0%"', '"0 B"', '"none"', "90", '"-5%"'],
        ),
        ("cache.mode", "mode", "auto", '"stream"', "stream", ['"off"', "false"]),
        ("cache.copy_below", "copy_below_bytes", 64 * MIB, '"0 B"', 0, ["64", '"64"', '"64 mib"']),
        ("cache.copy_after_reads", "copy_after_reads", 2, "1", 1, ["0", "true", '"2"']),
        ("cache.limit", "limit_bytes", 20 * GIB, '"1 GB"', 10**9, ['"50%"', '"none"', "20"]),
        ("affinity.replicas", "replicas", 0, "-10", -10, ["-11", "11", "1.5"]),
        ("affinity.new_files", "new_files", 0, "10", 10, ["11", '"5"']),
        ("affinity.hot", "hot", 0, "3", 3, ["true", "100"]),
        ("affinity.cold", "cold", 0, "-3", -3, ['"x"', "[]"]),
        ("disconnected.reaction", "reaction", "continue", '"freeze"', "freeze", ['"throttle"', "1"]),
        ("disconnected.quorum", "quorum", "half", '"any"', "any", ['"all"', "0.5"]),
        ("disconnected.notify", "notify", "", '"notify-send x"', "notify-send x", ["true", '["a"]', '"a\\nb"']),
        ("network.upload_limit", "upload_limit_bytes_per_s", None, '"1 MB/s"', 10**6, ['"1 MB"', "0", '"0 kB/s"']),
        ("network.download_limit", "download_limit_bytes_per_s", None, '"none"', None, ['"nono"', "1"]),
        ("network.deadline", "deadline_s", 10, '"250ms"', 0.25, ['"0s"', "10", '"2h"', '"none"']),
    ],
}
RULE_KEYS: dict[Level, list[tuple[str, str, object, list[str]]]] = {
    "cluster": [
        ("match", '"a/**"', "a/**", ['""', '"!a"', '"#a"', '"["', '"/"', "3", '"a\\\\"', '"[z-a]"', '"[[:digit:]]"']),
        ("copies", "1", 1, ["0", "17", "true"]),
        ("cache", "false", False, ['"no"', "0"]),
        ("read_only", "true", True, ["1", '"true"']),
        ("strategy", '"keep-both"', "keep-both", ['"keep"']),
    ],
    "pod": [
        ("match", '"*.iso"', "*.iso", ['" "', "true", '"**/a/**/b/**/c/**"']),
        ("keep", "true", True, ["1", '"yes"']),
        ("cache", "true", True, ["[]"]),
    ],
}
FLAT = [(level, *row) for level, rows in KEYS.items() for row in rows]
FLAT_RULES = [(level, *row) for level, rows in RULE_KEYS.items() for row in rows]
PARSERS = {"cluster": parse_cluster, "pod": parse_pod}


def problems(text: str, level: Level) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        PARSERS[level](text, "f.toml")
    assert caught.value.advice
    return caught.value.message.splitlines()


def test_the_table_is_complete():
    for level in KEYS:
        named = {row[0] for row in KEYS[level]} | {f"rule.{row[0]}" for row in RULE_KEYS[level]}
        assert named == all_keys(level)


@pytest.mark.parametrize(("level", "key", "attribute", "default", "good", "value", "bad"), FLAT)
def test_key(level, key, attribute, default, good, value, bad):
    section, _, name = key.partition(".")
    assert getattr(getattr(PARSERS[level](""), section), attribute) == default
    for text in (f"[{section}]\n{name} = {good}", f"{section}.{name} = {good}", f"{section} = {{ {name} = {good} }}"):
        read = getattr(getattr(PARSERS[level](text), section), attribute)
        assert read == value
        assert type(read) is type(value) or isinstance(value, int) == isinstance(read, int | float)
    for text in bad:
        (line,) = problems(f"\n\n[{section}]\n# what for\n{name} = {text}\n", level)
        assert line.startswith(f"f.toml:5: {key}: ")
        assert len(line) < 300


@pytest.mark.parametrize(("level", "key", "good", "value", "bad"), FLAT_RULES)
def test_rule_key(level, key, good, value, bad):
    match = "" if key == "match" else 'match = "x"\n'
    (rule,) = getattr(PARSERS[level](f"[[rule]]\n{match}{key} = {good}"), "rules")  # noqa: B009 - of either level
    assert getattr(rule, key) == value
    for text in bad:
        first = '[[rule]]\nmatch = "first"\n'
        (line,) = problems(f"{first}[[rule]]\n{match}{key} = {text}\n", level)
        assert line.startswith(f"f.toml:{4 if key == 'match' else 5}: rule.{key}: ")


@pytest.mark.parametrize(
    ("level", "text", "expected"),
    [
        ("cluster", "[redundancy]\ncopis = 2", "2: redundancy.copis: unknown key; did you mean copies?"),
        ("cluster", "[cluster]\ncopies = 2", "2: cluster.copies: unknown key; did you mean redundancy.copies?"),
        ("cluster", "copies = 2", "1: copies: unknown key; did you mean redundancy.copies?"),
        ("cluster", "[redundncy]", "1: redundncy: unknown section; did you mean [redundancy]?"),
        ("cluster", "[rules]\nmatch = 'x'", "1: rules: unknown section; did you mean [[rule]]?"),
        ("cluster", "[rule]\nmatch = 'x'", "1: rule: must be a list of sections; did you mean [[rule]]?"),
        ("cluster", "[[redundancy]]", "1: redundancy: must be a section, not a list; did you mean [redundancy]?"),
        ("cluster", "redundancy = 3", "1: redundancy: must be a section, not 3"),
        ("cluster", "[cluster.conflicts]", "1: cluster.conflicts: unknown key; did you mean [conflicts]?"),
        ("cluster", "[qqqqqq]", "1: qqqqqq: unknown section"),
        ("cluster", "[cache]", "1: cache: belongs to pod.toml, and this is a cluster.toml"),
        ("pod", "[redundancy]", "1: redundancy: belongs to cluster.toml, and this is a pod.toml"),
        (
            "pod",
            "[[rule]]\nmatch = 'x'\ncopies = 2",
            "3: rule.copies: belongs to cluster.toml, and this is a pod.toml",
        ),
        ("cluster", "[[rule]]\ncopies = 2", '1: rule.match: is missing; a rule needs one, such as "photos/**"'),
        (
            "cluster",
            "[redundancy]\ncopies = '2'",
            '2: redundancy.copies: must be a whole number from 1 to 16, not "2"; did you mean 2?',
        ),
        (
            "cluster",
            "[cluster]\nadmission = 'Closed'",
            '2: cluster.admission: must be one of "open", "code", "approve", "closed", not "Closed"; did you mean "c',
        ),
        ("pod", "[pod]\nlisten = ':7420'", 'not ":7420"; did you mean "0.0.0.0:7420"?'),
        ("pod", "[pod]\npeers = ['::1']", 'not "::1"; did you mean "[::1]:7420"?'),
        ("pod", "[pod]\npeers = 'nas:7420'", 'not "nas:7420"; did you mean ["nas:7420"]?'),
        ("pod", "[pod]\nmount = 'Wormhole'", 'did you mean "~/Wormhole"?'),
        ("pod", "[pod]\ndiscovery = 'True'", "did you mean true?"),
        ("pod", "[network]\nupload_limit = 'unlimited'", 'did you mean "none"?'),
        ("pod", "[cache]\nlimit = '5 gb'", 'did you mean "5 GB"?'),
        ("pod", '["p\\nd"]', '1: "p\\nd": unknown section'),
        ("cluster", "[cluster]\nname = 'my home'", 'did you mean "my-home"?'),
    ],
)
def test_messages(level, text, expected):
    (line,) = problems(text, level)
    assert expected in line


def test_all_errors_at_once_in_the_order_of_the_file():
    text = """\
[conflicts]
strategy = "keep both"
[[rule]]
match = "a"
copies = 0
[cluster]
name = 5
allow = [
  "a",
  "b c",
]
[[rule]]
match = "b"
cpoies = 2
rule = 1
"""
    lines = problems(text, "cluster")
    assert [line.split(": ")[:2] for line in lines] == [
        ["f.toml:2", "conflicts.strategy"],
        ["f.toml:5", "rule.copies"],
        ["f.toml:7", "cluster.name"],
        ["f.toml:8", "cluster.allow"],
        ["f.toml:14", "rule.cpoies"],
        ["f.toml:15", "rule.rule"],
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[cluster]\nname = \n", 2),
        ("[cluster]\nname = 'a'\nname = 'b'\n", 3),
        ("[cluster\n", 1),
        ("[cluster]\n[cluster]\n", 2),
        ("[cluster]\r\nname = x\r\n", 2),
        ("a = '''\nb\nc\n", 3),
        ("[cluster]\nname = '\ud800'", 2),
        ("a." * 100_000 + "b = 1", 1),
        ("[cluster]\n[" + "a." * 100_000 + "b]", 2),
        ("[cluster]\nallow = " + "[" * 100_000, 2),
        ("[cluster]\nallow = " + "{a=" * 100_000, 2),
        ("# " + "x" * (1 << 20), 1),
        ("[cluster]\nx = " + "9" * 10_000, 1),
    ],
)
def test_what_is_no_toml(text, line):
    (found,) = problems(text, "cluster")
    assert found.startswith(f"f.toml:{line}: syntax: ")


def test_very_many_errors_are_cut_short():
    lines = problems("[cluster]\n" + "".join(f"key{index} = 1\n" for index in range(19_000)), "cluster")
    assert len(lines) == 101
    assert lines[-1].endswith(": more: 18900 further problems are left out")
    (line,) = problems("".join(f"key{index} = 1\n" for index in range(25_000)), "cluster")
    assert "more than 20000 keys" in line


def test_the_number_of_rules_is_limited():
    rule = '[[rule]]\nmatch = "a"\n'
    assert len(parse_cluster(rule * 256).rules) == 256
    (line,) = problems(rule * 257, "cluster")
    assert line == "f.toml:513: rule: there are 257 rules, more than 256"


def test_a_profile_gives_defaults_and_nothing_else():
    speed = parse_cluster('[redundancy]\nprofile = "speed"').redundancy
    assert (speed.copies, speed.replicate, speed.repair_after_s) == (2, "settled", 7200)
    mixed = parse_cluster('redundancy = { repair_after = "5m", profile = "speed" }').redundancy
    assert (mixed.replicate, mixed.repair_after_s) == ("settled", 300)
    assert parse_cluster('[redundancy]\nprofile = "safe"') == parse_cluster("")


@pytest.mark.parametrize(
    ("level", "text", "expected"),
    [
        (
            "cluster",
            "[redundancy]\ncopies = 1\nacknowledge = 2",
            "3: redundancy.acknowledge: is 2 but no file has more copies than 1",
        ),
        (
            "cluster",
            "[continuity]\nleast_copies = 3",
            "2: continuity.least_copies: is 3 but no file has more copies than 2",
        ),
        ("pod", "[storage]\nlimit = '1 GB'\n[cache]\nlimit = '2 GB'", '4: cache.limit: is "2 GB" but lies within'),
    ],
)
def test_contradictions(level, text, expected):
    (line,) = problems(text, level)
    assert expected in line


def test_a_rule_may_want_the_copies_that_are_asked_for():
    text = "[redundancy]\ncopies = 1\nacknowledge = 3\n[[rule]]\nmatch = 'a'\ncopies = 3"
    assert parse_cluster(text).redundancy.acknowledge == 3


def test_no_contradiction_follows_from_an_error():
    assert len(problems("[redundancy]\ncopies = 'three'\nacknowledge = 3", "cluster")) == 1


def test_the_default_cache_stays_within_the_store():
    assert parse_pod("[storage]\nlimit = '1 GB'").cache.limit_bytes == 10**9
    assert parse_pod("[storage]\nlimit = '1 TB'").cache.limit_bytes == 20 * GIB


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("", "cluster"),
        ("[pod]", "pod"),
        ("[redundancy]", "cluster"),
        ("[[rule]]\nmatch = 'a'\nkeep = true", "pod"),
        ("[[rule]]\nmatch = 'a'\ncopies = 2", "cluster"),
        ("[[rule]]\nmatch = 'a'\ncache = true", "cluster"),
        ("[pods]\nname = 'x'", "pod"),
        ("[afinity]", "pod"),
        ("[pod]\n[network]\n[cluster]", "pod"),
        ("network.deadline = '3s'", "pod"),
        ("\ufeff[pod]", "pod"),
        ("rule = 3\ncluster = 4", "cluster"),
    ],
)
def test_level(text, level):
    assert level_of(text) == level


def test_parse_takes_the_level_of_the_text():
    assert parse("[pod]\nname = 'a'", "f").level == "pod"
    assert parse("[cluster]\nname = 'a'", "f").level == "cluster"


def test_configurations_are_values():
    config = parse_pod("[pod]\nname = 'a'")
    assert config == parse_pod("pod.name = 'a'")
    with pytest.raises(AttributeError):
        config.pod.name = "b"  # type: ignore[misc]
