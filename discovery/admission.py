"""The issuer's side of a join: makes codes, decides who may come in, and writes it down before it answers.

Order of things, each durable before the next: the attempt is counted, the proof compared, the use of the code noted
for this joiner, the admission record written, the answer sent. So a crash anywhere costs at most a use of the code, and
the joiner that asks again with the same key gets the same answer. Redeeming happens for one joiner at a time.

Must never answer a right proof differently from a wrong one before the attempt is on the disk.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import anyio
from anyio import to_thread

from base.errors import DamagedError, MachineError, RefusedError, UnreachableError, UsageError, WormholeError
from base.home import Home
from base.ids import PodId
from discovery.code import issuer_tag
from discovery.code_store import CodeStore, Issued
from discovery.fingerprint import fingerprint
from discovery.join_messages import (
    MAX_ADDRESSES,
    ROSTER_BYTES,
    Answer,
    Reason,
    Refusal,
    Request,
    is_address,
    pack_roster,
)
from discovery.join_protocol import IssuerSide, RefuseError
from discovery.names import free_name
from discovery.rate import KnockRate
from discovery.refusals import ADMISSION_ADVICE
from discovery.waiting import Waiting, WaitingRoom
from mesh.api import Role
from mesh.identity import Identity
from mesh.join_stream import JoinStream
from mesh.quiet import QuietLog
from mesh.records import Admit, seal
from mesh.roster import Roster
from mesh.roster_store import RosterStore
from mesh.wire import Tag

logger = logging.getLogger(__name__)

SERVE_S: Final = 20.0
"""Deadline of one join, from the first message to the answer."""
MAX_USES: Final = 10_000
NO_ADMINISTRATOR: Final = "Nobody who may is left; `wormhole recover` with the recovery key helps."
MAX_EXPIRES_S: Final = 30 * 86_400.0
MIN_EXPIRES_S: Final = 1.0
ADDRESSES_SENT: Final = 16


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """What cluster.toml says about admission."""

    mode: str = "code"
    """``open``, ``code``, ``approve`` or ``closed``."""
    allow: Sequence[str] = ()
    """Pod names or ids; when not empty, only these."""
    deny: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Invite:
    """A code that was issued."""

    code: str
    expires: float
    """Wall-clock seconds since the epoch."""
    uses: int
    role: Role


class Admissions:
    """Issues codes and serves joins for one pod; `serve` is the join handler of its mesh node."""

    def __init__(
        self,
        home: Home,
        identity: Identity,
        store: RosterStore,
        *,
        policy: Callable[[], AdmissionPolicy],
        addresses: Callable[[], Mapping[PodId, str]] = dict,
        learn: Callable[[Iterable[bytes]], Awaitable[list[bytes]]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the file of codes.

        ``policy`` is asked at each join, ``addresses`` for where members were last reached (``HOST:PORT``),
        ``learn`` adds records to ``store`` so that they are durable when it returns (`MeshNode.learn`, which also tells
        the other pods; without it only the store is written), ``clock`` is the wall clock in seconds.
        Raises `MachineError` or `DamagedError` when the file can't be used.
        """
        self._identity = identity
        self._store = store
        self._policy = policy
        self._addresses = addresses
        self._learn = learn or self._write
        self._clock = clock
        self._codes = CodeStore(home.codes_db)
        self._tag = issuer_tag(store.roster.cluster_id, identity.pod_id)
        self._redeeming = anyio.Lock()
        self._not_durable: set[PodId] = set()
        """Admitted in memory while the disk failed: they must not be answered, now or later."""
        self._rate = KnockRate()
        self._room = WaitingRoom()
        self._quiet = QuietLog(logger, time.monotonic)

    def close(self) -> None:
        """Close the file of codes."""
        self._codes.close()

    async def invite(self, uses: int = 1, expires_s: float = 600.0, role: Role = Role.FULL) -> Invite:
        """Issue a code.

        Raises `UsageError` for impossible values, `RefusedError` when this pod may not admit or the cluster takes
        nobody in, `MachineError` when it can't be written.
        """
        if not 1 <= uses <= MAX_USES:
            raise UsageError("A code can be used 1 to 10,000 times.", "Give another `--uses`.")
        if not MIN_EXPIRES_S <= expires_s <= MAX_EXPIRES_S:
            raise UsageError("A code lives for a second to 30 days.", "Give another `--expires`.")
        roster = self._store.roster
        if not self._may_admit():
            raise self._may_not()
        mode = self._policy().mode
        if mode in ("closed", "approve"):
            raise RefusedError(
                f'The cluster {roster.cluster_name} does not admit by code: its admission is "{mode}".',
                f"`wormhole join {roster.cluster_name}` there, then `wormhole requests` here."
                if mode == "approve"
                else ADMISSION_ADVICE,
            )
        now = self._clock()
        issued = await to_thread.run_sync(self._codes.issue, self._tag, role, uses, now + expires_s, now)
        return Invite(str(issued.code), issued.expires, uses, role)

    async def serve(self, stream: JoinStream) -> None:
        """Talk to one joiner until it is admitted or refused. Raises nothing but cancellation."""
        if not self._rate.allow(stream.peer_host, anyio.current_time()):
            await self._turn_away(stream)
            return
        with anyio.move_on_after(SERVE_S) as deadline:
            await self._serve(stream)
        if deadline.cancelled_caught:
            self._log(stream, "silent", "said nothing for too long")

    async def _serve(self, stream: JoinStream) -> None:
        try:
            await self._converse(stream)
            self._rate.forgive(stream.peer_host)
        except RefuseError as error:
            if error.refusal.reason is Reason.WAITING:
                self._rate.forgive(stream.peer_host)
                await self._refuse(stream, error.refusal)
                return
            self._log(stream, error.refusal.reason.value, f"was refused: {error.refusal.reason.value}")
            await self._refuse(stream, error.refusal)
        except UnreachableError as error:
            logger.debug("a join from %s broke off: %s", stream.peer_host, error.message)
        except DamagedError as error:
            self._log(stream, "malformed", f"was refused: {error.message}")
            await self._refuse(stream, Refusal(Reason.MALFORMED))
        except WormholeError as error:
            self._log(stream, "failed", f"failed here: {error}")
            await self._refuse(stream, Refusal(Reason.FAILED))

    async def _converse(self, stream: JoinStream) -> None:
        roster = self._store.roster
        side = IssuerSide(roster.cluster_id, self._identity.pod_id, stream.server_certificate_hash)
        tag, body = await stream.receive()
        request, public = await to_thread.run_sync(side.start, tag, body)
        self._check_allowed(request, with_code=public is not None)
        if public is None:
            self._await_approval(request, stream.peer_host)
            async with self._redeeming:
                answer, records = await self._admit(request, request.role, trusted=False)
        else:
            number = self._own_number(public)
            issued = await self._usable(number, request.pod)
            await stream.send(*await to_thread.run_sync(side.challenge, issued.code))
            side.confirm(*await stream.receive())
            async with self._redeeming:
                issued = await self._usable(number, request.pod)
                await to_thread.run_sync(self._codes.count_attempt, number)
                if not side.proved():
                    left = issued.attempts_left - 1
                    raise self._refusal(Reason.WRONG_CODE if left else Reason.VOID_CODE, left=left)
                self._check_allowed(request, with_code=True)
                await to_thread.run_sync(self._codes.redeem, number, request.pod)
                narrow = Role.CLIENT in (request.role, issued.role)
                answer, records = await self._admit(request, Role.CLIENT if narrow else Role.FULL)
        for message in side.admit(answer, records):
            await stream.send(*message)

    # -- approval

    def _await_approval(self, request: Request, host: str) -> None:
        """Where pods are approved one by one, raise `RefuseError` until this one is."""
        if self._policy().mode != "approve" or self._store.roster.entry(request.pod) is not None:
            self._room.admitted(request.pod)
            return
        now_s = anyio.current_time()
        if self._room.is_denied(request.pod, now_s):
            raise self._refusal(Reason.DENIED)
        new = self._room.ask(request, host, now_s)
        if new is None:
            raise self._refusal(Reason.TOO_MANY)
        if new:
            name, mark = self._name_for(request), fingerprint(request.pod)
            logger.info("%s at %s asks to join as %s; its fingerprint: %s", request.pod, host, name, mark)
        raise self._refusal(Reason.WAITING)

    def waiting(self) -> list[Waiting]:
        """Return who asked this pod and waits for approval, the longest first."""
        return [
            one for one in self._room.waiting(anyio.current_time()) if self._store.roster.entry(one.request.pod) is None
        ]

    async def approve(self, request: Request) -> str:
        """Admit a pod that waits, here or at another pod, which then answers it; return its name.

        Raises `RefusedError` when this pod may not, `MachineError` when it can't be written.
        """
        if not self._may_admit():
            raise self._may_not()
        if not self._policy().mode == "approve":
            raise RefusedError("Pods are not approved one by one any more.", "`wormhole config get cluster.admission`")
        async with self._redeeming:
            entry = self._store.roster.entry(request.pod)
            if entry is None:
                await self._write_down(request, request.role, trusted=True)
                entry = self._store.roster.entry(request.pod)
        self._room.admitted(request.pod)
        return entry.name if entry else request.pod_name

    def deny(self, pod: PodId) -> None:
        """Turn away a pod that waits."""
        self._room.deny(pod, anyio.current_time())

    # -- who may

    def _may_not(self) -> RefusedError:
        roster = self._store.roster
        admins = sorted(entry.name for pod, entry in roster.pods().items() if roster.is_admin(pod))
        return RefusedError(
            "This pod may not admit others.", f"Type it on {' or '.join(admins[:5])}." if admins else NO_ADMINISTRATOR
        )

    def _may_admit(self) -> bool:
        return self._identity.can_issue and self._store.roster.is_admin(self._identity.pod_id)

    def _check_allowed(self, request: Request, *, with_code: bool) -> None:
        """Raise `RefuseError` unless the configuration lets this pod in."""
        policy, roster = self._policy(), self._store.roster
        if not self._may_admit():
            raise self._refusal(Reason.NOT_ADMINISTRATOR)
        entry = roster.entry(request.pod)
        if entry is not None and not roster.is_member(request.pod):
            raise self._refusal(Reason.REVOKED)
        names = {request.pod_name, self._name_for(request), str(request.pod)}
        allowed = not policy.allow or self._name_for(request) in policy.allow or request.pod in policy.allow
        if not allowed or names & set(policy.deny):
            raise self._refusal(Reason.NOT_ALLOWED)
        if request.cluster not in ("", roster.cluster_name, roster.cluster_id):
            raise self._refusal(Reason.OTHER_CLUSTER)
        if policy.mode == "closed":
            raise self._refusal(Reason.CLOSED)
        if policy.mode == "approve" and with_code:
            raise self._refusal(Reason.APPROVAL_NEEDED)
        if policy.mode == "code" and not with_code:
            raise self._refusal(Reason.CODE_NEEDED)

    def _own_number(self, public: tuple[str, str]) -> str:
        """Return the number of a code of this pod; raise `RefuseError` that names the issuer of another one."""
        tag, number = public
        if tag == self._tag:
            return number
        roster = self._store.roster
        for pod, entry in roster.pods().items():
            if roster.is_admin(pod) and issuer_tag(roster.cluster_id, pod) == tag:
                address = self._addresses().get(pod, "")
                raise RefuseError(Refusal(Reason.OTHER_ISSUER, roster.cluster_name, entry.name, address))
        raise self._refusal(Reason.UNKNOWN_CODE)

    async def _usable(self, number: str, pod: PodId) -> Issued:
        issued = await to_thread.run_sync(self._codes.find, number)
        if issued is None or issued.code.tag != self._tag:
            raise self._refusal(Reason.UNKNOWN_CODE)
        ended = issued.ended(pod, self._clock())
        if ended is not None:
            raise self._refusal(ended)
        return issued

    # -- letting in

    async def _admit(self, request: Request, role: Role, *, trusted: bool = True) -> tuple[Answer, list[bytes]]:
        """Write the admission down, durably, unless it is there; return the answer and the records that go with it.

        ``trusted``: whether a person let it in, by a code or by approving it.
        """
        roster, identity = self._store.roster, self._identity
        entry = roster.entry(request.pod)
        if entry is None:
            await self._write_down(request, role, trusted=trusted)
            entry = roster.entry(request.pod)
        if request.pod in self._not_durable:
            raise MachineError("The admission of this pod could not be written.", "Restart this pod.")
        if entry is None or not roster.is_member(request.pod):
            raise DamagedError("The admission was not accepted by this pod's own roster.")
        certificate = identity.issue(request.public_key, roster.cluster_id, entry.role)
        own = roster.entry(identity.pod_id)
        answer = Answer(
            roster.cluster_id,
            roster.cluster_name,
            identity.pod_id,
            own.name if own else "",
            certificate,
            entry.name,
            entry.role,
            self._addresses_for(request.pod),
            0,
            b"",
        )
        return answer, _records_for(roster, request.pod)

    async def _write_down(self, request: Request, role: Role, *, trusted: bool) -> None:
        roster, identity = self._store.roster, self._identity
        admit = Admit(
            self._name_for(request),
            role,
            request.public_key,
            request.issuing if role is Role.FULL else None,
            roster.next_order(),
            time.time_ns(),
            trusted,
        )
        record = seal(admit, roster.cluster_id, identity.pod_id, identity.sign)
        self._not_durable.add(request.pod)
        await self._learn([record])
        self._not_durable.discard(request.pod)

    async def _write(self, records: Iterable[bytes]) -> list[bytes]:
        added = self._store.roster.add_all(records)
        await to_thread.run_sync(self._store.persist, added)
        return added

    def _name_for(self, request: Request) -> str:
        """Return the name that a joiner gets: the one it has, or the one it wants, made unique among the members."""
        roster = self._store.roster
        entry = roster.entry(request.pod)
        if entry is not None:
            return entry.name
        return free_name(
            request.pod_name, {other.name for pod, other in roster.pods().items() if roster.is_member(pod)}
        )

    def _addresses_for(self, joiner: PodId) -> tuple[tuple[str, PodId], ...]:
        known = [
            (address, pod)
            for pod, address in self._addresses().items()
            if pod != joiner and is_address(address) and self._store.roster.is_member(pod)
        ]
        return tuple(known[: min(ADDRESSES_SENT, MAX_ADDRESSES)])

    # -- saying no

    def _refusal(self, reason: Reason, *, left: int = -1) -> RefuseError:
        roster = self._store.roster
        own = roster.entry(self._identity.pod_id)
        return RefuseError(Refusal(reason, roster.cluster_name, own.name if own else "", attempts_left=left))

    async def _turn_away(self, stream: JoinStream) -> None:
        """Say that there is no time for this joiner. What it said is read first: unread, it would reset the link."""
        try:
            with anyio.move_on_after(2.0):
                await stream.receive()
        except (UnreachableError, DamagedError, RefusedError):
            return
        await self._refuse(stream, Refusal(Reason.BUSY))

    async def _refuse(self, stream: JoinStream, refusal: Refusal) -> None:
        tag, body = refusal.message()
        assert tag is Tag.JOIN_REFUSED
        try:
            with anyio.move_on_after(2.0):
                await stream.send(tag, body)
        except (UnreachableError, DamagedError) as error:
            logger.debug("a refusal did not arrive: %s", error.message)

    def _log(self, stream: JoinStream, key: str, what: str) -> None:
        self._quiet.warning(f"{stream.peer_host} {key}", f"a join from {stream.peer_host} {what}")


def _records_for(roster: Roster, joiner: PodId) -> list[bytes]:
    """Return roster records for a joiner: what proves its admission first, then as many others as fit."""
    chosen = dict.fromkeys(roster.proof(joiner))
    size = len(pack_roster(list(chosen)))
    if size > ROSTER_BYTES:
        raise RefusedError("The chain of admissions to this pod is too long to be sent.", "Invite from an older pod.")
    for record in roster.records():
        if record not in chosen and size + len(record) + 4 <= ROSTER_BYTES:
            chosen[record] = None
            size += len(record) + 4
    return list(chosen)
