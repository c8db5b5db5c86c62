"""Whatever the text: a configuration or a `ConfigError`, and the line of a bad value is its line."""

from __future__ import annotations

import re
import tomllib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from base.errors import ConfigError
from policies.config import level_of, parse, parse_cluster, parse_pod
from policies.edit import default_cluster_toml, default_pod_toml, effective, render, set_values
from policies.locate import Lines
from policies.schema import RULE, RULES, keys, sections
from policies.units import (
    MAX_SIZE_BYTES,
    format_duration,
    format_percent,
    format_rate,
    format_size,
    parse_duration,
    parse_percent,
    parse_rate,
    parse_size,
)

BASE = [
    default_cluster_toml("home").replace("# ", ""),
    default_pod_toml("nas", "~/Wormhole", "0.0.0.0:7420"),
    render(parse_cluster('[[rule]]\nmatch = "a/**"\ncopies = 1\n[[rule]]\nmatch = "*.x"\nstrategy = "keep-both"')),
    render(parse_pod('[[rule]]\nmatch = "a/**"\nkeep = true')),
    'rule = [{ match = "a", copies = 3 }, { match = """b""" }]\nredundancy.copies = 2\n',
]
PIECES = [
    "[", "]", "[[", "]]", "{", "}", '"', "'", '"""', "=", ".", ",", "#", "\n", "\r\n", "\\", "\0", "\ud800", "true",
    "-1", "0", "1e400", "nan", "9" * 5000, "1979-05-27", "[[rule]]", "[pod]", "[cluster]", '"none"', '"5 MB/s"', "{}",
    "[]", "ä", "\u2028", "copies", "match = 3\n", "a.b.c", "[x]\n", "\ufeff", '"\\uD800"', '"\\n"', "'!'", "'['",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(BASE))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        text = text[:start] + draw(st.sampled_from(PIECES) | st.text(max_size=4)) + text[end:]
    return text


def only_config_errors(text: str) -> None:
    for read in (parse_cluster, parse_pod, lambda text: parse(text, "f"), level_of):
        try:
            read(text)
        except ConfigError as error:
            for line in error.message.splitlines():
                found = re.match(r"[^:]*:([0-9]+): \S.*: \S", line)
                assert found, line
                assert 1 <= int(found[1]) <= text.count("\n") + 1


@given(mutated())
@example("a=1\n" + "[[rule]]\n" * 300)
@example("x = {a.b.c.d = 1, a.b.c.e = [{}]}")
@example("a = '''\n'''''\nb = 1")
def test_mutated_texts(text):
    only_config_errors(text)


@given(st.text(max_size=200))
def test_any_text(text):
    only_config_errors(text)


@given(mutated())
def test_a_good_text_reads_back_from_what_is_rendered(text):
    try:
        config = parse(text, "f")
    except ConfigError:
        return
    read = parse(render(config), "f")
    assert (read, effective(read)) == (config, effective(config))


@given(mutated())
def test_every_key_of_a_good_text_is_found(text):
    try:
        tree = tomllib.loads(text)
        lines = Lines(text)
    except (ValueError, RecursionError):
        return
    found = set(lines)

    def check(value: object, path: tuple[str | int, ...]) -> None:
        assert path in found
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, part in inner:
            check(part, (*path, key))

    for key, value in tree.items():
        check(value, (key,))


@given(
    mutated(),
    st.sampled_from(["pod", "cluster", "network"]),
    st.sampled_from(["name", "x"]),
    st.text(max_size=5) | st.none(),
)
def test_setting_changes_just_that_or_nothing(text, section, key, value):
    try:
        before = tomllib.loads(text.removeprefix("\ufeff"))
        after = tomllib.loads(set_values(text, {(section, key): value}))
    except (ConfigError, ValueError, RecursionError):
        return
    assert after.get(section, {}).get(key) == value
    for tree in (before, after):
        tree.get(section, {}).pop(key, None)
        if not tree.get(section, True):
            del tree[section]
    assert repr(after) == repr(before) or after == before


ALL_KEYS = [
    (level, section, key)
    for level in ("cluster", "pod")
    for section, known in {**sections(level), RULE: RULES[level]}.items()
    for key in keys(known)
]


@given(st.sampled_from(ALL_KEYS), st.integers(0, 5), st.integers(0, 5), st.sampled_from(["{}", "-99.5", "1979-05-27"]))
def test_the_line_of_a_bad_value(which, rules, comments, bad):
    level, section, key = which
    good = '[[rule]]\nmatch = "x" # [[rule]]\n'
    filler = '# "quoted = [\n' * comments
    lead = f"{good * rules}{filler}"
    if section == RULE:
        text = f"{lead}[[rule]]\n" + ("" if key == "match" else 'match = "y"\n') + filler
    else:
        text = f"{lead}[{section}]\n{filler}"
    with pytest.raises(ConfigError) as caught:
        (parse_cluster if level == "cluster" else parse_pod)(f"{text}{key} = {bad}\n{filler}", "f")
    line = text.count("\n") + 1
    assert caught.value.message.startswith(f"f:{line}: {section}.{key}: ")
    assert "\n" not in caught.value.message


@given(st.integers(0, MAX_SIZE_BYTES))
def test_sizes_read_back(size_bytes):
    assert parse_size(format_size(size_bytes)) == size_bytes
    assert parse_rate(format_rate(size_bytes)) == size_bytes


@given(st.integers(0, 36_500 * 86_400_000))
def test_durations_read_back(duration_ms):
    assert parse_duration(format_duration(duration_ms / 1000)) == duration_ms / 1000


@given(st.integers(1, 100_000))
def test_shares_read_back(thousandths):
    assert parse_percent(format_percent(thousandths / 1000)) == thousandths / 1000
