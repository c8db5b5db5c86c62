"""Makes the golden files: one of each stored and sent form, as this version writes it.

``python -m tests.golden.make`` adds the files of versions that have none yet, and never touches one that is there: a
file stands for what pods of its version have on their disks. Keys, ids, clocks and random numbers are fixed.
"""

from __future__ import annotations

import datetime
import gzip
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import anyio
import msgpack
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from base.ids import ROOT_INODE, ContentId, Dot, InodeId, LinkId, PodId, WriterId, hash_bytes, pod_id_of
from crdt_meta import codec, incarnation, operation, records, store, transaction
from crdt_meta.incarnation import Chain, Start
from crdt_meta.metadata import Metadata, Roots
from crdt_meta.node import Kind
from crdt_meta.records import Key, Strategy, Why
from crdt_meta.segments import Segment
from crdt_meta.transaction import Gone, Part, join, make
from mesh import gossip_messages as gossip
from mesh import log_messages, wire
from mesh import records as roster
from mesh.api import Entry, Role
from mesh.wire import Tag

FORMS = Path(__file__).parent / "forms"
WRITER, OTHER = WriterId(b"writer-1"), WriterId(b"writer-2")
NODE, PARENT, LINK = (bytes([byte]) * 16 for byte in (0x11, 0x22, 0x33))
CONTENT = ContentId(bytes(range(32)))
CLOCK = 117_964_800_000_000_123
START_S = 1_800_000_000.0


DOT = Dot(WRITER, CLOCK - 2)
INODE, FOLDER = InodeId(NODE), InodeId(PARENT)
TRASHED = operation.Trashed(INODE, DOT, b"/f/\xff")
OPERATIONS: dict[str, operation.Operation] = {
    "create": operation.Create(INODE, FOLDER, b"n\xff", Kind.SYMLINK, 0o777, 1, 2, -3, b"to", 9),
    "link": operation.Link(LinkId(LINK), INODE, FOLDER, b"n"),
    "remove": operation.Remove(LinkId(LINK), FOLDER, b"n", directory=True),
    "rename": operation.Rename(LinkId(LINK), FOLDER, b"n", ROOT_INODE, b"m", exchange=False, no_replace=True),
    "attributes": operation.SetAttributes(INODE, {"mode": 0o644, "uid": 1, "gid": 2, "mtime_ns": -5}),
    "xattr": operation.SetXattr(INODE, b"user.a", b"\0"),
    "publish": operation.Publish(INODE, LinkId(LINK), CONTENT, 7, -5, (DOT,), 8),
    "restore": operation.Restore(TRASHED),
    "purge": operation.Purge((TRASHED, TRASHED)),
    "keep": operation.Keep(b"/f", INODE),
}


def key(byte: int) -> Ed25519PrivateKey:
    """Return a pod's key, always the same."""
    return Ed25519PrivateKey.from_private_bytes(bytes([byte]) * 32)


def pod_of(byte: int) -> PodId:
    return pod_id_of(key(byte).public_key().public_bytes_raw())


def record_forms() -> Iterator[tuple[str, bytes]]:
    """Yield each kind of record, as msgpack [key in the segment, stored value]."""
    inode, parent, link = InodeId(NODE), InodeId(PARENT), LinkId(LINK)
    dots = (Dot(WRITER, CLOCK - 2), Dot(OTHER, CLOCK - 1))
    sibling = records.Birth(
        *(CLOCK, Kind.FILE, 0o640, 1000, 1001, -5), content=CONTENT, size=7, strategy=Strategy.LAST_WRITER_WINS
    )
    bodies: dict[str, records.Body] = {
        "birth-directory": records.Birth(CLOCK, Kind.DIRECTORY, 0o755, 1, 2, 3),
        "birth-symlink": records.Birth(CLOCK, Kind.SYMLINK, 0o777, 1, 2, 3, target=b"to/\xff"),
        "birth-device": records.Birth(CLOCK, Kind.BLOCK, 0o600, 0, 0, 3, rdev=2049),
        "birth-sibling": sibling._replace(origin=dots[0]),
        "content": records.Content(CLOCK, CONTENT, 7, -5, LinkId(NODE), dots, Strategy.KEEP_BOTH, CLOCK),
        "content-through-another-link": records.Content(
            *(CLOCK, CONTENT, 7, 1 << 60, link, (), Strategy.LAST_WRITER_WINS), floor=CLOCK - 9, age_ns=4_000_000_000
        ),
        "settled": records.Settled(CLOCK, dots),
        "settled-purged": records.Settled(CLOCK, (), dots[1:]),
        "overwritten": records.Overwritten(CLOCK, dots[1], CONTENT, 7, -5, Why.CONFLICT),
        "attributes": records.Attributes(
            CLOCK, {"mode": (CLOCK - 3, 0o4755), "uid": (CLOCK, 5), "gid": (CLOCK, 6), "mtime_ns": (CLOCK - 1, -7)}
        ),
        "xattrs": records.Xattrs(CLOCK, {b"user.a": (CLOCK, b"\0value"), b"user.gone": (CLOCK - 1, None)}),
        "link": records.LinkBirth(CLOCK, inode, parent, b"name \xff"),
        "hard-link": records.LinkBirth(CLOCK, InodeId(PARENT), parent, b"second name"),
        "place": records.Place(CLOCK, parent, InodeId(LINK)),
        "name": records.Name(CLOCK, b"new name"),
        "deletion": records.Deletion(CLOCK, dots),
        "deletion-overwritten": records.Deletion(CLOCK, (), Why.OVERWRITTEN),
    }
    for name, body in bodies.items():
        yield name, msgpack.packb([Key.of(body, NODE).text(), codec.encode(body, NODE)])
    for name in ("content", "link", "overwritten"):
        adopted = Key.of(bodies[name], NODE)._replace(author=OTHER)
        yield f"adopted-{name}", msgpack.packb([adopted.text(), codec.encode(bodies[name], NODE)])
    ack = records.Acknowledgement(CLOCK, {WRITER: 12, OTHER: 3}, (inode,), {OTHER: 1_800_000_000_500}, asks=True)
    node = records.node_of(WRITER)
    for name, body in (("acknowledgement", ack), ("acknowledgement-any", ack._replace(builds_on=None, asks=False))):
        yield name, msgpack.packb([Key.of(body, node).text(), codec.encode(body, node)])


def transaction_forms() -> Iterator[tuple[str, bytes]]:
    """Yield transactions as they are sent: whole and plain parts, ranges that are gone, and witnesses."""
    sign = key(1).sign
    segment = Segment()
    first = segment.write({"aaa": b"1", "bbb": b"2"})
    plain = Part(0, 4, segment.write({"aaa": None, "ccc": b"3"}))
    whole = Part(3, 2, segment.whole(), whole=True)
    yield "first", make(WRITER, 1, CLOCK, [Part(0, 0, first)], sign).blob()
    yield "parts", make(WRITER, 9, CLOCK, [plain, whole], sign, [Gone(1, 4), Gone(6, 6)]).blob()
    lacking = make(WRITER, 5, CLOCK, [Part(3, 1, b"dropped"), plain], sign)
    witness = make(WRITER, 9, CLOCK + 1, [whole], sign, [Gone(1, 4), Gone(6, 6)])
    proof = [(witness.raw, witness.signature)]
    yield "witness", join(lacking.raw, lacking.signature, [None, plain.update], proof)


def issuing_certificate(byte: int) -> bytes:
    own, name = key(byte + 100), roster.issuer_name(pod_of(byte))
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    begin = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(subject, subject, own.public_key(), byte, begin, begin.replace(year=2127))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.sign(own, None).public_bytes(Encoding.DER)


def roster_forms() -> Iterator[tuple[str, bytes]]:
    """Yield the roster's records of every kind."""
    public, other = key(1).public_key().public_bytes_raw(), key(2).public_key().public_bytes_raw()
    found = roster.Found("home", b"n" * 16, "laptop", public, issuing_certificate(1), 1_800_000_000_000_000_000)
    data = roster.seal(found, "", pod_of(1), key(1).sign)
    yield "found", data
    cluster = roster.cluster_id_of(data)
    time_ns = 1_800_000_001_000_000_000
    payloads: dict[str, roster.Payload] = {
        "admit": roster.Admit("nas", Role.FULL, other, issuing_certificate(2), 2, time_ns),
        "admit-client": roster.Admit("phone", Role.CLIENT, other, None, 3, time_ns),
        "writer": roster.Writer(WRITER),
        "void": roster.Void(WRITER, 7, b"d" * 16, 12),
        "admit-openly": roster.Admit("guest", Role.FULL, other, issuing_certificate(2), 4, time_ns, trusted=False),
        "left": roster.Left(time_ns),
        "maintenance": roster.Maintenance(3, True),
        "revoke": roster.Revoke(pod_of(2), (pod_of(3),), b"c" * 16, time_ns),
        "revoke-certifying": roster.Revoke(pod_of(2), (), b"c" * 16, time_ns, (b"a" * 16, b"b" * 16)),
        "config": roster.Config(b"p" * 16, '[cluster]\nname = "home"\n', time_ns),
        "retire": roster.Retire(OTHER, 41, WRITER, 17, 5, 3),
        "retire-digest": roster.Retire(OTHER, 41, WRITER, 17, 5, 3, b"d" * 16),
        "retire-earlier": roster.Retire(OTHER, 41, WRITER, 17, 5, 3, b"", ((40, b"e" * 16), (37, b"f" * 16))),
        "order-freeze": roster.Order(1, "freeze", b"", time_ns),
        "order-unfreeze": roster.Order(2, "unfreeze", b"p" * 16, time_ns, "critical", 0, (pod_of(2),), (b"c" * 16,)),
        "order-drill": roster.Order(3, "drill", b"p" * 16, time_ns, "degraded", 30_000),
    }
    for name, payload in payloads.items():
        yield name, roster.seal(payload, cluster, pod_of(1), key(1).sign)
    yield "found-recovery", roster.seal(replace(found, recovery=other), "", pod_of(1), key(1).sign)


def gossip_bodies() -> dict[str, list[object]]:
    """Return one of each message of membership; a record in one says what no version knows yet."""
    kind = gossip.Kind
    near, flags = (pod_of(2),), gossip.Flag.MAINTENANCE
    record = gossip.Record(pod_of(1), 1 << 40, 3, flags, "[fe80::1]:7420", b"\x81\xa1u\x05", near, ("newer",))
    accusation = gossip.Accusation(pod_of(2), 7, pod_of(1), 1.5)
    updates = [gossip.encode_update(record), gossip.encode_update(accusation)]
    known = [gossip.Known(pod_of(1), 1 << 40, 3, None), gossip.Known(pod_of(2), -1, 0, accusation)]
    first, second = map(gossip.pod_bytes, (pod_of(1), pod_of(2)))
    return {
        "ping": [kind.PING, 5, updates, bytes(range(8))],
        "ping-heard": [kind.PING, 5, [], bytes(range(8)), 4],
        "ack": [kind.ACK, 5, [], bytes(range(8))],
        "request": [kind.REQUEST, 6, second, []],
        "nack": [kind.NACK, 6, []],
        "gossip": [kind.GOSSIP, updates[1:]],
        "digest": [kind.DIGEST, [gossip.encode_known(one) for one in known]],
        "wanted": [kind.WANT, [first, second]],
        "summary": [kind.SUMMARY, bytes(range(256)) * 2],
    }


def message_forms() -> Iterator[tuple[str, bytes]]:
    """Yield frames of the replicated log."""
    entries = [Entry(WRITER, 1, b"first blob"), Entry(OTHER, 300, b"")]
    page = log_messages.VectorPage(True, b"", OTHER, {WRITER: 70_000})
    frames: dict[str, tuple[int, object]] = {
        "push": (Tag.LOG_PUSH, log_messages.encode_push(entries, [pod_of(1), pod_of(2)])),
        "announcement": (Tag.LOG_PUSH, log_messages.encode_announcement({WRITER: 1, OTHER: 300})),
        "graft": (Tag.LOG_PUSH, [log_messages.PushKind.GRAFT]),
        "prune": (Tag.LOG_PUSH, [log_messages.PushKind.PRUNE]),
        "vector": (Tag.LOG_VECTOR, log_messages.encode_vector(page)),
        "since": (Tag.LOG_SINCE, [WRITER, 5, 65536]),
        "page": (Tag.ANSWER, [[6, b"sixth"], [9, b"ninth"]]),
        "want": (Tag.LOG_PUSH, log_messages.encode_want({WRITER: 0, OTHER: 299})),
        "vector-sum": (Tag.LOG_VECTOR, log_messages.encode_sum({WRITER: 70_000, OTHER: 300})),
        **{f"gossip-{name}": (Tag.GOSSIP, body) for name, body in gossip_bodies().items()},
    }
    for name, (tag, body) in frames.items():
        yield name, wire.encode(tag, body)
    for name, one in OPERATIONS.items():
        yield (
            f"operation-{name}",
            wire.encode(Tag.REQUEST, [1, Tag.OPERATION, [CLOCK, False, [], operation.pack(one), None]]),
        )


def chain_form() -> bytes:
    """Return a stored chain of starts."""
    starts = (Start(b"a" * 16, OTHER, 0), Start(b"b" * 16, OTHER, 70_000), Start(b"c" * 16, WRITER, 0))
    return incarnation.pack(Chain(starts))


def metadata(path: Path, me: int, writer: WriterId, now_s: float) -> Metadata:
    """Open a metadata.db, its ids and clock given."""
    keys = {WRITER: key(1), OTHER: key(2)}

    def verify(by: WriterId, signature: bytes, data: bytes) -> bool:
        return by in keys and roster.verify(keys[by].public_key().public_bytes_raw(), signature, data)

    roots = Roots(
        sign=key(me).sign,
        verify=verify,
        pod_of_writer=lambda by: pod_of(1 if by == WRITER else 2),
        pod_name_of=lambda by: "laptop" if by == WRITER else "nas",
        strategy_for=lambda _: Strategy.KEEP_BOTH,
    )
    with patch("crdt_meta.metadata.new_writer_id", lambda: writer):
        return Metadata(path, roots, now=lambda: now_s, has_room=lambda: True)


def content(text: str) -> ContentId:
    return ContentId(hash_bytes(text.encode()))


def told(meta: Metadata) -> list[Entry]:
    meta.log.durable(meta.log.commit())
    return meta.log.read(meta.writer, 0, 1 << 30)


async def fill(mine: Metadata, theirs: Metadata) -> None:
    """Let two pods do a bit of everything."""
    tree, sender = mine.tree, pod_of(2)
    create = partial(tree.create, uid=1000, gid=1001, mtime_ns=5)
    docs = create(ROOT_INODE, b"docs", Kind.DIRECTORY, mode=0o755)
    file = create(docs.inode, b"file \xff", Kind.FILE, mode=0o640)
    file = tree.publish(file.inode, file.link, content("one"), 3, 7, file.shown)
    tree.link(file.inode, ROOT_INODE, b"hard link")
    create(docs.inode, b"symlink", Kind.SYMLINK, mode=0o777, target=b"file")
    create(docs.inode, b"fifo", Kind.FIFO, mode=0o600)
    tree.set_xattr(file.inode, b"user.a", b"\0value")
    tree.set_attributes(docs.inode, mode=0o700)
    gone = create(docs.inode, b"gone", Kind.FILE, mode=0o644)
    tree.publish(gone.inode, gone.link, content("gone"), 4, 7, gone.shown)
    tree.unlink(docs.inode, b"gone")
    note = create(ROOT_INODE, b"note.txt", Kind.FILE, mode=0o644)
    note = tree.publish(note.inode, note.link, content("first"), 5, 7, note.shown)
    await theirs.log.receive(told(mine), sender)
    theirs.tree.publish(note.inode, note.link, content("of nas"), 6, 8, note.shown)
    told(theirs)
    tree.publish(note.inode, note.link, content("of laptop"), 9, 9, note.shown)
    await mine.log.receive(told(theirs), sender)
    tree.rename(docs.inode, b"symlink", ROOT_INODE, b"moved")
    mine.log.seal()
    mine.log.compact(0)
    tree.publish(file.inode, file.link, content("two"), 3, 10, file.shown)
    mine.acknowledgements.write({OTHER: START_S}, asks=True)
    tree.journal(file.inode, file.link, content("draft"), 5, 11, tree.resolve(b"/docs/file \xff").shown)
    tree.journal_writes(file.inode, [(5, b"more")])
    mine.store.set_meta("incarnations", chain_form())
    told(mine)


def metadata_form() -> bytes:
    """Return a whole metadata.db, compressed."""
    rng = random.Random(5)
    folder = Path(tempfile.mkdtemp())
    try:
        with patch("crdt_meta.tree.new_inode_id", lambda: InodeId(rng.randbytes(16))):
            mine = metadata(folder / "mine.db", 1, WRITER, START_S)
            theirs = metadata(folder / "theirs.db", 2, OTHER, START_S + 5)
            anyio.run(fill, mine, theirs, backend="trio")
            theirs.close()
            mine.store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            mine.close()
        return gzip.compress((folder / "mine.db").read_bytes(), 9, mtime=0)
    finally:
        shutil.rmtree(folder)


def forms() -> Iterator[tuple[str, bytes]]:
    """Yield (file name, bytes) of all forms, under the numbers of this version."""
    with patch("crdt_meta.segments.random.SystemRandom", lambda: random.Random(7)):
        for name, data in record_forms():
            yield f"record-{codec.VERSION}-{name}.bin", data
        for name, data in transaction_forms():
            yield f"transaction-{transaction.VERSION}-{name}.bin", data
        for name, data in roster_forms():
            yield f"roster-{roster.RECORD_VERSION}-{name}.bin", data
        for name, data in message_forms():
            yield f"message-{wire.PROTOCOL_VERSION}-{name}.bin", data
        yield f"starts-{incarnation.VERSION}.bin", chain_form()
        yield f"metadata-{store.FORMAT}.db.gz", metadata_form()


def main() -> None:
    """Write what isn't there."""
    FORMS.mkdir(exist_ok=True)
    for name, data in forms():
        path = FORMS / name
        if not path.exists():
            path.write_bytes(data)
            print(f"{name}: {len(data)} bytes")  # noqa: T201


if __name__ == "__main__":
    main()
