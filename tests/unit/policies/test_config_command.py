"""`wormhole config check` and `show`, and the files in examples/."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from base.errors import ConfigError, NotFoundError
from commands.config import check, read_text, show
from policies.config import parse_cluster
from policies.edit import default_pod_toml, render

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.toml"))


def test_there_is_an_example_for_everybody():
    assert {file.stem for file in EXAMPLES} >= {"home", "company", "laboratory", "webservice"}


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_examples_are_valid(file):
    result = check(file)
    assert result.errors == []
    assert result.level == "cluster"
    config = parse_cluster(file.read_text(), str(file))
    assert config.cluster.name == file.stem
    assert parse_cluster(render(config)) == config
    assert f"--from {file.name}" in file.read_text()


def test_examples_say_what_they_promise():
    by_name = {file.stem: parse_cluster(file.read_text()) for file in EXAMPLES}
    assert by_name["home"].for_path("/photos/2024/a.jpg").copies == 3
    assert by_name["home"].for_path("/projects/web/node_modules/x/y.js").cache is False
    assert by_name["company"].for_path("/archive/1999.pdf").read_only is True
    assert by_name["laboratory"].for_path("/measurements/1.csv").strategy == "keep-both"
    assert by_name["webservice"].for_path("/thumbnails/1.png").copies == 2
    assert by_name["webservice"].for_path("/releases/1.tar").read_only is True


def test_check_of_a_good_file(tmp_path):
    file = tmp_path / "pod.toml"
    file.write_text(default_pod_toml("nas", "~/Wormhole", "0.0.0.0:7420"))
    result = check(file)
    assert (result.level, result.errors, result.exit_code) == ("pod", [], 0)


def test_check_tells_file_line_and_key(tmp_path):
    file = tmp_path / "x.toml"
    file.write_text('[redundancy]\ncopys = 3\n[conflicts]\nstrategy = "both"\n')
    result = check(file)
    assert result.exit_code == 6
    assert result.level == "cluster"
    assert result.errors[0] == f"{file}:2: redundancy.copys: unknown key; did you mean copies?"
    assert result.errors[1].startswith(f"{file}:4: conflicts.strategy: ")
    body = json.loads(json.dumps(result.to_json()))
    assert (body["version"], body["valid"], body["level"], len(body["errors"])) == (1, False, "cluster", 2)


@pytest.mark.parametrize(
    ("data", "line"),
    [(b"[cluster\n", 1), (b"[cluster]\nname = '\xff'\n", 2), (b"#" * (2 << 20), 1), (b"\n" + b"\xff" * (2 << 20), 1)],
)
def test_check_of_what_is_no_configuration(tmp_path, data, line):
    file = tmp_path / "x.toml"
    file.write_bytes(data)
    result = check(file)
    assert (result.level, result.exit_code) == (None, 6)
    assert result.errors[0].startswith(f"{file}:{line}: syntax: ")


def test_check_of_what_is_not_there(tmp_path):
    for path in (tmp_path / "none", tmp_path, Path("a\0b")):
        with pytest.raises(NotFoundError):
            check(path)


def test_show(tmp_path):
    result = show("[redundancy]\ncopies = 4\nfan_out = 1", "cluster")
    assert result.values["redundancy"]["copies"] == 4
    assert "copies = 4" in result.text
    assert json.loads(json.dumps(result.to_json()))["config"]["redundancy"]["absent_after"] == "60s"
    with pytest.raises(ConfigError):
        show("[pod]", "cluster")
    file = tmp_path / "pod.toml"
    file.write_text("[pod]\nname = 'a'")
    assert show(read_text(file), "pod", str(file)).values["pod"]["name"] == "a"
    assert read_text(file) == "[pod]\nname = 'a'"
