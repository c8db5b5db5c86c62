"""What the two sides of a join say, as values: request, answer, refusal. Pure; every length is bounded.

Request and answer travel as packed bytes inside their messages, because signatures and proofs cover these bytes as they
were sent. Whatever arrives is checked here completely; a message that isn't exactly right raises `DamagedError`.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import msgpack

from base.errors import DamagedError
from base.ids import ClusterId, PodId, pod_id_of
from discovery.names import is_name
from mesh import records, wire
from mesh.api import Role
from mesh.wire import Tag

Message = tuple[Tag, dict[str, Any]]
"""A tag and its body, as a join stream carries them."""

JOIN_VERSION: Final = 1
REQUEST_BYTES: Final = 4 << 10
ANSWER_BYTES: Final = 14 << 10
PAGE_BYTES: Final = 15 << 10
MAX_PAGES: Final = 64
"""With the few messages before them, all that a pod may say to a joiner (`mesh.join_stream.MAX_ANSWER_FRAMES`)."""
ROSTER_BYTES: Final = MAX_PAGES * PAGE_BYTES
"""The most that an answer carries of the roster; the rest arrives on the first link."""
MAX_ADDRESSES: Final = 32
_ADDRESS_LENGTH: Final = 255 + 1 + 5
_CERTIFICATE_BYTES: Final = 4 << 10


@dataclass(frozen=True, slots=True)
class Request:
    """Who wants to join, and as what."""

    public_key: bytes
    """The joiner's raw Ed25519 key, 32 bytes."""
    issuing: bytes
    """The DER certificate of its own issuing key; empty for a client."""
    pod_name: str
    """The name that it would like."""
    role: Role
    cluster: str = ""
    """The name or id of the cluster that it means to join; empty: whichever it is."""
    version: int = JOIN_VERSION

    @property
    def pod(self) -> PodId:
        """The joiner's id."""
        return pod_id_of(self.public_key)

    def pack(self) -> bytes:
        """Return the bytes that are sent, signed and confirmed."""
        return _pack([self.version, self.public_key, self.issuing, self.pod_name, self.role.value, self.cluster])

    @staticmethod
    def unpack(data: bytes) -> Request:
        """Read a request. Raises `DamagedError`."""
        if len(data) > REQUEST_BYTES:
            raise DamagedError("The join request is too long.")
        match wire.unpack(data):
            case [int(version), bytes(key), bytes(issuing), str(name), ("full" | "client") as role, str(cluster)] if (
                not isinstance(version, bool) and len(key) == 32 and is_name(name) and (not cluster or is_name(cluster))
            ):
                request = Request(key, issuing, name, Role(role), cluster, version)
                full = role == "full" and records.is_issuing_certificate(issuing, request.pod)
                if full or (role == "client" and not issuing):
                    return request
        raise DamagedError("The join request has the wrong form.")


@dataclass(frozen=True, slots=True)
class Answer:
    """The admission: everything that the new pod needs to link up."""

    cluster: ClusterId
    cluster_name: str
    issuer: PodId
    issuer_name: str
    certificate: bytes
    """The joiner's certificate, PEM."""
    pod_name: str
    """Its final name."""
    role: Role
    """Its final role, which may be narrower than the one asked for."""
    addresses: tuple[tuple[str, PodId], ...]
    """Where pods of the cluster were last reached: ``HOST:PORT`` and pod."""
    roster_length: int
    roster_hash: bytes
    """BLAKE3 of the roster's pages joined together."""

    def pack(self) -> bytes:
        """Return the bytes that are sent and confirmed."""
        return _pack(
            [
                self.cluster,
                self.cluster_name,
                self.issuer,
                self.issuer_name,
                self.certificate,
                self.pod_name,
                self.role.value,
                [[address, pod] for address, pod in self.addresses],
                self.roster_length,
                self.roster_hash,
            ]
        )

    @staticmethod
    def unpack(data: bytes) -> Answer:
        """Read an answer. Raises `DamagedError`."""
        if len(data) > ANSWER_BYTES:
            raise DamagedError("The answer to the join request is too long.")
        match wire.unpack(data):
            case [
                str(cluster),
                str(cluster_name),
                str(issuer),
                str(issuer_name),
                bytes(certificate),
                str(pod_name),
                ("full" | "client") as role,
                list(addresses),
                int(length),
                bytes(digest),
            ] if (
                records.is_id(cluster)
                and records.is_id(issuer)
                and all(is_name(name) for name in (cluster_name, issuer_name, pod_name))
                and 0 < len(certificate) <= _CERTIFICATE_BYTES
                and len(addresses) <= MAX_ADDRESSES
                and 0 < length <= ROSTER_BYTES
                and not isinstance(length, bool)
                and len(digest) == 32
            ):
                return Answer(
                    ClusterId(cluster),
                    cluster_name,
                    PodId(issuer),
                    issuer_name,
                    certificate,
                    pod_name,
                    Role(role),
                    tuple(_address_pair(pair) for pair in addresses),
                    length,
                    digest,
                )
        raise DamagedError("The answer to the join request has the wrong form.")


