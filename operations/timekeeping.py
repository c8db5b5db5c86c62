"""What `status` says of clocks that are wrong."""

from __future__ import annotations

from collections.abc import Mapping

from base.ids import PodId
from mesh.clocks import own_lead_s, wrong
from operations.finding import number_of

UNITS = (("y", 365 * 86_400), ("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def clock_warnings(ahead_s: Mapping[PodId, float], names: Mapping[PodId, str]) -> list[str]:
    """Return a sentence or two for each clock that is wrong, given by how much linked pods are ahead of this one."""
    lead_s = own_lead_s(ahead_s.values())
    if lead_s is not None:
        pods = number_of(len(ahead_s), "pod")
        what = f"The clock of this pod is {span(abs(lead_s))} {_side(lead_s)} the others' (median of {pods})."
        return [f"{what} Have it set by the network (NTP): until the clocks agree nothing expires on this pod."]
    return [
        f"The clock of {names.get(pod, pod)} is {span(abs(by_s))} {_side(by_s)} the others'. Set it right there."
        for pod, by_s in sorted(wrong(ahead_s).items(), key=lambda one: names.get(one[0], one[0]))
    ]


def span(seconds: float) -> str:
    """Return a time span for people, with its two largest units: ``1 h 2 min``."""
    left, words = round(seconds), list[str]()
    for unit, size in UNITS:
        count, left = divmod(left, size)
        if count:
            words.append(f"{count} {unit}")
        elif words:
            break
        if len(words) == 2:
            break
    return " ".join(words) or "0 s"


def _side(seconds: float) -> str:
    return "ahead of" if seconds > 0 else "behind"
