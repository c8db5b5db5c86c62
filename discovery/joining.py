"""The joiner's side: find the pod to ask, run the protocol, check what it answered, leave a complete home or nothing.

The same keys are used for every try within one call, so that a try whose answer was lost can be repeated: the issuer
answers the same joiner again.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import anyio
from anyio import to_thread
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from base.errors import DamagedError, RefusedError, UnreachableError, WormholeError
from base.home import Home
from base.ids import ClusterId, PodId
from discovery.code import Code, parse_code
from discovery.draft import drafted, has_pod
from discovery.join_messages import Answer, Reason, Request
from discovery.join_protocol import Admission, JoinerSide, JoinRefusedError
from discovery.mdns import browse
from discovery.names import checked_name, name_from_host
from discovery.nearby import cluster_without_code, clusters_of, issuer_of
from discovery.refusals import refusal_error
from discovery.waiting import ASK_EVERY_S
from mesh.address import parse_address
from mesh.api import Role
from mesh.channel import ConnectionLostError
from mesh.identity import ISSUING_CERTIFICATE, ISSUING_KEY, Identity, read_certificate
from mesh.join_stream import JoinStream, open_join
from mesh.records import is_id, issuer_name
from mesh.roster_store import RosterStore, Seen
from mesh.wire import ProtocolError, Tag

SEARCH_S: Final = 10.0
"""How long the issuer of a code is looked for on the network."""
LOOK_AROUND_S: Final = 3.0
"""How long clusters are collected when there is no code."""
CONNECT_S: Final = 5.0
MAX_TRIES: Final = 24
"""Conversations begun in one join, all addresses, redirections and repetitions together."""
MAX_REPEATS: Final = 6
APPROVAL_S: Final = 300.0
"""How long a joiner waits to be approved."""
_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Joined:
    """What came of a join."""

    cluster: str
    cluster_id: ClusterId
    pod: PodId
    pod_name: str
    role: Role
    issuer: PodId
    addresses: tuple[tuple[str, PodId], ...]
    """Where pods of the cluster answer, the one that admitted this pod first; the roster store remembers them, too."""


async def join(
    home: Home,
    *,
    name: str | None = None,
    code: str | None = None,
    peer: str | None = None,
    pod_name: str | None = None,
    client: bool = False,
    timeout_s: float = 30.0,
    only: str | None = None,
    progress: Callable[[str], None] = lambda text: None,
    check: Callable[[ClusterId], None] = lambda cluster: None,
    awaited: Callable[[PodId], None] = lambda pod: None,
) -> Joined:
    """Join a cluster and leave identity and roster in ``home``; on any error nothing is left.

    ``name`` is a cluster's name or id, ``peer`` a ``HOST:PORT`` to ask instead of searching, ``pod_name`` defaults to
    the host's, ``only`` limits the search to the interface of that address, ``progress`` is told what goes on,
    ``check`` may refuse, by an error, the cluster that the search found, before anybody there is asked. ``awaited`` is
    told this pod's id once it is known that somebody must approve it, which gives it five minutes more.

    Raises `UsageError` (2) for bad arguments, several clusters, or a missing code; `NotFoundError` (3) when nothing is
    found; `RefusedError` (4) when the code or the cluster says no, or the home has a pod; `UnreachableError` (5) when
    nobody answers in time; `DamagedError` (8) when the answer contradicts itself; `MachineError` (9).
    """
    if has_pod(home):
        raise RefusedError(f"There is a pod in {home.path} already: it has joined.", "Start it with `wormhole up`.")
    parsed = parse_code(code) if code is not None else None
    name = checked_name(name, "cluster") if name is not None else None
    wanted = name_from_host(socket.gethostname()) if pod_name is None else checked_name(pod_name, "pod")
    if peer is not None:
        parse_address(peer)
    patience = _Patience(awaited)
    try:
        with anyio.fail_after(timeout_s) as patience.scope:
            endpoints = [peer] if peer is not None else await _search(parsed, name, only, progress, check)
            with drafted(home) as draft:
                return await _join_as_new(draft, endpoints, parsed, wanted, client, name, progress, patience)
    except TimeoutError:
        if patience.refused is not None:
            raise patience.refused from None
        raise UnreachableError(
            f"The join did not come to an end within {timeout_s:g} s.", "Check the network and try again."
        ) from None


async def _search(
    code: Code | None,
    name: str | None,
    only: str | None,
    progress: Callable[[str], None],
    check: Callable[[ClusterId], None],
) -> list[str]:
    """Return the addresses to ask, the best first."""
    if code is None:
        progress("Looking for clusters on the network")
        named = name is not None and is_id(name)  # of one name there may be several clusters; so all are waited for
        found = await browse(LOOK_AROUND_S, only=only, enough=lambda one: named and one.cluster_id == name)
        cluster = cluster_without_code(clusters_of(found), name, check)
        return [endpoint for service in cluster.pods for endpoint in service.endpoints]
    progress("Looking for the pod that issued the code")
    services = await browse(SEARCH_S, only=only, enough=lambda service: service.tag == code.tag)
    issuers = issuer_of(services, code, name)
    check(issuers[0].cluster_id)
    progress(f"Found {issuers[0].pod_name} of the cluster {issuers[0].cluster_name}")
    return [endpoint for service in issuers for endpoint in service.endpoints]


async def _join_as_new(
    draft: Home,
    endpoints: list[str],
    code: Code | None,
    wanted: str,
    client: bool,
    name: str | None,
    progress: Callable[[str], None],
    patience: _Patience,
) -> Joined:
    role = Role.CLIENT if client else Role.FULL
    identity = await to_thread.run_sync(lambda: Identity.create(draft.identity, role=role))
    request = Request(identity.public_key, identity.issuing_certificate or b"", wanted, role, name or "")
    admission, endpoint = await _Conversations(code, request, identity, progress, patience).run(endpoints)
    answer = admission.answer
    if name is not None and name not in (answer.cluster_name, answer.cluster):
        raise DamagedError(f"The pod at {endpoint} answered for another cluster than {name}.")
    progress(f"Admitted to {answer.cluster_name} as {answer.pod_name}")
    await to_thread.run_sync(_settle, draft, identity, request, admission, endpoint)
    addresses = ((endpoint, answer.issuer), *(pair for pair in answer.addresses if pair[1] != answer.issuer))
    return Joined(
        answer.cluster_name, answer.cluster, identity.pod_id, answer.pod_name, answer.role, answer.issuer, addresses
    )


class _Patience:
    """How long the join may take; more once it is known that somebody must approve it."""

    def __init__(self, awaited: Callable[[PodId], None]) -> None:
        self._awaited = awaited
        self.scope = anyio.CancelScope()
        self.refused: WormholeError | None = None
        """What is said when nobody approved it."""

    def wait_for_approval(self, pod: PodId, refused: WormholeError) -> None:
        """Take note that somebody must approve this pod."""
        if self.refused is None:
            self.scope.deadline = anyio.current_time() + APPROVAL_S
            self._awaited(pod)
        self.refused = refused


class _TurnedAwayError(UnreachableError):
    """The other side closed the connection with an error of its own: as a rule, too many are joining."""


class _Conversations:
    """Asks one address after the other until one admits; follows redirections; repeats what was lost."""

    def __init__(
        self,
        code: Code | None,
        request: Request,
        identity: Identity,
        progress: Callable[[str], None],
        patience: _Patience,
    ) -> None:
        self._patience = patience
        self._code = code
        self._request = request
        self._identity = identity
        self._progress = progress
        self._proved = False

    async def run(self, endpoints: list[str]) -> tuple[Admission, str]:
        waiting, asked, repeats = list(dict.fromkeys(endpoints)), set[str](), 0
        failure: WormholeError = UnreachableError("There is no address to ask.")
        tries = 0
        while waiting and tries < MAX_TRIES:
            endpoint = waiting.pop(0)
            asked.add(endpoint)
            tries += 1
            try:
                return await self._talk(endpoint), endpoint
            except JoinRefusedError as error:
                refusal = error.refusal
                failure = refusal_error(refusal, endpoint, self._request.pod_name)
                if refusal.reason is Reason.OTHER_ISSUER and refusal.address and refusal.address not in asked:
                    self._progress(f"The code was issued by {refusal.pod_name or 'another pod'} at {refusal.address}")
                    waiting.insert(0, refusal.address)
                    continue
                if refusal.reason is Reason.WAITING:
                    self._patience.wait_for_approval(self._request.pod, failure)
                    waiting, tries = [endpoint, *waiting], 0
                    await anyio.sleep(ASK_EVERY_S)
                    continue
                if refusal.reason is Reason.NOT_ADMINISTRATOR and waiting:
                    continue
                again = refusal.reason is Reason.BUSY
                if not again:
                    raise failure from None
            except UnreachableError as error:
                failure, again = error, self._proved or isinstance(error, _TurnedAwayError)
                if self._patience.refused is not None:  # who was asked is away: it may come back, others may answer
                    waiting, tries = [*waiting, endpoint], 0
                    await anyio.sleep(ASK_EVERY_S)
                    continue
            if again and repeats < MAX_REPEATS:  # it may have been admitted already; the same key gets the same answer
                waiting.insert(0, endpoint)
                pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**repeats)
                await anyio.sleep(pause_s * random.uniform(0.5, 1.5))
                repeats += 1
        raise failure

    async def _talk(self, endpoint: str) -> Admission:
        host, port = parse_address(endpoint)
        self._proved = False
        async with await open_join(host, port, CONNECT_S) as stream:
            side = JoinerSide(self._code, self._request, self._identity.sign, stream.server_certificate_hash)
            try:
                await stream.send(*side.start())
                while True:
                    outcome = side.receive(*await _message(stream, endpoint))
                    if isinstance(outcome, Admission):
                        return outcome
                    if outcome is not None:
                        await stream.send(*outcome)
            except UnreachableError:
                self._proved = side.proved
                raise


async def _message(stream: JoinStream, endpoint: str) -> tuple[Tag, dict[str, Any]]:
    try:
        return await stream.receive()
    except (ConnectionLostError, ProtocolError):
        raise
    except WormholeError as error:  # what it closed the connection with: a stranger's words, which aren't shown
        raise _TurnedAwayError(
            f"The pod at {endpoint} closed the connection before the join was done.",
            "Try again in a minute; the log of the pod there says why.",
        ) from error


def _settle(draft: Home, identity: Identity, request: Request, admission: Admission, endpoint: str) -> None:
    """Check the answer against itself and write it down. Raises `DamagedError`."""
    answer = admission.answer
    if answer.role is Role.FULL and request.role is Role.CLIENT:
        raise DamagedError("The answer makes a full pod of one that asked to be a client.")
    store = RosterStore(draft.roster_db)
    try:
        store.add(admission.roster)
        _check(store, identity, answer)
        now = time.time()
        addresses = {pod: address for address, pod in answer.addresses if pod != identity.pod_id}
        addresses[answer.issuer] = endpoint
        store.remember([(pod, Seen(address, now)) for pod, address in addresses.items()])
    finally:
        store.close()
    identity.install_certificate(answer.certificate)
    if answer.role is Role.CLIENT:
        for file in (ISSUING_KEY, ISSUING_CERTIFICATE):
            (identity.directory / file).unlink(missing_ok=True)


def _check(store: RosterStore, identity: Identity, answer: Answer) -> None:
    roster = store.roster
    entry, issuer = roster.entry(identity.pod_id), roster.entry(answer.issuer)
    if roster.cluster_id != answer.cluster or roster.cluster_name != answer.cluster_name:
        raise DamagedError("The answer names another cluster than its records.")
    if entry is None or issuer is None or issuer.issuing is None or not roster.is_member(identity.pod_id):
        raise DamagedError("The answer does not contain the admission of this pod.")
    if (entry.name, entry.role) != (answer.pod_name, answer.role):
        raise DamagedError("The answer gives this pod another name or role than its records.")
    try:
        certificate = x509.load_pem_x509_certificate(answer.certificate)
        certificate.verify_directly_issued_by(x509.load_der_x509_certificate(issuer.issuing))
        info = read_certificate(certificate.public_bytes(Encoding.DER))
    except (ValueError, TypeError, InvalidSignature) as error:
        raise DamagedError("The certificate in the answer is not one of the pod that issued the code.") from error
    right = (answer.cluster, identity.pod_id, answer.role, identity.public_key, issuer_name(answer.issuer))
    if (info.cluster, info.pod, info.role, info.public_key, info.issuer) != right:
        raise DamagedError("The certificate in the answer is about something else.")