class Reason(Enum):
    """Why a join is refused. Only the reason and checked values travel; each side words its own sentences."""

    WRONG_CODE = "wrong-code"
    UNKNOWN_CODE = "unknown-code"
    USED_CODE = "used-code"
    EXPIRED_CODE = "expired-code"
    VOID_CODE = "void-code"
    OTHER_ISSUER = "other-issuer"
    CODE_NEEDED = "code-needed"
    APPROVAL_NEEDED = "approval-needed"
    """A code doesn't help where pods are approved one by one."""
    WAITING = "waiting"
    """Not yet approved: ask again."""
    DENIED = "denied"
    TOO_MANY = "too-many"
    """No more joiners can wait for approval."""
    CLOSED = "closed"
    OTHER_CLUSTER = "other-cluster"
    NOT_ALLOWED = "not-allowed"
    REVOKED = "revoked"
    NOT_ADMINISTRATOR = "not-administrator"
    VERSION = "version"
    ALTERED = "altered"
    """The request was not signed by its pod for this server's certificate."""
    MALFORMED = "malformed"
    BUSY = "busy"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal as sent. Empty strings and -1 stand for what isn't known."""

    reason: Reason
    cluster_name: str = ""
    pod_name: str = ""
    """The pod that the advice is about: the issuer of the code."""
    address: str = ""
    """Where the issuer of the code listens, with `Reason.OTHER_ISSUER`."""
    attempts_left: int = -1

    def message(self) -> Message:
        """Return the message that says it."""
        body = {
            "reason": self.reason.value,
            "cluster": self.cluster_name,
            "pod": self.pod_name,
            "address": self.address,
            "left": self.attempts_left,
        }
        return Tag.JOIN_REFUSED, body

    @staticmethod
    def read(body: object) -> Refusal:
        """Read a refusal; what isn't valid in it counts as not known. Never raises."""
        fields = body if isinstance(body, dict) else {}
        try:
            reason = Reason(fields.get("reason"))
        except ValueError:
            reason = Reason.FAILED
        cluster, pod, address, left = (fields.get(key) for key in ("cluster", "pod", "address", "left"))
        return Refusal(
            reason,
            str(cluster) if is_name(cluster) else "",
            str(pod) if is_name(pod) else "",
            str(address) if is_address(address) else "",
            left if isinstance(left, int) and 0 <= left <= 1000 else -1,
        )


def is_address(value: object) -> bool:
    """Return whether ``value`` is ``HOST:PORT`` with a plausible host (an IPv6 address in brackets) and a port."""
    if not isinstance(value, str) or len(value) > _ADDRESS_LENGTH or not value.isascii():
        return False
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdigit() or len(port) > 5 or not 0 < int(port) < 65536:
        return False
    if host.startswith("[") and host.endswith("]"):
        try:
            return ipaddress.IPv6Address(host[1:-1]).version == 6
        except ValueError:
            return False
    return bool(host) and all(letter.isalnum() or letter in "-._" for letter in host)


def pack_roster(roster: list[bytes]) -> bytes:
    """Return records as one string of bytes, each preceded by its length in 4 bytes."""
    return b"".join(part for record in roster for part in (len(record).to_bytes(4, "big"), record))


def unpack_roster(data: bytes) -> list[bytes]:
    """Undo `pack_roster`. Raises `DamagedError`."""
    found, start = [], 0
    while start < len(data):
        length = int.from_bytes(data[start : start + 4], "big")
        end = start + 4 + length
        if length == 0 or length > records.MAX_RECORD_BYTES or end > len(data):
            raise DamagedError("The membership records of the answer are cut off.")
        found.append(data[start + 4 : end])
        start = end
    return found


def field(body: object, key: str, length: int | None = None) -> bytes:
    """Return the bytes at ``key`` of a message, of exactly ``length`` if given. Raises `DamagedError`."""
    value = body.get(key) if isinstance(body, dict) else None
    if not isinstance(value, bytes) or (length is not None and len(value) != length):
        raise DamagedError(f"A join message has no valid {key!r}.")
    return value


def _address_pair(value: object) -> tuple[str, PodId]:
    match value:
        case [str(address), str(pod)] if is_address(address) and records.is_id(pod):
            return address, PodId(pod)
    raise DamagedError("The answer to the join request names an address that can't be one.")


def _pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed
