"""Codecs of the signed records that say who belongs to a cluster. Pure; decides nothing about rights.

A record is ``msgpack [version, kind, cluster, signer, payload, signature]``; the payload is msgpack of its own, and the
Ed25519 signature covers ``prefix | msgpack [version, kind, cluster, signer, payload]``. There is exactly one encoding
of a record: others are refused, so that nobody can multiply records by re-encoding them. A record of an unknown kind or
of a newer version keeps its envelope and is carried along without being interpreted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgpack
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from base.errors import DamagedError
from base.ids import ClusterId, PodId, WriterId, hash_bytes, pod_id_of
from mesh import wire
from mesh.api import Role

RECORD_VERSION: Final = 1
MAX_RECORD_BYTES: Final = 128 << 10
MAX_NAME_BYTES: Final = 64
MAX_CONFIG_BYTES: Final = 96 << 10
MAX_ORDER: Final = 1 << 48
MAX_SEQUENCE: Final = 1 << 62
MAX_EARLIER: Final = 64
MAX_ADMINISTRATORS: Final = 1_000
MAX_HONOURED: Final = 8_000
MAX_ORDERED_PODS: Final = 1_000
MAX_ACCEPTED: Final = 2_000
NAME_BYTES: Final = 16
ORDERS: Final = ("freeze", "unfreeze", "drill")
PREFIX: Final = b"wormhole roster record\0"
EVERYBODY: Final = "*"

RecordId = bytes
"""16 bytes: the first half of BLAKE3(record)."""


@dataclass(frozen=True, slots=True)
class Found:
    """The founding record: names the cluster and admits its first pod."""

    name: str
    nonce: bytes
    pod_name: str
    public_key: bytes
    issuing: bytes
    time_ns: int
    recovery: bytes = b""
    """The raw public key of the recovery key, which outranks every pod; empty: there is none."""


@dataclass(frozen=True, slots=True)
class Admit:
    """Admits a pod."""

    name: str
    role: Role
    public_key: bytes
    issuing: bytes | None
    """The certificate (DER, self-signed) of the pod's own issuing key; None for a client."""
    order: int
    """One more than the greatest order known to the signer: seniority, independent of any clock."""
    time_ns: int
    trusted: bool = True
    """Whether a person let it in (by a code, by approving it). Who came in by open admission may administer only where
    the configuration names its id."""

    @property
    def pod(self) -> PodId:
        """The admitted pod."""
        return pod_id_of(self.public_key)


@dataclass(frozen=True, slots=True)
class Writer:
    """The signer writes metadata under this id."""

    writer: WriterId


@dataclass(frozen=True, slots=True)
class Void:
    """The signer's home was restored: a transaction that it gave out since, and what followed it, doesn't count.

    The writer's log is the one that others had, in which another transaction has that number.
    """

    writer: WriterId
    sequence: int
    digest: bytes
    """What tells that transaction from the other one."""
    owed: int
    """The log that others had goes on at least to this transaction."""


@dataclass(frozen=True, slots=True)
class Left:
    """The signer left for good."""

    time_ns: int


@dataclass(frozen=True, slots=True)
class Maintenance:
    """The signer is going to be away on purpose, or no longer; the record with the greatest number counts."""

    number: int
    on: bool


@dataclass(frozen=True, slots=True)
class Revoke:
    """Evicts a pod, with what it admitted, except the pods in ``keeps`` and the admissions in ``certifies``."""

    pod: PodId
    keeps: tuple[PodId, ...]
    """Pods whose admissions by it count whatever they say. This version writes none: who stole it could change them."""
    config: RecordId
    """The configuration in force: those up to it stay valid though the evicted pod signed them. Empty: none."""
    time_ns: int
    certifies: tuple[RecordId, ...] | None = None
    """Admissions that go on counting. None, as in the first records: that of who signs this does."""


@dataclass(frozen=True, slots=True)
class Config:
    """A version of cluster.toml."""

    parent: RecordId
    """The version that it follows; empty for the first."""
    toml: str
    time_ns: int
    administrators: tuple[str, ...] = (EVERYBODY,)
    """Who administers by it: `EVERYBODY` (every full pod), or pod ids. A name stands for the first full pod admitted
    under it behind ``order``: at the time nobody had it."""
    order: int = 0
    """The greatest order of an admission known to the signer; 0 where there is no name in ``administrators``."""
    honours: tuple[RecordId, ...] = ()
    """Admissions and revocations that go on counting though their signers don't administer by this version."""


