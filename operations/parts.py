"""The running parts of one pod, as the operations see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from base.home import Home
from base.ids import PodId
from crdt_meta.metadata import Metadata
from discovery.admission import Admissions
from mesh.identity import Identity
from mesh.node import MeshNode
from mesh.roster_store import RosterStore
from operations.catalogue import TreeCatalogue
from operations.client import RemoteTree
from operations.mounting import MountKeeper
from operations.rates import Rates
from operations.tally import Tallies
from policies.config import ClusterConfig, PodConfig
from transfer.service import Transfer
from vfs.gate import Gate
from vfs.hold import Hold

if TYPE_CHECKING:
    from operations.barrier import Barrier
    from operations.crisis import Crisis
    from operations.live import LiveConfiguration


@dataclass
class Parts:
    """Everything that runs in one pod."""

    home: Home
    identity: Identity
    cluster: ClusterConfig
    pod: PodConfig
    roster: RosterStore
    metadata: Metadata
    mesh: MeshNode
    catalogue: TreeCatalogue
    transfer: Transfer
    admissions: Admissions
    mounts: MountKeeper
    gossip: Callable[[Mapping[str, object]], None]
    """Tell all pods small values about this one; those told earlier stay."""
    gate: Gate
    """Says what may be changed in the tree."""
    stop: Callable[[], None]
    """Ask the pod to end in order."""
    live: LiveConfiguration = field(init=False)
    """What takes over changes of the configuration; set by the composition root."""
    crisis: Crisis = field(init=False)
    """What looks at the situation and reacts; set by the composition root."""
    barrier: Barrier = field(init=False)
    """Waits until other pods have what is written; set by the composition root."""
    editor: RemoteTree | None = None
    """On a client pod: who makes changes."""
    wishes_changed: Callable[[], None] = lambda: None
    """Tell the others of other wishes or limits; set on full pods."""
    repairs_left_s: Callable[[], Mapping[PodId, float]] = dict
    """Who is away, and how many seconds later its copies are made anew, 0 for now; of client pods nobody."""
    is_short: Callable[[], bool] = lambda: False
    """Say that something that is written found no room; tells whether another pod can take over what this one wrote."""
    tallies: Tallies = field(default_factory=Tallies)
    """How many files stand how."""
    rates: Rates = field(default_factory=Rates)
    """How fast contents come and go."""
    hold: Hold = field(default_factory=Hold)
    """What keeps the mount from taking changes, or from answering."""
