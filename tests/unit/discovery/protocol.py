"""Both machines of a join with everything between them in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from base.ids import ClusterId, pod_id_of
from discovery.code import Code, issuer_tag, new_code
from discovery.join_messages import Answer, Message, Request
from discovery.join_protocol import Admission, IssuerSide, JoinerSide
from mesh.api import Role

CLUSTER = ClusterId("c" * 32)
ISSUER = pod_id_of(b"i" * 32)
CERTIFICATE_HASH = b"h" * 32
ROSTER = [b"record one", b"record two" * 3000, b"record three"]
KEY = Ed25519PrivateKey.generate()


def a_code(number: int = 5) -> Code:
    return new_code(issuer_tag(CLUSTER, ISSUER), number)


def a_request(key: Ed25519PrivateKey = KEY) -> Request:
    return Request(key.public_key().public_bytes_raw(), b"", "nas", Role.CLIENT)


def an_answer() -> Answer:
    return Answer(
        CLUSTER, "home", ISSUER, "laptop", b"pem", "nas", Role.CLIENT, (("192.168.1.5:7420", ISSUER),), 0, b""
    )


def a_joiner(code: Code | None, certificate_hash: bytes = CERTIFICATE_HASH, key: Ed25519PrivateKey = KEY) -> JoinerSide:
    return JoinerSide(code, a_request(key), key.sign, certificate_hash)


@dataclass
class Conversation:
    """Runs both sides; ``alter`` may change each message (tag, body) on its way, by its place from 0."""

    joiner: JoinerSide
    code: Code | None
    alter: Any = None
    issuer: IssuerSide = field(default_factory=lambda: IssuerSide(CLUSTER, ISSUER, CERTIFICATE_HASH))
    admitted: bool = False
    """Whether the issuer was convinced."""
    sent: int = 0

    def carry(self, message: Message) -> tuple[int, Any]:
        tag, body = message
        place, self.sent = self.sent, self.sent + 1
        return self.alter(place, tag, body) if self.alter else (tag, body)

    def run(self) -> Admission | None:
        _, public = self.issuer.start(*self.carry(self.joiner.start()))
        if public is not None:
            assert self.code is not None
            outcome = self.joiner.receive(*self.carry(self.issuer.challenge(self.code)))
            assert isinstance(outcome, tuple)
            self.issuer.confirm(*self.carry(outcome))
            if not self.issuer.proved():
                return None
        self.admitted = True
        for message in self.issuer.admit(an_answer(), ROSTER):
            result = self.joiner.receive(*self.carry(message))
            if isinstance(result, Admission):
                return result
        return None
