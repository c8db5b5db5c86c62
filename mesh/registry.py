"""The roster in a running pod: records come in, are made durable, are told to the others, and take effect.

Must never tell a record before it is on the disk.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterable
from typing import Any, Final

import anyio

from base.errors import MachineError
from base.ids import PodId, hash_bytes
from mesh import tls
from mesh.handshake import pages
from mesh.identity import Identity, read_certificate
from mesh.quiet import QuietLog
from mesh.refusal import refusal
from mesh.roster import ID_BYTES, Roster
from mesh.roster_store import RosterStore
from mesh.wire import Tag

logger = logging.getLogger(__name__)

DIGEST_INTERVAL_S: Final = 20.0

Tell = Callable[[PodId, Tag, object], object]
"""Sends a one-way message to a linked pod."""


class Registry:
    """Roster, TLS contexts that follow from it, and its spreading."""

    def __init__(
        self,
        identity: Identity,
        store: RosterStore,
        tell: Tell,
        linked: Callable[[], Iterable[PodId]],
        changed: Callable[[], None],
    ) -> None:
        """``changed`` is called after records took effect."""
        self._identity = identity
        self._store = store
        self._tell = tell
        self._linked = linked
        self._changed = changed
        self._writing = anyio.Lock()
        self._failed: MachineError | None = None
        self._quiet = QuietLog(logger, anyio.current_time)
        self._told = len(store.roster)
        self._digest_at = 0.0
        self._digest_turn = 0
        self._contexts_for: tuple[bytes, ...] = ()
        self._rebuild()

    @property
    def roster(self) -> Roster:
        """The roster."""
        return self._store.roster

    @property
    def store(self) -> RosterStore:
        """Where it is kept."""
        return self._store

    @property
    def server_context(self) -> ssl.SSLContext:
        """The TLS context of the listener, with the anchors of now."""
        return self._server

    @property
    def client_context(self) -> ssl.SSLContext:
        """The TLS context of the dialer, with the anchors of now."""
        return self._client

    @property
    def certificate(self) -> bytes:
        """This pod's certificate (DER)."""
        return self._certificate

    async def learn(self, records: Iterable[bytes], sender: PodId | None) -> list[bytes]:
        """Add records; return the new ones once they are durable, told to the others, and in effect."""
        batch = list(records)
        async with self._writing:
            added = self.roster.add_all(batch)
            if sender is not None and len(added) < len(batch):
                self._complain(sender, batch)
            if added:
                try:
                    with anyio.CancelScope(shield=True):
                        await anyio.to_thread.run_sync(self._store.persist, added)
                except MachineError as error:
                    self._failed = error
                    raise
                self._share(sender)
        return added

    def _complain(self, sender: PodId, batch: Iterable[bytes]) -> None:
        """Log what a pod should not have sent, once for each reason."""
        for reason in dict.fromkeys(filter(None, (refusal(self.roster, record) for record in batch))):
            self._quiet.warning(f"{sender} {reason}", f"a record of the roster from {sender} was refused: {reason}")

    def notice(self) -> None:
        """Share records that were added to the store directly (durable already).

        Raises the `MachineError` that kept records from the disk: this pod must stop, since it knows what it would
        forget.
        """
        if self._failed is not None:
            raise self._failed
        if len(self.roster) != self._told and not self._writing.locked():
            self._share(None)

    def due(self) -> float:
        """Return when `tick` has something to do, unless records come or a link does before."""
        if self._failed is not None or len(self.roster) != self._told:
            return float("-inf")
        return self._digest_at if any(True for _ in self._linked()) else float("inf")

    def tick(self, now: float) -> None:
        """Do what is due: share what is new, compare with one linked pod now and then."""
        self.notice()
        linked = sorted(self._linked())
        if linked and now >= self._digest_at:
            self._digest_at = now + DIGEST_INTERVAL_S
            self._digest_turn += 1
            self._tell(linked[self._digest_turn % len(linked)], Tag.ROSTER, {"digest": self.roster.digest()})

    def records_in(self, sender: PodId, body: Any) -> list[bytes]:
        """Take a ROSTER message: answer it, and return the records in it, to be given to `learn`.

        While records are on their way to the disk nothing is answered; the next comparison repairs that.
        """
        if isinstance(body, dict) and isinstance(records := body.get("records"), list):
            return [record for record in records if isinstance(record, bytes)]
        if self._writing.locked() or self._failed is not None:
            return []
        match body:
            case {"digest": bytes(digest)}:
                if digest != self.roster.digest():
                    self._tell(sender, Tag.ROSTER, {"ids": self.roster.ids(), "ask": True})
            case {"ids": bytes(ids), "ask": bool(ask)} if len(ids) % ID_BYTES == 0:
                if ask and self.roster.lacks_any(ids):
                    self._tell(sender, Tag.ROSTER, {"ids": self.roster.ids(), "ask": False})
                self._send(sender, list(self.roster.missing_in(ids)))
        return []

    def _send(self, pod: PodId, records: list[bytes]) -> None:
        if records:
            for page, _ in pages(records):
                self._tell(pod, Tag.ROSTER, {"records": page})

    def _share(self, sender: PodId | None) -> None:
        fresh = self.roster.since(self._told)
        self._told += len(fresh)
        for pod in self._linked():
            if pod != sender:
                self._send(pod, fresh)
        self._rebuild()
        self._changed()

    def _rebuild(self) -> None:
        """Make the contexts anew when the anchors changed; a full pod whose issuer was evicted certifies itself."""
        anchors, issuers = self.roster.anchors(), tuple(self.roster.issuers())
        known = (*anchors, b"", *issuers)
        if known == self._contexts_for:
            return
        self._certificate = self._identity.certificate()
        info = read_certificate(self._certificate)
        if not self.roster.is_issuer(info.issuer) and self.roster.is_full_member(info.pod) and self._identity.can_issue:
            pem = self._identity.issue(self._identity.public_key, self.roster.cluster_id, info.role)
            try:
                self._identity.install_certificate(pem)
            except OSError as error:
                raise MachineError(f"The new certificate can't be written: {error.strerror}.") from error
            self._certificate = self._identity.certificate()
        self._server = tls.server_context(self._identity, issuers)
        self._client = tls.client_context(self._identity, issuers)
        self._contexts_for = known

    @property
    def certificate_hash(self) -> bytes:
        """BLAKE3 of this pod's certificate, which join codes confirm."""
        return hash_bytes(self._certificate)