@dataclass(frozen=True, slots=True)
class Retire:
    """The signer adopted the metadata of a writer, which writes no more: nothing it wrote later is taken from it."""

    writer: WriterId
    upto: int
    """The last transaction of it that the signer had."""
    by: WriterId
    sequence: int
    """The copies are complete with this transaction of the signer's writer ``by``."""
    since: int = 0
    """What it wrote up to this transaction isn't among these copies, but among another adopter's."""
    begun: int = 0
    """The copies are all in transactions of ``by`` after this one."""
    digest: bytes = b""
    """What tells transaction ``upto`` from another one of its number; empty when the signer hadn't kept it."""
    earlier: tuple[tuple[int, bytes], ...] = ()
    """The same of some earlier ones, by their numbers, the last first; at most `MAX_EARLIER`."""


@dataclass(frozen=True, slots=True)
class Order:
    """A word of an administrator to the whole cluster: freeze, unfreeze, drill. Of several the greatest number counts."""

    number: int
    what: str
    """One of `ORDERS`."""
    config: RecordId
    """The configuration in force when it was given, by which the signer administered. Empty: none."""
    time_ns: int
    situation: str = ""
    """What is rehearsed, or what was in force when a situation was accepted."""
    for_ms: int = 0
    """How long a drill goes on."""
    pods: tuple[PodId, ...] = ()
    """The pods whose loss is accepted; sorted."""
    contents: tuple[bytes, ...] = ()
    """The missing contents accepted besides, by the first `NAME_BYTES` of their ids; sorted."""


Payload = Found | Admit | Writer | Void | Left | Maintenance | Revoke | Config | Retire | Order


@dataclass(frozen=True, slots=True)
class Record:
    """A decoded envelope; ``payload`` is None for what this version can't interpret."""

    data: bytes
    id: RecordId
    cluster: str
    """Empty in the founding record."""
    signer: PodId
    signed: bytes
    signature: bytes
    payload: Payload | None

    def signed_by(self, public_key: bytes) -> bool:
        """Tell whether the signature is that of ``public_key`` and the key that of the signer."""
        return pod_id_of(public_key) == self.signer and verify(public_key, self.signature, self.signed)


def verify(public_key: bytes, signature: bytes, data: bytes) -> bool:
    """Tell whether ``signature`` (64 bytes) over ``data`` was made with the raw 32-byte Ed25519 ``public_key``."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, data)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def seal(payload: Payload, cluster: ClusterId | str, signer: PodId, sign: Callable[[bytes], bytes]) -> bytes:
    """Return the signed record of a payload. Raises `DamagedError` when it is out of bounds."""
    kind = type(payload).__name__.lower()
    parts = [RECORD_VERSION, kind, str(cluster), str(signer), _pack(_fields(payload))]
    data = _pack([*parts, sign(PREFIX + _pack(parts))])
    decode(data)
    return data


def decode(data: bytes) -> Record:
    """Return the record of its bytes, the signature not yet checked. Raises `DamagedError`."""
    if len(data) > MAX_RECORD_BYTES:
        raise DamagedError("A membership record is too long.")
    value = wire.unpack(data)
    match value:
        case [int(version), str(kind), str(cluster), str(signer), bytes(body), bytes(signature)]:
            pass
        case _:
            raise DamagedError("A membership record has the wrong form.")
    if _pack(value) != data or len(kind) > 32 or len(signature) != 64 or not is_id(signer) or version < 1:
        raise DamagedError("A membership record has the wrong form.")
    if not (is_id(cluster) or (cluster == "" and kind == "found")):
        raise DamagedError("A membership record names no cluster.")
    payload: Payload | None = None
    if version == RECORD_VERSION and kind in _READERS:
        fields = wire.unpack(body)
        if not isinstance(fields, list) or _pack(fields) != body:
            raise DamagedError(f"A membership record of kind {kind} has the wrong form.")
        payload = _READERS[kind](fields, PodId(signer))
    signed = PREFIX + _pack([version, kind, cluster, signer, body])
    return Record(data, record_id(data), cluster, PodId(signer), signed, signature, payload)


def record_id(data: bytes) -> RecordId:
    """Return the id of a record."""
    return hash_bytes(data)[:16]


def cluster_id_of(found: bytes) -> ClusterId:
    """Return the cluster id that a founding record makes."""
    return ClusterId(record_id(found).hex())


def is_id(value: str) -> bool:
    """Tell whether ``value`` has the form of a pod or cluster id (32 lower-case hexadecimal digits)."""
    return len(value) == 32 and all(digit in "0123456789abcdef" for digit in value)


def is_name(value: str) -> bool:
    """Tell whether ``value`` can name a pod or a cluster: printable, no slash, 1 to 64 bytes."""
    return (
        0 < len(value.encode("utf-8", "surrogatepass")) <= MAX_NAME_BYTES
        and value.isprintable()
        and value == value.strip()
        and "/" not in value
    )


def issuer_name(pod: PodId) -> str:
    """Return the common name of a pod's issuing certificate."""
    return f"wormhole issuer {pod}"


