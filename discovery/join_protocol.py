"""Both sides of a join as state machines without I/O. Theory of operation:

```
joiner                                                    issuer
JOIN_START  version, code (public part or ""), request, signature, pake ->
                                                          looks the code up; nothing is known of its secret yet
            <- JOIN_PAKE  cluster, pod, pake
JOIN_CONFIRM  proof ->                                    counts the attempt durably, only then compares the proof
            <- JOIN_ADMITTED  answer, proof               the admission is durable before this is sent
            <- JOIN_ADMITTED  page        (repeated until the roster is complete)
```

Without a code (a cluster whose admission is *open*) PAKE and CONFIRM are left out and the proofs are empty; the joiner
then knows the cluster no better than the address it asked. At any point the issuer may say JOIN_REFUSED instead.

- The request is signed by the joiner's pod key together with the public part of the code and the hash of the server's
  certificate: nobody can ask in another pod's name, and a request can't be replayed at another server.
- Both proofs cover the transcript, see `discovery.pake`. A man in the middle makes the issuer's comparison fail; if he
  answers himself, the joiner's fails.
- The issuer's proof covers the answer, the answer the hash of the roster.

Errors: `DamagedError` when the other side breaks the protocol, `RefusedError` when it says no or can't prove that it
knows the code. A machine that raised is finished. Calling a method out of turn is a programming error (AssertionError).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from base.errors import DamagedError, RefusedError
from base.ids import ClusterId, PodId, hash_bytes
from discovery.code import Code, issuer_tag, parse_public
from discovery.join_messages import (
    JOIN_VERSION,
    PAGE_BYTES,
    REQUEST_BYTES,
    ROSTER_BYTES,
    Answer,
    Message,
    Reason,
    Refusal,
    Request,
    field,
    pack_roster,
    unpack_roster,
)
from discovery.pake import (
    CONFIRMATION_BYTES,
    PAKE_MESSAGE_BYTES,
    Pake,
    issuer_proof,
    joiner_proof,
    same,
    transcript_hash,
)
from mesh import records
from mesh.wire import Tag

_SIGNED_PREFIX: Final = b"wormhole join request 1\0"
CERTIFICATE_HASH_BYTES: Final = 32


class JoinRefusedError(RefusedError):
    """The issuer said no; `refusal` says why, for the caller to word."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__("The join was refused.")
        self.refusal = refusal


class RefuseError(Exception):
    """The issuer's side: this request must be answered with ``refusal``; nothing is wrong with the issuer."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason.value)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Admission:
    """What the joiner ends with: the proven answer and the roster's records."""

    answer: Answer
    roster: tuple[bytes, ...]


class _Joiner(Enum):
    NEW = auto()
    AWAITS_PAKE = auto()
    AWAITS_ANSWER = auto()
    AWAITS_PAGES = auto()
    DONE = auto()
    FAILED = auto()


