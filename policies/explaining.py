"""Why a pod has a content, or hasn't: the rule behind each copy, cache and refusal, in words. Pure.

The order of the reasons is that of the decisions in `transfer.replicator.duty` and `operations.catalogue.place`.
"""

from __future__ import annotations

from dataclasses import dataclass

from policies.offering import Wishes
from policies.patterns import MAX_PATTERN
from policies.schema import ClusterConfig, PodConfig
from policies.wishes import COPIES, NONE, Wish

SHOWN_PATTERN = min(MAX_PATTERN, 60)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one pod and one content."""

    has: str
    """``kept``, ``cached`` or ``none``, as last heard of."""
    is_client: bool = False
    answers: bool = True
    is_announced: bool = False
    """An absence that it announced, or maintenance."""
    is_author: bool = False
    """It is to keep the first copy: it wrote the content, or published it for a client pod."""
    is_given_up: bool = False
    is_leaving: bool = False
    place: int | None = None
    """Its number, from 1, among those who should keep the content; None when it isn't among them."""
    pin: str = ""
    """What says that it must keep it: a rule of its pod.toml, known of this pod only, or the file's own attribute."""
    no_cache: str = ""
    """The rule or setting by which it may not cache the content."""
    because: str = ""
    """Why it was chosen or not among those that can keep it (`chosen`); empty when nothing is known."""


def reason(facts: Facts, copies: int) -> str:
    """Return the reason why a pod has a content or hasn't, ``copies`` being wanted in all."""
    what = {"kept": _kept, "cached": _cached}.get(facts.has, _lacking)(facts, copies)
    if facts.answers:
        return what
    if facts.is_given_up:
        return f"{what}; away for longer than redundancy.repair_after: copies are made anew elsewhere"
    if facts.is_announced:
        return f"{what}; away, as announced: nothing is made anew"
    return f"{what}; does not answer" + (": its copy counts for redundancy.repair_after" if facts.has == "kept" else "")


def _kept(facts: Facts, copies: int) -> str:
    if facts.is_leaving:
        return "it is leaving and hands this over"
    if facts.pin:
        return f"pinned here: {facts.pin}"
    if facts.is_author:
        if facts.place is None:
            return _told("its writer; more than wanted: goes once others were heard to keep it", facts)
        return "the first copy: its writer keeps it"
    if facts.place is not None:
        return _told(f"copy {facts.place} of {copies}: placed here", facts)
    return "more than wanted: pinned there, or goes once others were heard to keep it"


def _cached(facts: Facts, copies: int) -> str:
    if facts.is_client and facts.pin:
        return f"pinned here, in the cache of a client pod: {facts.pin}"
    if facts.is_client:
        return "a client pod keeps nothing; cached when it was read or written there"
    found = _coming(facts, copies)
    return found or "cached when it was read; goes when the cache is full"


def _lacking(facts: Facts, copies: int) -> str:
    if facts.is_client and facts.pin:
        return f"pinned here: {facts.pin}; not fetched yet"
    if facts.is_client:
        return "a client pod keeps nothing" + (f"; not cached: {facts.no_cache}" if facts.no_cache else "")
    if found := _coming(facts, copies):
        return found
    enough = _told("not placed here: copies enough elsewhere", facts)
    return f"{enough}; not cached: {facts.no_cache}" if facts.no_cache else f"{enough}; cached once it is read here"


def _coming(facts: Facts, copies: int) -> str:
    if facts.pin:
        return f"pinned here: {facts.pin}; not fetched yet"
    if facts.place is not None:
        return _told(f"copy {facts.place} of {copies}: placed here, not fetched yet", facts)
    return ""


def _told(what: str, facts: Facts) -> str:
    return f"{what} ({facts.because})" if facts.because else what


@dataclass(frozen=True, slots=True)
class Chances:
    """What counted for a pod when copies were placed."""

    said: Wishes
    is_young: bool = False
    is_hot: bool = False
    is_cold: bool = False
    reads_often: bool = False
    came_later: bool = False
    """It came to the cluster after the file was written."""
    has_room: bool = True
    is_slow: bool = False


def chosen(chances: Chances, *, placed: bool) -> str:
    """Return why a pod was chosen for a copy, or wasn't."""
    said = chances.said
    wishes = [
        f"{what}affinity.{key} = {wish}"
        for holds, what, key, wish in (
            (chances.is_young, "a new file: ", "new_files", said.new_files),
            (chances.is_hot, "a hot file: ", "hot", said.hot),
            (chances.is_cold, "a cold file: ", "cold", said.cold),
            (True, "", "replicas", said.replicas),
        )
        if holds and wish
    ]
    if chances.reads_often:
        wishes.append("it is often read there")
    if placed:
        share = "its share, which it took when it came" if chances.came_later else ""
        return ", ".join(wishes) or share or "by the hash of file and pod"
    against = [
        what
        for holds, what in (
            (not chances.has_room, "it has no room for it"),
            (said.is_full, "its store is nearly full"),
            (chances.is_slow, "its network is slow"),
        )
        if holds
    ]
    return ", ".join([*against, *wishes]) or "others come first by the hash of file and pod"


def copies_rule(config: ClusterConfig, path: str, copies: int, wanted: int, wish: Wish = NONE) -> str:
    """Return by which rule ``wanted`` copies are wanted of a path, or by which ``wish`` at the file itself.

    ``copies`` is what the content gets by all files that show it, before the number of full pods limits it.
    """
    own = config.for_path(path).copies
    ruling = [index for index in config.rules_of(path) if config.rules[index].copies is not None]
    text = f"redundancy.copies = {own}" if not ruling else named(ruling[-1], config, f"copies = {own}")
    if wish.copies is not None:
        own, text = wish.copies, f"{COPIES.decode()} = {wish.copies} at the file itself"
    if copies > own:
        text = f"{copies} copies by another file of the same content ({text})"
    if wanted < copies:
        text += f"; the cluster has {wanted} full pod{'' if wanted == 1 else 's'}"
    return text


def no_cache_rule(cluster: ClusterConfig, pod: PodConfig | None, path: str) -> str:
    """Return the rule by which a pod may not cache a path, empty when it may; ``pod`` None: its pod.toml isn't known."""
    if pod is not None:
        own = [index for index in pod.rules_of(path) if pod.rules[index].cache is not None]
        if own:
            return "" if pod.rules[own[-1]].cache else named(own[-1], pod, "cache = false")
    rules = [index for index in cluster.rules_of(path) if cluster.rules[index].cache is not None]
    if rules and cluster.rules[rules[-1]].cache is False:
        return named(rules[-1], cluster, "cache = false")
    return 'cache.mode = "stream" in pod.toml' if pod is not None and pod.cache.mode == "stream" else ""


def named(index: int, config: ClusterConfig | PodConfig, says: str) -> str:
    """Return how people call a rule: its number from 1, its pattern, and what it says."""
    match = config.rules[index].match
    shown = match if len(match) <= SHOWN_PATTERN else f"{match[: SHOWN_PATTERN - 3]}..."
    return f"rule {index + 1} of {config.level}.toml, '{shown}': {says}"
