"""The sentences for a refused join, on the joiner's side: what is wrong, and what to type where. Pure.

The words are made here from a reason and checked values; no text of the other side, which may be anybody, is shown.
"""

from __future__ import annotations

from typing import Final

from base.errors import DamagedError, RefusedError, UnreachableError, UsageError, WormholeError
from discovery.join_messages import Reason, Refusal

ADMISSION_ADVICE: Final = "Its configuration says so; `wormhole config set cluster.admission code` on it changes that."
_Words = tuple[type[WormholeError], str, str]


def refusal_error(refusal: Refusal, endpoint: str, wanted_name: str) -> WormholeError:
    """Return the error for a refusal by the pod at ``endpoint`` of a joiner that asked for ``wanted_name``."""
    where = f"on {refusal.pod_name}" if refusal.pod_name else "on a pod of the cluster"
    new_code = f"Run `wormhole invite` {where} for a new code and type `wormhole join --code CODE` here."
    if refusal.reason is Reason.WRONG_CODE:
        left = f"; {refusal.attempts_left} more wrong ones make it void" if refusal.attempts_left > 0 else ""
        return RefusedError(
            f"The join code is wrong{left}.",
            f"Compare it with what `wormhole invite` printed {where}, or make a new one there, "
            "and type `wormhole join --code CODE` here.",
        )
    if refusal.reason is Reason.OTHER_ISSUER:
        by = refusal.pod_name or "another pod of the cluster"
        return RefusedError(
            f"The pod at {endpoint} did not issue this code; {by} did, and its address is not known there.",
            f"Type `wormhole join --code CODE --peer HOST:PORT` here with the address of {by}.",
        )
    kind, message, advice = _WORDS[refusal.reason]
    cluster = f"The cluster {refusal.cluster_name}" if refusal.cluster_name else "The cluster"
    values = {"cluster": cluster, "endpoint": endpoint, "name": wanted_name, "where": where, "new_code": new_code}
    values["cluster_small"] = cluster[0].lower() + cluster[1:]
    values["other"] = refusal.cluster_name or "unnamed"
    return kind(message.format(**values), advice.format(**values))


_WORDS: Final[dict[Reason, _Words]] = {
    Reason.UNKNOWN_CODE: (RefusedError, "The pod at {endpoint} knows no such join code.", "{new_code}"),
    Reason.USED_CODE: (RefusedError, "The join code has been used already.", "{new_code}"),
    Reason.EXPIRED_CODE: (RefusedError, "The join code has expired.", "{new_code}"),
    Reason.VOID_CODE: (RefusedError, "The join code is void after too many wrong attempts.", "{new_code}"),
    Reason.CODE_NEEDED: (RefusedError, "{cluster} takes in new pods by a join code only.", "{new_code}"),
    Reason.APPROVAL_NEEDED: (
        RefusedError,
        "{cluster} takes in new pods by approval, not by a code.",
        "Leave `--code` out, and have an administrator approve this pod: `wormhole requests` there shows it.",
    ),
    Reason.WAITING: (
        UnreachableError,
        "Nobody approved this pod in time.",
        "Have somebody type `wormhole requests` and `wormhole approve ID` {where} while this one waits, and try again.",
    ),
    Reason.DENIED: (
        RefusedError,
        "An administrator of {cluster_small} denied this pod.",
        "Ask who administers it; then try again.",
    ),
    Reason.TOO_MANY: (
        UnreachableError,
        "Too many pods wait for approval at {endpoint}.",
        "Have an administrator approve or deny some (`wormhole requests`), and try again.",
    ),
    Reason.CLOSED: (
        RefusedError,
        "{cluster} takes in no new pods.",
        ADMISSION_ADVICE,
    ),
    Reason.NOT_ALLOWED: (
        RefusedError,
        "{cluster} does not allow a pod called {name}.",
        "Change `allow` or `deny` with `wormhole config edit` {where}, or take another name here with `--pod NAME`.",
    ),
    Reason.OTHER_CLUSTER: (
        UsageError,
        "The pod at {endpoint} belongs to another cluster ({other}) than the one named.",
        "Leave the name out, or check address and code.",
    ),
    Reason.REVOKED: (RefusedError, "{cluster} has evicted this pod, or it has left.", "Join it from another home."),
    Reason.NOT_ADMINISTRATOR: (
        RefusedError,
        "The pod at {endpoint} may not admit others.",
        "Name one that may with `--peer`, or run `wormhole invite` there and type `wormhole join --code CODE` here.",
    ),
    Reason.VERSION: (
        RefusedError,
        "The pod at {endpoint} speaks another version of the join protocol.",
        "Install the same version of Wormhole on both.",
    ),
    Reason.ALTERED: (
        RefusedError,
        "The join request was altered on its way to the pod at {endpoint}; somebody may be in between.",
        "Check that nobody interferes with this network, or join on another one.",
    ),
    Reason.MALFORMED: (
        DamagedError,
        "The pod at {endpoint} could not read the join request.",
        "Install the same version of Wormhole on both, and try again.",
    ),
    Reason.BUSY: (UnreachableError, "The pod at {endpoint} is busy with other joins.", "Try again in a minute."),
    Reason.FAILED: (
        UnreachableError,
        "The pod at {endpoint} could not complete the join.",
        "Look into the log of the pod there, and try again.",
    ),
}