def is_issuing_certificate(der: bytes, pod: PodId) -> bool:
    """Tell whether ``der`` is a self-signed Ed25519 CA certificate under the name that belongs to ``pod``."""
    if len(der) > 2048:
        return False
    try:
        certificate = x509.load_der_x509_certificate(der)
        key = certificate.public_key()
        if not isinstance(key, Ed25519PublicKey):
            return False
        key.verify(certificate.signature, certificate.tbs_certificate_bytes)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return (
        constraints.ca and certificate.issuer == certificate.subject and [n.value for n in names] == [issuer_name(pod)]
    )


def _pack(value: Any) -> bytes:
    try:
        packed: bytes = msgpack.packb(value, use_bin_type=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise DamagedError("A membership record can't be encoded.") from error
    return packed


def _fields(payload: Payload) -> list[Any]:
    match payload:
        case Found(name, nonce, pod_name, public_key, issuing, time_ns, recovery):
            return [name, nonce, pod_name, public_key, issuing, time_ns, *([recovery] if recovery else [])]
        case Admit(name, role, public_key, maybe_issuing, order, time_ns, trusted):
            return [name, role.value, public_key, maybe_issuing, order, time_ns, *([] if trusted else [False])]
        case Writer(writer):
            return [writer]
        case Void(writer, sequence, digest, owed):
            return [writer, sequence, digest, owed]
        case Left(time_ns):
            return [time_ns]
        case Maintenance(number, on):
            return [number, on]
        case Revoke(pod, keeps, config, time_ns, certifies):
            return [pod, list(keeps), config, time_ns, *([] if certifies is None else [b"".join(certifies)])]
        case Config(parent, toml, time_ns, administrators, order, honours):
            plain = (administrators, order, honours) == ((EVERYBODY,), 0, ())
            return [parent, toml, time_ns, *([] if plain else [list(administrators), order, b"".join(honours)])]
        case Retire(writer, upto, by, sequence, since, begun, digest, earlier):
            lives = [digest, [list(one) for one in earlier]] if earlier else [digest] if digest else []
            return [writer, upto, by, sequence, since, begun, *lives]
        case Order(number, what, config, time_ns, situation, for_ms, pods, contents):
            return [number, what, config, time_ns, situation, for_ms, list(pods), b"".join(contents)]


def _read_found(fields: list[Any], signer: PodId) -> Found:
    match fields:
        case [str(name), bytes(nonce), str(pod_name), bytes(key), bytes(issuing), int(time_ns), *rest] if (
            is_name(name)
            and is_name(pod_name)
            and (not rest or (len(rest) == 1 and isinstance(rest[0], bytes) and len(rest[0]) == 32))
            and len(nonce) == 16
            and len(key) == 32
            and pod_id_of(key) == signer
            and is_issuing_certificate(issuing, signer)
        ):
            return Found(name, nonce, pod_name, key, issuing, time_ns, *rest)
    raise DamagedError("A founding record is malformed.")


def _read_admit(fields: list[Any], _signer: PodId) -> Admit:
    match fields:
        case [str(name), ("full" | "client") as role, bytes(key), issuing, int(order), int(time_ns), *rest] if (
            is_name(name) and len(key) == 32 and 0 < order <= MAX_ORDER and (not rest or rest == [False])
        ):
            full = role == "full" and isinstance(issuing, bytes) and is_issuing_certificate(issuing, pod_id_of(key))
            if full or (role == "client" and issuing is None):
                return Admit(name, Role(role), key, issuing, order, time_ns, not rest)
    raise DamagedError("An admission record is malformed.")


def _read_writer(fields: list[Any], _signer: PodId) -> Writer:
    match fields:
        case [bytes(writer)] if len(writer) == 8:
            return Writer(WriterId(writer))
    raise DamagedError("A writer record is malformed.")


def _read_void(fields: list[Any], _signer: PodId) -> Void:
    match fields:
        case [bytes(writer), int(sequence), bytes(digest), int(owed)] if (
            len(writer) == 8 and len(digest) == 16 and 0 < sequence < MAX_SEQUENCE and 0 <= owed < MAX_SEQUENCE
        ):
            return Void(WriterId(writer), sequence, digest, owed)
    raise DamagedError("A record of void transactions is malformed.")


def _read_left(fields: list[Any], _signer: PodId) -> Left:
    match fields:
        case [int(time_ns)]:
            return Left(time_ns)
    raise DamagedError("A leaving record is malformed.")


def _read_maintenance(fields: list[Any], _signer: PodId) -> Maintenance:
    match fields:
        case [int(number), bool(on)] if not isinstance(number, bool) and 0 < number < MAX_SEQUENCE:
            return Maintenance(number, on)
    raise DamagedError("A maintenance record is malformed.")


def _read_revoke(fields: list[Any], _signer: PodId) -> Revoke:
    match fields:
        case [str(pod), list(keeps), bytes(config), int(time_ns), *rest] if (
            is_id(pod)
            and all(isinstance(kept, str) and is_id(kept) for kept in keeps)
            and len(config) in (0, 16)
            and (not rest or (len(rest) == 1 and isinstance(rest[0], bytes) and len(rest[0]) % 16 == 0))
        ):
            certifies = _split_ids(rest[0]) if rest else None
            return Revoke(PodId(pod), tuple(PodId(kept) for kept in keeps), config, time_ns, certifies)
    raise DamagedError("A revocation record is malformed.")


def _read_config(fields: list[Any], _signer: PodId) -> Config:
    match fields:
        case [bytes(parent), str(toml), int(time_ns)] if (
            len(parent) in (0, 16) and len(toml.encode("utf-8", "surrogatepass")) <= MAX_CONFIG_BYTES
        ):
            return Config(parent, toml, time_ns)
        case [bytes(parent), str(toml), int(time_ns), list(administrators), int(order), bytes(honours)] if (
            len(parent) in (0, 16)
            and len(toml.encode("utf-8", "surrogatepass")) <= MAX_CONFIG_BYTES
            and _are_administrators(administrators)
            and 0 <= order <= MAX_ORDER
            and len(honours) % 16 == 0
            and len(honours) // 16 <= MAX_HONOURED
            and (administrators != [EVERYBODY] or order or honours)
        ):
            return Config(parent, toml, time_ns, tuple(administrators), order, _split_ids(honours))
    raise DamagedError("A configuration record is malformed.")


def _split_ids(joined: bytes) -> tuple[RecordId, ...]:
    return tuple(joined[start : start + 16] for start in range(0, len(joined), 16))


def _are_administrators(value: list[Any]) -> bool:
    """Tell whether a list names administrators in the one form that it has: sorted, each once, `EVERYBODY` alone."""
    if not 0 < len(value) <= MAX_ADMINISTRATORS or not all(isinstance(one, str) and is_name(one) for one in value):
        return False
    return value == sorted(set(value)) and (EVERYBODY not in value or len(value) == 1)


def _read_retire(fields: list[Any], _signer: PodId) -> Retire:
    """Return an adoption; what stands behind the known fields is of a newer version."""
    match fields:
        case [bytes(writer), int(upto), bytes(by), int(sequence), int(since), int(begun), *rest] if (
            len(writer) == len(by) == 8
            and writer != by
            and (not rest or (isinstance(rest[0], bytes) and len(rest[0]) in ({16} if len(rest) == 1 else {0, 16})))
            and 0 <= since <= upto <= MAX_SEQUENCE
            and 0 <= begun <= sequence <= MAX_SEQUENCE
        ):
            digest, earlier = [*rest, *(b"", [])[len(rest) :]][:2]
            return Retire(WriterId(writer), upto, WriterId(by), sequence, since, begun, digest, _earlier(earlier, upto))
    raise DamagedError("A record of an adoption is malformed.")


def _earlier(value: Any, before: int) -> tuple[tuple[int, bytes], ...]:
    """Return transactions by number and digest, in falling order, all before one. Raises `DamagedError`."""
    found: list[tuple[int, bytes]] = []
    for item in value if isinstance(value, list) and len(value) <= MAX_EARLIER else [None]:
        match item:
            case [int(number), bytes(digest)] if type(number) is int and 0 < number < before and len(digest) == 16:
                found.append((number, digest))
                before = number
            case _:
                raise DamagedError("A record of an adoption is malformed.")
    return tuple(found)


def _read_order(fields: list[Any], _signer: PodId) -> Order:
    match fields:
        case [
            int(number),
            str(what),
            bytes(config),
            int(time_ns),
            str(situation),
            int(for_ms),
            list(pods),
            bytes(rest),
        ] if (
            0 < number < MAX_SEQUENCE
            and what in ORDERS
            and len(config) in (0, 16)
            and len(situation) <= MAX_NAME_BYTES
            and 0 <= for_ms < MAX_SEQUENCE
            and len(pods) <= MAX_ORDERED_PODS
            and all(isinstance(pod, str) and is_id(pod) for pod in pods)
            and len(rest) % NAME_BYTES == 0
            and len(rest) // NAME_BYTES <= MAX_ACCEPTED
        ):
            named = tuple(PodId(pod) for pod in pods)
            return Order(number, what, config, time_ns, situation, for_ms, named, _split_ids(rest))
    raise DamagedError("A record of an order to the cluster is malformed.")


_READERS: Final[dict[str, Callable[[list[Any], PodId], Payload]]] = {
    "found": _read_found,
    "admit": _read_admit,
    "writer": _read_writer,
    "void": _read_void,
    "left": _read_left,
    "maintenance": _read_maintenance,
    "revoke": _read_revoke,
    "config": _read_config,
    "retire": _read_retire,
    "order": _read_order,
}
