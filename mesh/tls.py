"""TLS contexts of the mesh: TLS 1.3 only, no tickets, both sides verified against the cluster's own anchors.

Certificates aren't judged by time: records decide who belongs. A verified chain says only that a current
full pod of this cluster issued the certificate; `mesh.handshake` then compares it with the roster.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Final

from base.errors import DamagedError
from mesh.identity import Identity

X509_V_FLAG_NO_CHECK_TIME: Final = 0x200000
"""openssl/x509_vfy.h; Python has no name for it."""

ALPN: Final = "wormhole/1"


def server_context(identity: Identity, anchors: Sequence[bytes]) -> ssl.SSLContext:
    """Return the context of the listener. A client certificate is optional, but a wrong one ends the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0
    return _common(context, identity, anchors)


def client_context(identity: Identity, anchors: Sequence[bytes]) -> ssl.SSLContext:
    """Return the context of the dialer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    return _common(context, identity, anchors)


def join_context() -> ssl.SSLContext:
    """Return the context of a joiner: no certificate of its own, the server's unverified (the join code does that)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _modern(context)
    return context


def _modern(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([ALPN])


def _common(context: ssl.SSLContext, identity: Identity, anchors: Sequence[bytes]) -> ssl.SSLContext:
    _modern(context)
    context.verify_flags |= X509_V_FLAG_NO_CHECK_TIME
    try:
        context.load_cert_chain(identity.certificate_file, identity.key_file)
        if anchors:
            context.load_verify_locations(cadata=b"".join(anchors))
    except (ssl.SSLError, OSError) as error:
        raise DamagedError(f"The keys in {identity.directory} can't be used: {error}.") from error
    return context
