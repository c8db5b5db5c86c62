"""A pod's keys and certificates, and the files that hold them.

The pod key signs records and is the key of the TLS certificate; its hash is the pod id. A full pod has an issuing key
of its own with a self-signed certificate, by which it lets others in. No key ever leaves its pod, and private
files are written with mode 0600, atomically and durably.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from base.errors import DamagedError, MachineError, RefusedError
from base.ids import ClusterId, PodId, pod_id_of
from mesh.api import Role
from mesh.records import is_id, issuer_name
from mesh.records import verify as verify

ADVICE: Final = "Put it back if it was moved; else give this pod up with `wormhole destroy --force` and join anew."
POD_KEY: Final = "pod.key"
POD_CERTIFICATE: Final = "pod.crt"
ISSUING_KEY: Final = "issuing.key"
ISSUING_CERTIFICATE: Final = "issuing.crt"

NOT_BEFORE: Final = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
NOT_AFTER: Final = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
"""RFC 5280, 4.1.2.5: no well-defined end. Certificates are judged by records, never by a clock."""


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """What a TLS certificate of ours says; its chain is verified elsewhere."""

    cluster: ClusterId
    pod: PodId
    role: Role
    public_key: bytes
    issuer: str
    """Common name of the issuer (`mesh.records.issuer_name`)."""


class Identity:
    """The keys of one pod."""

    def __init__(self, directory: Path, key: Ed25519PrivateKey, issuing_key: Ed25519PrivateKey | None) -> None:
        self.directory = directory
        self._key = key
        self._issuing_key = issuing_key
        self.public_key: bytes = key.public_key().public_bytes_raw()
        self.pod_id: PodId = pod_id_of(self.public_key)

    @classmethod
    def create(cls, directory: Path, *, role: Role = Role.FULL) -> Identity:
        """Make the keys of a new pod in ``directory`` (made with mode 0700 when missing).

        A full pod gets an issuing key, too. The TLS certificate comes with `install_certificate`. Raises
        `RefusedError` when there is an identity already, and `MachineError` when the files can't be written.
        """
        if (directory / POD_KEY).exists():
            raise RefusedError(f"There is an identity in {directory} already.", "Choose another home.")
        key = Ed25519PrivateKey.generate()
        issuing_key = Ed25519PrivateKey.generate() if role is Role.FULL else None
        identity = cls(directory, key, issuing_key)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if issuing_key is not None:
                certificate = _issuing_certificate(issuing_key, identity.pod_id)
                write_private(directory / ISSUING_CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM))
                write_private(directory / ISSUING_KEY, _private_pem(issuing_key))
            write_private(directory / POD_KEY, _private_pem(key))
        except OSError as error:
            raise MachineError(f"The identity can't be written to {directory}: {error.strerror}.") from error
        return identity

    @classmethod
    def load(cls, directory: Path) -> Identity:
        """Read the identity of a pod. Raises `DamagedError` when it is missing or wrong, else `MachineError`."""
        try:
            key = _load_key(directory / POD_KEY)
            issuing = directory / ISSUING_KEY
            return cls(directory, key, _load_key(issuing) if issuing.exists() else None)
        except FileNotFoundError as error:
            raise DamagedError(
                f"The identity in {directory} is incomplete: {error.filename} is missing.", ADVICE
            ) from error
        except OSError as error:
            advice = "Check its rights and the disk."
            raise MachineError(f"The identity in {directory} can't be read: {error.strerror}.", advice) from error

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature of the pod key."""
        return self._key.sign(data)

    @property
    def can_issue(self) -> bool:
        """Whether this pod has an issuing key."""
        return self._issuing_key is not None

    @property
    def issuing_certificate(self) -> bytes | None:
        """The certificate (DER) of the issuing key; None for a client."""
        if self._issuing_key is None:
            return None
        return _load_pem(self.directory / ISSUING_CERTIFICATE).public_bytes(serialization.Encoding.DER)

    def issue(self, public_key: bytes, cluster: ClusterId, role: Role) -> bytes:
        """Return a TLS certificate (PEM) for the pod with this raw key. Raises `RefusedError` without issuing key."""
        if self._issuing_key is None:
            raise RefusedError("A client pod can't admit others.", "Ask a full pod for a code.")
        pod = pod_id_of(public_key)
        issuer = _load_pem(self.directory / ISSUING_CERTIFICATE)
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"wormhole:{cluster}:{pod}:{role.value}")])
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(pod))
            .issuer_name(issuer.subject)
            .public_key(Ed25519PublicKey.from_public_bytes(public_key))
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOT_BEFORE)
            .not_valid_after(NOT_AFTER)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(names, critical=False)
            .add_extension(usage, critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._issuing_key.public_key()), critical=False
            )
            .sign(self._issuing_key, None)
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def install_certificate(self, pem: bytes) -> None:
        """Keep the TLS certificate issued to this pod. Raises `DamagedError` when it is for another key."""
        info = read_certificate(x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER))
        if info.public_key != self.public_key:
            raise DamagedError("The certificate was issued to another pod.")
        write_private(self.directory / POD_CERTIFICATE, pem)

    @property
    def certificate_file(self) -> Path:
        """Where the TLS certificate (PEM) is."""
        return self.directory / POD_CERTIFICATE

    @property
    def key_file(self) -> Path:
        """Where the pod key (PEM) is."""
        return self.directory / POD_KEY

    def certificate(self) -> bytes:
        """Return this pod's TLS certificate (DER). Raises `DamagedError` when none was installed."""
        try:
            return _load_pem(self.certificate_file).public_bytes(serialization.Encoding.DER)
        except OSError as error:
            raise DamagedError("This pod has no certificate.", ADVICE) from error


def read_certificate(der: bytes) -> CertificateInfo:
    """Return what a peer's certificate says, checked for consistency. Raises `DamagedError`."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        key = certificate.public_key()
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        common = [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        issuer = [str(name.value) for name in certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except (ValueError, TypeError, x509.ExtensionNotFound) as error:
        raise DamagedError("A certificate can't be read.") from error
    match [uri.split(":") for uri in uris]:
        case [["wormhole", cluster, pod, ("full" | "client") as role]] if is_id(cluster) and is_id(pod):
            if isinstance(key, Ed25519PublicKey) and len(issuer) == 1:
                raw = key.public_bytes_raw()
                if pod_id_of(raw) == pod and common == [pod]:
                    return CertificateInfo(ClusterId(cluster), PodId(pod), Role(role), raw, issuer[0])
    raise DamagedError("A certificate isn't that of a pod.")


def write_private(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 atomically: old or new content after a crash. Raises `OSError`."""
    draft = path.with_name(path.name + ".tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _issuing_certificate(key: Ed25519PrivateKey, pod: PodId) -> x509.Certificate:
    name = _name(issuer_name(pod))
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, None)
    )


def _private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_key(path: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise DamagedError(f"The key {path} can't be read.", ADVICE) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise DamagedError(f"The key {path} is of the wrong kind.", ADVICE)
    return key


def _load_pem(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise DamagedError(f"The certificate {path} can't be read.", ADVICE) from error
