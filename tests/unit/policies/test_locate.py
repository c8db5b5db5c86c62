"""Lines of keys, however TOML lets one write them."""

from __future__ import annotations

import tomllib

import pytest

from policies.locate import Lines, TooComplexError

EVERYTHING = '''\
top.dotted = 1                      # 1

[cluster]                           # 3
"name" = "a # b = [c]"              # 4
'admission'  = 'x'                  # 5
text = """                          # 6
[pod]
name = "\\"" x"""
other = \'\'\'
[[rule]]\'\'\'                      # 10
allow = [ # 11
  "a", # ] "
  "b", [ 3, { k = 1 } ],            # 13
]
redundancy.copies = 2               # 15
when = 1979-05-27T07:32:00Z
inline = { a = 1, b.c = "}", d = [1, 2] }  # 17
[[rule]]                            # 18
match = "a"
[[ rule ]]                          # 20
match = "b"
[rule.sub]                          # 22
x = 1
[[rule]]
"cop\\u0069es" = 3                   # 25
"k=#'\\\\" = 1
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 1),
        (("top", "dotted"), 1),
        (("cluster",), 3),
        (("cluster", "name"), 4),
        (("cluster", "admission"), 5),
        (("cluster", "text"), 6),
        (("cluster", "other"), 9),
        (("cluster", "allow"), 11),
        (("cluster", "allow", 0), 12),
        (("cluster", "allow", 2, 1, "k"), 13),
        (("cluster", "redundancy", "copies"), 15),
        (("cluster", "inline", "b", "c"), 17),
        (("cluster", "inline", "d", 1), 17),
        (("rule",), 18),
        (("rule", 0), 18),
        (("rule", 0, "match"), 19),
        (("rule", 1, "match"), 21),
        (("rule", 1, "sub"), 22),
        (("rule", 1, "sub", "x"), 23),
        (("rule", 2, "copies"), 25),
        (("rule", 2, "k=#'\\"), 26),
        (("rule", 1, "unknown"), 20),
        (("unknown", "key"), 1),
    ],
)
def test_lines(path, line):
    assert Lines(EVERYTHING).of(path) == line


def test_the_text_is_toml_and_every_key_of_it_is_found():
    found = set(Lines(EVERYTHING))

    def check(value, path):
        assert path in found
        for key, part in (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        ):
            check(part, (*path, key))

    for key, value in tomllib.loads(EVERYTHING).items():
        check(value, (key,))


def test_inline_rules():
    lines = Lines('rule = [\n  { match = "a" },\n  { match = "b",\tcopies = 3 },\n]\n')
    assert lines.of(("rule", 1, "copies")) == 3
    assert lines.of(("rule", 0, "match")) == 2


@pytest.mark.parametrize(
    "text", ["[", "a", "a =", 'a = "', "= 3", "[a\n]", "a = [1\n", "a = { b", '"""', "\x00", 'a = "\\', "]"]
)
def test_no_toml_stops_the_scanner_quietly(text):
    assert Lines(f"x = 1\n{text}").of(("x",)) == 1


@pytest.mark.parametrize("text", ["a.b.c.d.e.f.g.h.i = 1", "[a.b.c.d.e.f.g.h.i]", "a = [[[[[[[[[1]]]]]]]]]"])
def test_depth_is_limited(text):
    with pytest.raises(TooComplexError) as caught:
        Lines(f"\n{text}")
    assert caught.value.line == 2
