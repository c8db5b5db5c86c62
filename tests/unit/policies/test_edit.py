"""Texts made and changed."""

from __future__ import annotations

import json
import re
import tomllib

import pytest

from base.errors import ConfigError
from policies.config import parse, parse_cluster, parse_pod
from policies.edit import default_cluster_toml, default_pod_toml, effective, render, set_values
from policies.schema import PodConfig, all_keys, sections

CLUSTER = default_cluster_toml("home")
POD = default_pod_toml("nas", "~/Wormhole", "0.0.0.0:7420")
DEFAULTS = {"cluster": CLUSTER, "pod": POD}


def uncommented(text: str) -> str:
    """Return a default text with everything in it in force, examples of rules excepted."""
    before, _, _ = text.partition("# Rules for files")
    return re.sub(r"^# (?=\[|[a-z_]+ = )", "", before, flags=re.MULTILINE)


def test_default_texts_are_the_defaults():
    assert parse_cluster(CLUSTER) == parse_cluster('[cluster]\nname = "home"')
    assert parse_pod(POD) == parse_pod('[pod]\nname = "nas"')


@pytest.mark.parametrize("level", ["cluster", "pod"])
def test_default_texts_explain_every_key(level):
    text = DEFAULTS[level]
    everything = uncommented(text)
    assert parse(everything, "f") == parse(text, "f")
    said = tomllib.loads(everything)
    assert {f"{section}.{key}" for section in said for key in said[section]} == {
        key for key in all_keys(level) if not key.startswith("rule.")
    }
    rules = text.partition("# Rules for files")[2].partition("\n")[2]
    assert parse(everything + re.sub(r"^# ", "", rules, flags=re.MULTILINE), "f").rules


def test_default_texts_take_odd_values():
    text = default_pod_toml("büro", '/mnt/a "b" \\ c', "[::]:0")
    assert parse_pod(text).pod.mount == '/mnt/a "b" \\ c'
    assert parse_pod(default_pod_toml("a", "", "127.0.0.1:0")).pod.mount == ""
    with pytest.raises(ConfigError):
        parse_cluster(default_cluster_toml('a"\nadmission = "open'))


def test_setting_keeps_everything_else():
    changed = set_values(
        POD, {("pod", "listen"): "127.0.0.1:9", ("network", "deadline"): "3s", ("pod", "discovery"): False}
    )
    assert parse_pod(changed).pod.listen == "127.0.0.1:9"
    assert parse_pod(changed).network.deadline_s == 3
    assert parse_pod(changed).pod.discovery is False
    before, after = POD.splitlines(), changed.splitlines()
    assert len(before) == len(after)
    assert sum(one != other for one, other in zip(before, after, strict=True)) == 3
    assert "# a call on the mount fails" in changed


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("", {("pod", "name"): "a"}, {"pod": {"name": "a"}}),
        ("# note", {("pod", "name"): "a"}, {"pod": {"name": "a"}}),
        ("pod.name = 'a'", {("pod", "name"): "b", ("pod", "mount"): "/x"}, {"pod": {"name": "b", "mount": "/x"}}),
        ("pod = { name = 'a' }", {("pod", "peers"): ["a:1"]}, {"pod": {"name": "a", "peers": ["a:1"]}}),
        ("[pod]\nname = 'a'", {("pod", "name"): None}, {"pod": {}}),
        ("[pod]", {("pod", "name"): None, ("x", "y"): None}, {"pod": {}}),
        ("[[rule]]\nmatch = 'a'", {("pod", "name"): "a"}, {"rule": [{"match": "a"}], "pod": {"name": "a"}}),
        ("[pod]\r\nname = 'a'\r\n", {("pod", "name"): "b\\"}, {"pod": {"name": "b\\"}}),
        ("\ufeff[pod]", {("pod", "discovery"): True}, {"pod": {"discovery": True}}),
        ("[pod.x]\na = 1\n[cluster]", {("pod", "name"): "a"}, {"pod": {"x": {"a": 1}, "name": "a"}, "cluster": {}}),
    ],
)
def test_setting(text, values, expected):
    assert tomllib.loads(set_values(text, values)) == expected


@pytest.mark.parametrize("text", ["a =", "pod = 3", "[[pod]]"])
def test_what_cannot_be_set(text):
    with pytest.raises(ConfigError):
        set_values(text, {("pod", "name"): "a"})


@pytest.mark.parametrize("text", ["", "[pod]\nname = 'a'", CLUSTER, POD])
def test_rendered_texts_read_back(text):
    config = parse(text, "f")
    assert parse(render(config), "f") == config


def test_effective_has_every_key_and_is_json():
    config = parse_pod('[[rule]]\nmatch = "ä/**"\nkeep = true\n[storage]\nlimit = "1.5 GB"')
    values = effective(config)
    assert isinstance(config, PodConfig)
    assert values["storage"] == {"limit": "1500 MB"}
    assert values["network"] == {"upload_limit": "none", "download_limit": "none", "deadline": "10s"}
    assert values["rule"] == [{"match": "ä/**", "keep": True}]
    assert list(values) == [*sections("pod"), "rule"]
    assert json.loads(json.dumps(values)) == values
    assert 'match = "ä/**"\nkeep = true' in render(config)