class JoinerSide:
    """The new pod's side. `start`, then `receive` each message, until it returns an `Admission`.

    ``sign`` signs with the pod's key; ``certificate_hash`` is that of the certificate that the server showed in TLS.
    """

    def __init__(
        self, code: Code | None, request: Request, sign: Callable[[bytes], bytes], certificate_hash: bytes
    ) -> None:
        self._code = code
        self._request = request.pack()
        self._sign = sign
        self._certificate_hash = certificate_hash
        self._pake: Pake | None = None
        self._key = b""
        self._transcript = b""
        self._cluster: tuple[ClusterId, PodId] | None = None
        self._answer: Answer | None = None
        self._pages = bytearray()
        self._state = _Joiner.NEW

    @property
    def proved(self) -> bool:
        """Whether the joiner has sent its proof (or, without a code, its request): it may be admitted by now."""
        return self._state in (_Joiner.AWAITS_ANSWER, _Joiner.AWAITS_PAGES)

    def start(self) -> Message:
        """Return the first message."""
        assert self._state is _Joiner.NEW
        self._state = _Joiner.AWAITS_ANSWER
        pake = b""
        if self._code is not None:
            self._pake = Pake(self._code, joiner=True)
            pake = self._pake.message
            self._state = _Joiner.AWAITS_PAKE
        public = self._code.public if self._code else ""
        return Tag.JOIN_START, {
            "version": JOIN_VERSION,
            "code": public,
            "request": self._request,
            "signature": self._sign(_signed(self._certificate_hash, public, self._request)),
            "pake": pake,
        }

    def receive(self, tag: int, body: object) -> Message | Admission | None:
        """Take a message; return the one to send, the end of it all, or None to wait for more.

        Raises `JoinRefusedError`, `RefusedError` or `DamagedError`, after which this machine is finished.
        """
        state, self._state = self._state, _Joiner.FAILED
        if tag == Tag.JOIN_REFUSED:
            raise JoinRefusedError(Refusal.read(body))
        match state, tag:
            case _Joiner.AWAITS_PAKE, Tag.JOIN_PAKE:
                return self._confirm(body)
            case _Joiner.AWAITS_ANSWER, Tag.JOIN_ADMITTED:
                self._read_answer(body)
                return None
            case _Joiner.AWAITS_PAGES, Tag.JOIN_ADMITTED:
                return self._read_page(body)
        raise DamagedError("The other side does not follow the join protocol.")

    def _confirm(self, body: object) -> Message:
        assert self._code is not None
        assert self._pake is not None
        theirs = field(body, "pake", PAKE_MESSAGE_BYTES)
        match body:
            case {"cluster": str(cluster), "pod": str(pod)} if records.is_id(cluster) and records.is_id(pod):
                self._cluster = ClusterId(cluster), PodId(pod)
            case _:
                raise DamagedError("The other side does not say which cluster it is.")
        if issuer_tag(*self._cluster) != self._code.tag:
            raise RefusedError("The pod that answered is not the one that issued this code.")
        self._key = self._pake.finish(theirs)
        self._transcript = _transcript(
            self._code.public, *self._cluster, self._certificate_hash, self._request, self._pake.message, theirs
        )
        self._state = _Joiner.AWAITS_ANSWER
        return Tag.JOIN_CONFIRM, {"proof": joiner_proof(self._key, self._transcript)}

    def _read_answer(self, body: object) -> None:
        packed = field(body, "answer")
        if self._code is not None:
            proof = field(body, "proof", CONFIRMATION_BYTES)
            if not same(proof, issuer_proof(self._key, self._transcript, packed)):
                raise RefusedError(
                    "The other side could not prove that it knows the join code; it may not be the pod that issued it.",
                    "Check that nobody interferes with this network, then make a new code with `wormhole invite`.",
                )
        self._answer = Answer.unpack(packed)
        if self._cluster is not None and (self._answer.cluster, self._answer.issuer) != self._cluster:
            raise DamagedError("The answer to the join request is about another cluster.")
        self._state = _Joiner.AWAITS_PAGES

    def _read_page(self, body: object) -> Admission | None:
        assert self._answer is not None
        page = field(body, "page")
        last = len(self._pages) + len(page) == self._answer.roster_length
        if len(page) > PAGE_BYTES or (len(page) < PAGE_BYTES and not last):
            raise DamagedError("The answer to the join request has a page of the wrong length.")
        if len(self._pages) + len(page) > self._answer.roster_length:
            raise DamagedError("The answer to the join request has more pages than it announced.")
        self._pages += page
        if len(self._pages) < self._answer.roster_length:
            self._state = _Joiner.AWAITS_PAGES
            return None
        roster = bytes(self._pages)
        if hash_bytes(roster) != self._answer.roster_hash:
            raise DamagedError("The membership records of the answer were altered.")
        self._state = _Joiner.DONE
        return Admission(self._answer, tuple(unpack_roster(roster)))


class _Issuer(Enum):
    NEW = auto()
    ASKED = auto()
    AWAITS_PROOF = auto()
    PROOF_HERE = auto()
    ADMITTING = auto()
    DONE = auto()
    FAILED = auto()


