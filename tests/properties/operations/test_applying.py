"""`config apply` on a pod: of any two configurations there and back changes nothing, nor does what is refused."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from base.errors import WormholeError
from base.home import Home
from discovery.founding import found
from operations.configuration import config_apply, text_of
from operations.parts import Parts
from operations.settings import admission_policy
from pod import Pod
from policies.changing import changes, set_key, written
from policies.config import parse
from policies.edit import default_cluster_toml, default_pod_toml, effective
from policies.schema import Level
from tests.unit.policies.test_config import KEYS, RULE_KEYS

FIXED = {"cluster.name": '"home"', "pod.name": '"nas"'}


@st.composite
def texts(draw: st.DrawFn, level: Level) -> str:
    """Return a configuration in which some keys have another value than by default, some of them a bad one."""
    lines: dict[str, list[str]] = {}
    chosen = [row for row in KEYS[level] if draw(st.booleans())]
    wrong = draw(st.sampled_from([*[None] * 40, *chosen]))
    for row in chosen:
        name, _, _, good, _, bad = row
        value = FIXED.get(name, good) if row is not wrong else draw(st.sampled_from(bad))
        section, _, key = name.partition(".")
        lines.setdefault(section, []).append(f"{key} = {value}{draw(st.sampled_from(['', '  # why']))}")
    text = "".join(f"[{section}]\n" + "\n".join(keys) + "\n" for section, keys in lines.items())
    for key, good_rule, *_ in draw(st.lists(st.sampled_from(RULE_KEYS[level][1:]), max_size=3)):
        text += f'[[rule]]\nmatch = "{draw(st.sampled_from(["a/**", "*.iso", "/b"]))}"\n{key} = {good_rule}\n'
    lead = f"{'[cluster]' if level == 'cluster' else '[pod]'}\nname = {FIXED[f'{level}.name']}\n"
    return text if f"[{level}]" in text else lead + text


@asynccontextmanager
async def alone() -> AsyncIterator[Parts]:
    """Build a pod of a cluster of its own, as it is before it runs."""
    folder = Path(tempfile.mkdtemp(prefix="wormhole-"))
    home = Home(folder / "home")
    found(home, "home", "nas", default_cluster_toml("home"), time.time())
    home.pod_toml.write_text(default_pod_toml("nas", str(folder / "mount"), "127.0.0.1:0"))
    pod = Pod(home)
    try:
        pod.parts.live.start()
        yield pod.parts
    finally:
        pod.close()
        shutil.rmtree(folder)


async def in_force(parts: Parts) -> dict[str, Any]:
    """Return everything that a configuration decides, where it takes effect."""
    await parts.crisis.react()
    mesh, transfer, replication = parts.mesh, parts.transfer, parts.transfer._replication
    return {
        "texts": (text_of(parts, "cluster"), text_of(parts, "pod"), parts.home.cluster_toml.read_text()),
        "configurations": (parts.cluster, parts.pod, parts.catalogue._cluster, parts.catalogue._pod),
        "effective": (effective(parts.cluster), effective(parts.pod)),
        "settings": (transfer._settings, transfer._access.settings, transfer._fetcher.deadline_s),
        "room": (transfer._store.room._limit_bytes, transfer._store.room._full_share),
        "limits": (transfer.limits(), transfer.quota.limit_bytes, replication.fanning.fan_out),
        "pace": (replication.pacing._mode, replication.pacing._settle_s, replication.pacing._interval_s),
        "mesh": (mesh._membership.census._settings.absent_after_s, mesh._whereabouts.address, mesh._neighbours._peers),
        "trash": parts.live._housekeeping._ageing.keep_ns,
        "forgetting": parts.live._tidying.forget_after_s,
        "mount": parts.mounts._default,
        "admission": admission_policy(parts.cluster),
        "wanted": [parts.cluster.for_path(path) for path in ("/a/x", "/b", "/c.iso")],
    }


async def applied(parts: Parts, level: Level, text: str) -> bool:
    """Apply a text; tell whether it was taken. What is refused must have changed nothing."""
    before = await in_force(parts)
    try:
        await config_apply(parts, {"pod_level": level == "pod", "toml": text})
    except WormholeError:
        assert await in_force(parts) == before
        return False
    assert text_of(parts, level) == text
    return True


@pytest.mark.parametrize("level", ["cluster", "pod"])
@given(st.data())
@settings(max_examples=12, deadline=None)
def test_there_and_back_is_as_if_nothing_had_been(level: Level, data: st.DataObject) -> None:
    wanted = data.draw(st.lists(texts(level), min_size=2, max_size=5))

    async def go() -> None:
        async with alone() as parts:
            way = [text_of(parts, level)]
            stations = [await in_force(parts)]
            for text in wanted:
                if await applied(parts, level, text):
                    way.append(text)
                    stations.append(await in_force(parts))
            for text, before in zip(reversed(way), reversed(stations), strict=True):
                assert await applied(parts, level, text)
                assert await in_force(parts) == before

    anyio.run(go, backend="trio")


@pytest.mark.parametrize("level", ["cluster", "pod"])
@given(st.data())
def test_what_differs_is_what_leads_there_and_back(level: Level, data: st.DataObject) -> None:
    both = data.draw(texts(level)), data.draw(texts(level))
    try:
        one, other = (parse(text, "f") for text in both)
    except WormholeError:
        return
    there, back = changes(one, other), changes(other, one)
    assert [(each.key, each.old, each.new) for each in there] == [(each.key, each.new, each.old) for each in back]
    text = both[0]
    try:
        for _ in range(2):  # a profile changes what other keys amount to
            for changed in changes(parse(text, "f"), other):
                if not changed.key.startswith("rule["):
                    text = set_key(text, level, changed.key, written(changed.new), "f")
        if any(changed.key.startswith("rule[") for changed in there):
            text = set_key(text, level, "rule", written(effective(other)["rule"]), "f")
    except WormholeError:
        return  # one after the other they contradict each other on the way
    assert effective(parse(text, "f")) == effective(other)
    assert changes(parse(text, "f"), other) == []
