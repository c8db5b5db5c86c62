"""What an eviction must say so that nobody else goes, and nobody comes back, by it. Pure."""

from __future__ import annotations

from collections.abc import Collection

from base.errors import RefusedError
from base.ids import PodId
from mesh.records import RecordId, Revoke
from mesh.roster import Roster

MAX_CERTIFIED = 8_000


def revocations(
    roster: Roster, signer: PodId, gone: PodId, time_ns: int, *, doubtful: Collection[RecordId] = (), me: PodId
) -> list[Revoke]:
    """Return what ``signer`` must sign to evict a pod.

    What the pod did until now stays: whom it admitted (certified one by one) and whom only it evicted (evicted anew);
    all but the ``doubtful`` records, and never what concerns ``me``, the pod at which this is asked for.
    Raises `RefusedError` when it admitted too many.
    """
    config = roster.config_id()
    again = roster.evicted_without(gone, doubtful) - {signer, me}
    found: list[Revoke] = []
    for pod in (*sorted(again), gone):
        admissions = roster.admissions_by(pod).items()
        certified = sorted(record for record, admitted in admissions if record not in doubtful or admitted == me)
        if len(certified) > MAX_CERTIFIED:
            raise RefusedError(
                f"That pod admitted more than {MAX_CERTIFIED} pods, which is more than an eviction can certify.",
                "Evict pods that it admitted first.",
            )
        found.append(Revoke(pod, (), config, time_ns, tuple(certified)))
    return found