class IssuerSide:
    """The issuing pod's side. The shell looks up codes and writes things down between the steps.

    `start` -> `challenge` -> `confirm` -> (count the attempt) -> `proved` -> (admit) -> `admit`;
    without a code `start` -> (admit) -> `admit`.
    """

    def __init__(self, cluster: ClusterId, pod: PodId, certificate_hash: bytes) -> None:
        self._cluster = cluster
        self._pod = pod
        self._certificate_hash = certificate_hash
        self._request = b""
        self._public = ""
        self._theirs = b""
        self._key = b""
        self._transcript = b""
        self._proof = b""
        self._state = _Issuer.NEW

    def start(self, tag: int, body: object) -> tuple[Request, tuple[str, str] | None]:
        """Take the first message; return the request and the (tag, number) of the code, None without one.

        Raises `RefuseError` with `Reason.VERSION` or `Reason.ALTERED`, or `DamagedError`.
        """
        assert self._state is _Issuer.NEW
        self._state = _Issuer.FAILED
        if tag != Tag.JOIN_START or not isinstance(body, dict):
            raise DamagedError("The other side does not follow the join protocol.")
        version = body.get("version")
        if type(version) is not int or version != JOIN_VERSION:  # True is 1, too
            raise RefuseError(Refusal(Reason.VERSION))
        packed = field(body, "request")
        if len(packed) > REQUEST_BYTES:
            raise DamagedError("The join request is too long.")
        request = Request.unpack(packed)
        code = None
        if body.get("code") != "":
            code = parse_public(body.get("code"))
            if code is None:
                raise DamagedError("The join request names a code that can't be one.")
            self._public = f"{code[0]}-{code[1]}"
            self._theirs = field(body, "pake", PAKE_MESSAGE_BYTES)
        signed = _signed(self._certificate_hash, self._public, packed)
        if not records.verify(request.public_key, field(body, "signature", 64), signed):
            raise RefuseError(Refusal(Reason.ALTERED))
        self._request = packed
        self._state = _Issuer.ASKED
        return request, code

    def challenge(self, code: Code) -> Message:
        """Return the second message, for the code that the joiner named. Raises `DamagedError`."""
        assert self._state is _Issuer.ASKED
        assert self._public == code.public
        self._state = _Issuer.FAILED
        pake = Pake(code, joiner=False)
        self._key = pake.finish(self._theirs)
        self._transcript = _transcript(
            self._public, self._cluster, self._pod, self._certificate_hash, self._request, self._theirs, pake.message
        )
        self._state = _Issuer.AWAITS_PROOF
        return Tag.JOIN_PAKE, {"cluster": self._cluster, "pod": self._pod, "pake": pake.message}

    def confirm(self, tag: int, body: object) -> None:
        """Take the joiner's proof, without comparing it yet. Raises `DamagedError`."""
        assert self._state is _Issuer.AWAITS_PROOF
        self._state = _Issuer.FAILED
        if tag != Tag.JOIN_CONFIRM:
            raise DamagedError("The other side does not follow the join protocol.")
        self._proof = field(body, "proof", CONFIRMATION_BYTES)
        self._state = _Issuer.PROOF_HERE

    def proved(self) -> bool:
        """Return whether the joiner knows the code and talks to this server; only after the attempt was counted."""
        assert self._state is _Issuer.PROOF_HERE
        right = same(self._proof, joiner_proof(self._key, self._transcript))
        self._state = _Issuer.ADMITTING if right else _Issuer.FAILED
        return right

    def admit(self, answer: Answer, roster: list[bytes]) -> list[Message]:
        """Return the messages that admit the joiner; ``roster`` packed is at most `ROSTER_BYTES`.

        Length and hash of the roster in ``answer`` are filled in here.
        """
        without_code = self._state is _Issuer.ASKED and not self._public
        assert without_code or self._state is _Issuer.ADMITTING
        self._state = _Issuer.DONE
        blob = pack_roster(roster)
        assert 0 < len(blob) <= ROSTER_BYTES
        packed = replace(answer, roster_length=len(blob), roster_hash=hash_bytes(blob)).pack()
        proof = b"" if without_code else issuer_proof(self._key, self._transcript, packed)
        messages: list[Message] = [(Tag.JOIN_ADMITTED, {"answer": packed, "proof": proof})]
        pages = [blob[start : start + PAGE_BYTES] for start in range(0, len(blob), PAGE_BYTES)]
        messages.extend((Tag.JOIN_ADMITTED, {"page": page}) for page in pages)
        return messages


def _signed(certificate_hash: bytes, public: str, request: bytes) -> bytes:
    assert len(certificate_hash) == CERTIFICATE_HASH_BYTES
    return _SIGNED_PREFIX + certificate_hash + len(public).to_bytes(1, "big") + public.encode() + request


def _transcript(
    public: str, cluster: ClusterId, pod: PodId, certificate_hash: bytes, request: bytes, first: bytes, second: bytes
) -> bytes:
    version = JOIN_VERSION.to_bytes(4, "big")
    return transcript_hash(
        version, public.encode(), cluster.encode(), pod.encode(), certificate_hash, request, first, second
    )
