"""`wormhole why`: of each pod whether it has a file, and by which rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from base.errors import UsageError
from base.ids import EMPTY_CONTENT, PodId
from crdt_meta.node import Kind, Node
from mesh.api import Member, Role, State
from operations.finding import find, text_argument, text_of
from operations.parts import Parts
from policies.explaining import Facts, chosen, copies_rule, named, no_cache_rule, reason
from policies.pinning import keeping_rule
from policies.wishes import KEEP, Wish, wish_of
from transfer.api import ContentInfo

GONE: Final = (State.LEFT, State.EVICTED)


async def why(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Explain every copy of one file."""
    raw, node = find(parts.metadata.tree, text_argument(args, "path") or "/")
    path = text_of(raw)
    if node.kind is not Kind.FILE:
        raise UsageError(f"'{path}' is no file.", "Name a file; a folder's files are held one by one.")
    info = parts.catalogue.info(node.content)
    copies = parts.catalogue.wanted(node.inode, path).copies if info is None else info.copies
    wanted = parts.catalogue.wanted_now(copies)
    members = sorted((one for one in parts.mesh.members() if one.state not in GONE), key=lambda one: one.name)
    return {
        "path": path,
        "content": node.content.hex(),
        "copies_wanted": wanted,
        "rule": copies_rule(parts.cluster, path, copies, wanted, _wish(parts, node)),
        "pods": _rows(parts, path, node, info, wanted, members),
    }


def _rows(
    parts: Parts, path: str, node: Node, info: ContentInfo | None, wanted: int, members: list[Member]
) -> list[dict[str, object]]:
    """Return what is said of each pod."""
    if node.content == EMPTY_CONTENT or info is None:
        why_not = "an empty file: there is nothing to keep" if info is None or not node.size else ""
        return [{"name": one.name, "state": one.state.value, "has": "none", "reason": why_not} for one in members]
    known = parts.transfer.known_holdings(node.content)
    places = {pod: number for number, pod in enumerate(parts.catalogue.place(info), 1)}
    chances = parts.catalogue.placing.chances(info)
    rows: list[dict[str, object]] = []
    for one in members:
        holding = known.get(one.pod)
        facts = _facts(parts, path, node, info, one, places, "none" if holding is None else holding.name.lower())
        if one.pod in chances:
            facts = replace(facts, because=chosen(chances[one.pod], placed=one.pod in places))
        rows.append({"name": one.name, "state": one.state.value, "has": facts.has, "reason": reason(facts, wanted)})
    return rows


def _wish(parts: Parts, node: Node) -> Wish:
    return wish_of(parts.metadata.tree.marks(node.inode))


def _pin(parts: Parts, path: str, node: Node, member: Member) -> str:
    """Return what says that a pod must keep a file, as far as this pod knows; empty when nothing does."""
    if member.role is not Role.FULL and member.pod != parts.mesh.pod_id:
        return ""
    wish = _wish(parts, node).keep
    if wish is not None:
        return f"{KEEP.decode()} = 1 at the file itself" if wish else ""
    pin = keeping_rule(parts.pod, path) if member.pod == parts.mesh.pod_id else None
    return "" if pin is None else named(pin, parts.pod, "keep = true")


def _facts(
    parts: Parts, path: str, node: Node, info: ContentInfo, member: Member, places: dict[PodId, int], has: str
) -> Facts:
    me = parts.mesh.pod_id
    given_up, leaving = parts.catalogue.set_apart()
    return Facts(
        has=has,
        is_client=member.role is Role.CLIENT,
        answers=member.state is State.ALIVE,
        is_announced=member.announced or member.state is State.MAINTENANCE,
        is_author=info.author == member.pod,
        is_given_up=member.pod in given_up,
        is_leaving=member.pod in leaving,
        place=places.get(member.pod),
        pin=_pin(parts, path, node, member),
        no_cache=no_cache_rule(parts.cluster, parts.pod if member.pod == me else None, path),
    )
