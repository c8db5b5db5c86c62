"""What pods of each version have on their disks and send is read as it was meant; what is newer is never misread."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import anyio
import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from base.errors import DamagedError, MachineError
from base.ids import ROOT_INODE, ContentId, Dot, InodeId, LinkId, PodId, WriterId, hash_bytes
from crdt_meta import codec, incarnation, records
from crdt_meta.incarnation import Chain, Start
from crdt_meta.metadata import Metadata
from crdt_meta.node import JournalEntry, Kind
from crdt_meta.records import Key, Strategy, Why
from crdt_meta.segments import Segment
from crdt_meta.transaction import Gone, Header, Named, Part, make, read
from mesh import gossip_messages as gossip
from mesh import log_messages
from mesh import records as roster
from mesh.api import Entry, Role
from mesh.gossip_messages import Accusation, Flag, Known, Message, Record
from mesh.log_messages import Push, PushKind, Since, VectorPage
from mesh.wire import Decoder, Tag
from mesh.wire import Kind as Link
from operations.serving import read_request
from tests.golden import make as maker
from tests.unit.crdt_meta.pods import Pod, exchange

FORMS = Path(__file__).parent / "forms"
LAPTOP, NAS = PodId("83561adb398fd87f8e7ed8331bff2fcb"), PodId("1eed29b1654fbca94617004d7969dfc4")
PUBLIC = bytes.fromhex("8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c")
WRITER, OTHER = WriterId(b"writer-1"), WriterId(b"writer-2")
NODE, PARENT, LINK = b"\x11" * 16, b"\x22" * 16, b"\x33" * 16
CONTENT = ContentId(bytes.fromhex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"))
CLOCK = 117964800000000123
FIRST, SECOND = Dot(WRITER, 117964800000000121), Dot(OTHER, 117964800000000122)


def form(name: str) -> bytes:
    return (FORMS / name).read_bytes()


# -- records ----------------------------------------------------------------------------------------------------------

RECORDS: dict[str, tuple[Key, records.Body]] = {
    "birth-directory": (Key("i", NODE, 0), records.Birth(CLOCK, Kind.DIRECTORY, 0o755, 1, 2, 3)),
    "birth-symlink": (Key("i", NODE, 0), records.Birth(CLOCK, Kind.SYMLINK, 0o777, 1, 2, 3, b"to/\xff")),
    "birth-device": (Key("i", NODE, 0), records.Birth(CLOCK, Kind.BLOCK, 0o600, 0, 0, 3, b"", 2049)),
    "birth-sibling": (
        Key("i", NODE, 0),
        records.Birth(*(CLOCK, Kind.FILE, 0o640, 1000, 1001, -5, b"", 0, CONTENT, 7, Strategy.LAST_WRITER_WINS, FIRST)),
    ),
    "content": (
        Key("c", NODE, CLOCK),
        records.Content(CLOCK, CONTENT, 7, -5, LinkId(NODE), (FIRST, SECOND), Strategy.KEEP_BOTH, CLOCK, 0),
    ),
    "content-through-another-link": (
        Key("c", NODE, CLOCK),
        records.Content(
            *(CLOCK, CONTENT, 7, 1152921504606846976, LinkId(LINK), (), Strategy.LAST_WRITER_WINS),
            *(117964800000000114, 4_000_000_000),
        ),
    ),
    "settled": (Key("s", NODE, 0), records.Settled(CLOCK, (FIRST, SECOND), ())),
    "settled-purged": (Key("s", NODE, 0), records.Settled(CLOCK, (), (SECOND,))),
    "overwritten": (Key("v", NODE, CLOCK), records.Overwritten(CLOCK, SECOND, CONTENT, 7, -5, Why.CONFLICT)),
    "attributes": (
        Key("a", NODE, 0),
        records.Attributes(
            CLOCK,
            {
                "mode": (117964800000000120, 0o4755),
                "uid": (CLOCK, 5),
                "gid": (CLOCK, 6),
                "mtime_ns": (117964800000000122, -7),
            },
        ),
    ),
    "xattrs": (
        Key("x", NODE, 0),
        records.Xattrs(CLOCK, {b"user.a": (CLOCK, b"\0value"), b"user.gone": (117964800000000122, None)}),
    ),
    "link": (Key("l", NODE, 0), records.LinkBirth(CLOCK, InodeId(NODE), InodeId(PARENT), b"name \xff")),
    "hard-link": (Key("l", NODE, 0), records.LinkBirth(CLOCK, InodeId(PARENT), InodeId(PARENT), b"second name")),
    "place": (Key("p", NODE, 0), records.Place(CLOCK, InodeId(PARENT), InodeId(LINK))),
    "name": (Key("n", NODE, 0), records.Name(CLOCK, b"new name")),
    "deletion": (Key("d", NODE, 0), records.Deletion(CLOCK, (FIRST, SECOND), Why.DELETED)),
    "deletion-overwritten": (Key("d", NODE, 0), records.Deletion(CLOCK, (), Why.OVERWRITTEN)),
    "acknowledgement": (
        Key("k", b"writer-1\0\0\0\0\0\0\0\0", 0),
        records.Acknowledgement(CLOCK, {WRITER: 12, OTHER: 3}, (InodeId(NODE),), {OTHER: 1800000000500}, asks=True),
    ),
    "acknowledgement-any": (
        Key("k", b"writer-1\0\0\0\0\0\0\0\0", 0),
        records.Acknowledgement(CLOCK, {WRITER: 12, OTHER: 3}, None, {OTHER: 1800000000500}, asks=False),
    ),
}
RECORDS |= {
    f"adopted-{name}": (RECORDS[name][0]._replace(author=OTHER), RECORDS[name][1])
    for name in ("content", "link", "overwritten")
}


def newer(value: bytes) -> bytes:
    """Return a msgpack list whose first item, the version, is one more."""
    version, *rest = msgpack.unpackb(value, strict_map_key=False)
    changed: bytes = msgpack.packb([version + 1, *rest])
    return changed


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_a_record(name: str) -> None:
    text, value = msgpack.unpackb(form(f"record-1-{name}.bin"))
    key, body = RECORDS[name]
    assert Key.parse(text) == key
    assert codec.decode(*key[:3], value) == body
    assert (key.text(), codec.encode(body, key.node)) == (text, value), "this version writes it otherwise"
    assert codec.decode(*key[:3], newer(value)) is None, "a newer version is misread"
    assert codec.decode("~", *key[1:3], value) is None, "an unknown kind is misread"


def test_there_is_a_form_of_every_kind_of_record() -> None:
    assert {type(body) for _, body in RECORDS.values()} == set(records.KINDS)
    assert {path.name for path in FORMS.glob("record-1-*")} == {f"record-1-{name}.bin" for name in RECORDS}


def test_records_of_a_newer_version_are_carried_along_untouched(ann: Pod, bob: Pod, eve: Pod) -> None:
    """By who applies them, who relays them, who writes the segment anew."""
    found = [msgpack.unpackb(form(f"record-1-{name}.bin")) for name in RECORDS if "ack" not in name]
    wanted = {text: newer(value) for text, value in found}
    part = Part(0, 0, Segment().write(wanted))
    tx = make(ann.writer, 1, 1, (part,), ann.key.sign)
    assert bob.hear([Entry(ann.writer, 1, tx.blob())])
    eve.hear(bob.log.read(ann.writer, 0, 1 << 20))
    for pod in (bob, eve):
        assert pod.files() == {}
        assert Segment(pod.log.table.parts(ann.writer, 0)).records() == wanted
        held = {bytes(row[0]) for row in pod.meta.store.query("SELECT value FROM record")}
        assert held == set(wanted.values())
    again = Segment([Part(0, 1, Segment([part]).whole(), whole=True)])
    assert again.records() == wanted
    exchange(bob, eve)


# -- transactions -----------------------------------------------------------------------------------------------------


def is_laptops(writer: WriterId, signature: bytes, data: bytes) -> bool:
    Ed25519PublicKey.from_public_bytes(PUBLIC).verify(signature, data)
    return writer == WRITER


PLAIN = Named(0, 4, bytes.fromhex("07181e007aac02a1e99dbee3c462e296a5c48d2482541d6e1d029c36e6db4580"), False)
WHOLE = Named(3, 2, bytes.fromhex("f8b4b702802d37845ff57094f665a824985f25b701dca97a1ee1e95cc3e48a52"), True)
GONE = (Gone(1, 4), Gone(6, 6))


def test_a_first_transaction() -> None:
    tx = read(form("transaction-1-first.bin"), is_laptops)
    assert (tx.header.writer, tx.header.sequence, tx.header.clock, tx.header.gone) == (WRITER, 1, CLOCK, ())
    (part,) = tx.parts()
    assert (part.segment, part.epoch, part.whole) == (0, 0, False)
    assert Segment([part]).records() == {"aaa": b"1", "bbb": b"2"}


def test_a_transaction_with_a_plain_and_a_whole_part_and_ranges_that_are_gone() -> None:
    tx = read(form("transaction-1-parts.bin"), is_laptops)
    assert tx.header == Header(WRITER, 9, CLOCK, (PLAIN, WHOLE), GONE)
    plain, whole = tx.parts()
    assert Segment([whole]).records() == {"bbb": b"2", "ccc": b"3"}
    first = read(form("transaction-1-first.bin"), is_laptops).parts()
    segment = Segment([first[0]])
    assert segment.apply(plain) == {"aaa": None, "ccc": b"3"}


def test_a_transaction_without_a_part_and_its_witness() -> None:
    tx = read(form("transaction-1-witness.bin"), is_laptops)
    dropped = Named(3, 1, bytes.fromhex("4da510232a33e994b21d639674abd659a8c0fce3146f1c7e43585806723a76ca"), False)
    assert tx.header == Header(WRITER, 5, CLOCK, (dropped, PLAIN), ())
    assert tx.witnesses == (Header(WRITER, 9, 117964800000000124, (WHOLE,), GONE),)
    assert [part.segment for part in tx.parts()] == [0]


@pytest.mark.parametrize("name", ["first", "parts", "witness"])
def test_a_transaction_of_a_newer_version_is_refused(name: str) -> None:
    raw, *rest = msgpack.unpackb(form(f"transaction-1-{name}.bin"))
    blob: bytes = msgpack.packb([newer(raw), *rest])
    with pytest.raises(DamagedError, match="version"):
        read(blob, lambda *_: True)


def test_a_witness_of_a_newer_version_is_refused() -> None:
    raw, signature, updates, [[witness, signed]] = msgpack.unpackb(form("transaction-1-witness.bin"))
    blob: bytes = msgpack.packb([raw, signature, updates, [[newer(witness), signed]]])
    with pytest.raises(DamagedError, match="version"):
        read(blob, lambda *_: True)


# -- the roster -------------------------------------------------------------------------------------------------------

TIME_NS = 1800000001000000000
PUBLIC_2 = bytes.fromhex("8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394")
POD_3 = PodId("9c380d6efec2ec39321d87d0424fea83")
ROSTER: dict[str, roster.Payload] = {
    "admit-client": roster.Admit("phone", Role.CLIENT, PUBLIC_2, None, 3, TIME_NS),
    "writer": roster.Writer(WRITER),
    "void": roster.Void(WRITER, 7, b"dddddddddddddddd", 12),
    "left": roster.Left(TIME_NS),
    "maintenance": roster.Maintenance(3, True),
    "revoke": roster.Revoke(NAS, (POD_3,), b"cccccccccccccccc", TIME_NS),
    "revoke-certifying": roster.Revoke(
        NAS, (), b"cccccccccccccccc", TIME_NS, (b"aaaaaaaaaaaaaaaa", b"bbbbbbbbbbbbbbbb")
    ),
    "config": roster.Config(b"pppppppppppppppp", '[cluster]\nname = "home"\n', TIME_NS),
    "retire": roster.Retire(OTHER, 41, WRITER, 17, 5, 3),
    "retire-digest": roster.Retire(OTHER, 41, WRITER, 17, 5, 3, b"dddddddddddddddd"),
    "retire-earlier": roster.Retire(
        *(OTHER, 41, WRITER, 17, 5, 3, b""), ((40, b"eeeeeeeeeeeeeeee"), (37, b"ffffffffffffffff"))
    ),
    "order-freeze": roster.Order(1, "freeze", b"", TIME_NS),
    "order-unfreeze": roster.Order(*(2, "unfreeze", b"p" * 16, TIME_NS, "critical", 0, (NAS,), (b"c" * 16,))),
    "order-drill": roster.Order(3, "drill", b"p" * 16, TIME_NS, "degraded", 30_000),
}
CERTIFICATES = {
    "found": "5c69805d0a3f747e",
    "found-recovery": "5c69805d0a3f747e",
    "admit": "cfb9a1fa363ac884",
    "admit-openly": "cfb9a1fa363ac884",
}


def check_envelope(record: roster.Record, data: bytes) -> None:
    assert (record.data, record.signer) == (data, LAPTOP)
    assert record.signed_by(PUBLIC)
    assert not record.signed_by(PUBLIC_2)


@pytest.mark.parametrize(("name", "recovery"), [("found", b""), ("found-recovery", PUBLIC_2)])
def test_the_founding_record(name: str, recovery: bytes) -> None:
    record = roster.decode(form(f"roster-1-{name}.bin"))
    check_envelope(record, form(f"roster-1-{name}.bin"))
    found = record.payload
    assert isinstance(found, roster.Found)
    assert (found.name, found.nonce, found.pod_name, found.public_key) == ("home", b"n" * 16, "laptop", PUBLIC)
    assert (found.time_ns, found.recovery) == (1800000000000000000, recovery)
    assert hash_bytes(found.issuing).hex()[:16] == CERTIFICATES[name]
    assert record.cluster == ""


@pytest.mark.parametrize(
    ("name", "called", "order", "trusted"), [("admit", "nas", 2, True), ("admit-openly", "guest", 4, False)]
)
def test_an_admission_of_a_full_pod(name: str, called: str, order: int, trusted: bool) -> None:
    record = roster.decode(form(f"roster-1-{name}.bin"))
    check_envelope(record, form(f"roster-1-{name}.bin"))
    admit = record.payload
    assert isinstance(admit, roster.Admit)
    assert (admit.name, admit.role, admit.public_key, admit.order) == (called, Role.FULL, PUBLIC_2, order)
    assert (admit.pod, admit.time_ns, admit.trusted) == (NAS, TIME_NS, trusted)
    assert hash_bytes(admit.issuing or b"").hex()[:16] == CERTIFICATES[name]


@pytest.mark.parametrize("name", sorted(ROSTER))
def test_a_record_of_the_roster(name: str) -> None:
    data = form(f"roster-1-{name}.bin")
    record = roster.decode(data)
    check_envelope(record, data)
    assert record.payload == ROSTER[name]
    assert record.cluster == roster.cluster_id_of(form("roster-1-found.bin"))
    version, kind, cluster, signer, body, signature = msgpack.unpackb(data)
    for changed in ([version + 1, kind], [version, "unheard of"]):
        later: bytes = msgpack.packb([*changed, cluster, signer, body, signature])
        carried = roster.decode(later)
        assert carried.payload is None, "a newer record is misread"
        assert carried.data == later


def test_there_is_a_form_of_every_record_of_the_roster() -> None:
    kinds = {path.name.split("-", 2)[2].removesuffix(".bin") for path in FORMS.glob("roster-1-*")}
    assert kinds == set(ROSTER) | set(CERTIFICATES)
    assert {kind.split("-")[0] for kind in kinds} == set(roster._READERS)


# -- messages ---------------------------------------------------------------------------------------------------------


def body_of(name: str, tag: Tag) -> Any:
    (frame,) = Decoder(Link.CONTROL).feed(form(f"message-1-{name}.bin"))
    assert frame.tag == tag
    return frame.body


def test_pushes() -> None:
    push = log_messages.decode_push(body_of("push", Tag.LOG_PUSH))
    entries = [Entry(WRITER, 1, b"first blob"), Entry(OTHER, 300, b"")]
    assert push == Push(PushKind.ENTRIES, entries, frozenset({LAPTOP, NAS}), {})
    marks = log_messages.decode_push(body_of("announcement", Tag.LOG_PUSH))
    assert marks == Push(PushKind.ANNOUNCE, (), frozenset(), {WRITER: 1, OTHER: 300})
    assert log_messages.decode_push(body_of("graft", Tag.LOG_PUSH)) == Push(PushKind.GRAFT)
    assert log_messages.decode_push(body_of("prune", Tag.LOG_PUSH)) == Push(PushKind.PRUNE)


def test_vectors_and_pages() -> None:
    page = log_messages.decode_vector(body_of("vector", Tag.LOG_VECTOR))
    assert page == VectorPage(True, b"", b"writer-2", {WRITER: 70000})
    assert log_messages.decode_since(body_of("since", Tag.LOG_SINCE)) == Since(WRITER, 5, 65536)
    found = log_messages.decode_page(body_of("page", Tag.ANSWER), WRITER, 5)
    assert found == [Entry(WRITER, 6, b"sixth"), Entry(WRITER, 9, b"ninth")]


@pytest.mark.parametrize("name", maker.OPERATIONS)
def test_operations_of_clients(name: str) -> None:
    number, tag, body = body_of(f"operation-{name}", Tag.REQUEST)
    assert (number, tag) == (1, Tag.OPERATION)
    request = read_request(body)
    assert (request.stamp, request.again, request.marks, request.data) == (CLOCK, False, {}, None)
    assert request.operation == maker.OPERATIONS[name]
    with pytest.raises(DamagedError):
        read_request([*body, None])
    with pytest.raises(DamagedError):
        read_request([*body[:3], [*body[3], None], None])


def test_of_messages_what_newer_versions_add_is_skipped() -> None:
    for name in ("push", "announcement", "graft", "prune", "want"):
        body = body_of(name, Tag.LOG_PUSH)
        assert log_messages.decode_push([*body, "newer"]) == log_messages.decode_push(body)
        assert log_messages.decode_push([99, *body[1:]]).kind is None
    vector, since = body_of("vector", Tag.LOG_VECTOR), body_of("since", Tag.LOG_SINCE)
    assert log_messages.decode_vector([*vector, None]) == log_messages.decode_vector(vector)
    assert log_messages.decode_since([*since, None]) == log_messages.decode_since(since)


def test_what_is_asked_and_sums() -> None:
    assert log_messages.decode_push(body_of("want", Tag.LOG_PUSH)) == Push(PushKind.WANT, marks={WRITER: 0, OTHER: 299})
    total = log_messages.decode_vector(body_of("vector-sum", Tag.LOG_VECTOR))
    assert [total] == log_messages.encode_sum({OTHER: 300, WRITER: 70_000})


GOSSIP_RECORD = Record(
    maker.pod_of(1), 1 << 40, 3, Flag.MAINTENANCE, "[fe80::1]:7420", b"\x81\xa1u\x05", (maker.pod_of(2),), ("newer",)
)
GOSSIP_ACCUSATION = Accusation(maker.pod_of(2), 7, maker.pod_of(1), 1.5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ping", Message(gossip.Kind.PING, 5, updates=[GOSSIP_RECORD, GOSSIP_ACCUSATION], sums=bytes(range(8)))),
        ("ping-heard", Message(gossip.Kind.PING, 5, updates=[], sums=bytes(range(8)), heard=4)),
        ("ack", Message(gossip.Kind.ACK, 5, updates=[], sums=bytes(range(8)))),
        ("request", Message(gossip.Kind.REQUEST, 6, maker.pod_of(2), updates=[])),
        ("nack", Message(gossip.Kind.NACK, 6, updates=[])),
        ("gossip", Message(gossip.Kind.GOSSIP, updates=[GOSSIP_ACCUSATION])),
        (
            "digest",
            Message(
                gossip.Kind.DIGEST,
                digest=[Known(maker.pod_of(1), 1 << 40, 3, None), Known(maker.pod_of(2), -1, 0, GOSSIP_ACCUSATION)],
            ),
        ),
        ("wanted", Message(gossip.Kind.WANT, wanted=[maker.pod_of(1), maker.pod_of(2)])),
        ("summary", Message(gossip.Kind.SUMMARY, sums=bytes(range(256)) * 2)),
    ],
)
def test_membership(name: str, said: Message) -> None:
    assert gossip.decode(body_of(f"gossip-{name}", Tag.GOSSIP)) == said
    (frame,) = Decoder(Link.CONTROL).feed(form(f"message-1-gossip-{name}.bin"))
    assert frame.tag == Tag.GOSSIP


def test_what_a_record_of_a_newer_version_says_is_passed_on_as_it_came() -> None:
    packed = body_of("gossip-ping", Tag.GOSSIP)[2][0]
    assert gossip.encode_update(gossip.decode([5, [packed]]).updates[0]) == packed


# -- the chain of starts ----------------------------------------------------------------------------------------------


def test_the_chain_of_starts() -> None:
    starts = (Start(b"a" * 16, OTHER, 0), Start(b"b" * 16, OTHER, 70000), Start(b"c" * 16, WRITER, 0))
    assert incarnation.unpack(form("starts-1.bin")) == Chain(starts)
    with pytest.raises(ValueError, match="version"):
        incarnation.unpack(newer(form("starts-1.bin")))


# -- a whole metadata.db ----------------------------------------------------------------------------------------------


def opened(folder: Path) -> Metadata:
    (folder / "metadata.db").write_bytes(gzip.decompress(form("metadata-2.db.gz")))
    return maker.metadata(folder / "metadata.db", 1, WriterId(b"unused!!"), 1_800_000_100.0)


SHOWN = {
    b"/docs": (Kind.DIRECTORY, 0o700, 0, 2, None, b"", LAPTOP),
    b"/docs/fifo": (Kind.FIFO, 0o600, 5, 1, None, b"", LAPTOP),
    b"/docs/file \xff": (Kind.FILE, 0o640, 10, 2, "two", b"", LAPTOP),
    b"/hard link": (Kind.FILE, 0o640, 10, 2, "two", b"", LAPTOP),
    b"/moved": (Kind.SYMLINK, 0o777, 5, 1, None, b"file", LAPTOP),
    b"/note.conflict-laptop-20270115-080000.txt": (Kind.FILE, 0o644, 9, 1, "of laptop", b"", LAPTOP),
    b"/note.txt": (Kind.FILE, 0o644, 8, 1, "of nas", b"", NAS),
}
CONTENTS = {
    "d33fb48ab5adff269ae172b29a6913ff04f6f266207a7a8e976f2ecd571d4492": "one",
    "dc770fff53f50835f8cc957e01c0d5731d3c2ed544c375493a28c09be5e09763": "two",
    "22896bcbc3d1c76a0b90c4c3523dbea532ad63196fafdbd52cced52200d3dae4": "first",
    "eaf616b573c67534625ca9413c48b3c9763bd81dd3da241206882c8fa894bdf8": "of nas",
    "473e06f504f59aed0b543c9243f39c7637692c84133f8bf3ba8df146baa6b405": "of laptop",
    "afae16e5c35fafc0bb2c5333310842c4b11e4d3946d9e09df5c194047375d47e": "gone",
}


def shown(meta: Metadata) -> dict[bytes, tuple[object, ...]]:
    root = meta.tree.get(ROOT_INODE)
    assert root is not None
    found = list(meta.tree.walk(root))[1:]
    assert all((node.uid, node.gid) == (1000, 1001) for _, node in found)
    return {
        path: (
            *(node.kind, node.mode, 0 if node.is_directory else node.mtime_ns, node.nlink),
            *(CONTENTS.get(node.content.hex()), node.target, node.author),
        )
        for path, node in found
    }


def test_a_whole_file_of_metadata(tmp_path: Path) -> None:
    meta = opened(tmp_path)
    assert meta.writer == WRITER
    assert meta.log.vector() == {WRITER: 6, OTHER: 1}
    assert shown(meta) == SHOWN
    file = meta.tree.resolve(b"/docs/file \xff")
    assert meta.tree.xattrs(file.inode) == {b"user.a": b"\0value"}
    trash = {(one.path, one.reason, CONTENTS[one.content.hex()]) for one in meta.tree.trash()}
    assert trash == {
        (b"/docs/file \xff", "overwritten", "one"),
        (b"/note.txt", "overwritten", "first"),
        (b"/docs/gone", "deleted", "gone"),
    }
    (conflict,) = meta.tree.conflicts()
    assert [CONTENTS[one.content.hex()] for one in conflict.versions] == ["of nas", "of laptop"]
    (draft,) = meta.tree.journalled()
    content = ContentId(bytes.fromhex("99c438850c146df47a9bf28631936ae02b9baff900350970e0da32b8db940c93"))
    assert draft == JournalEntry(file.inode, LinkId(file.inode), content, 5, 11, file.shown)
    assert meta.tree.journalled_writes(file.inode) == [(5, b"more")]
    ack = meta.acknowledgements.of(WRITER)
    assert ack is not None
    assert (ack.vector, ack.builds_on, ack.asks) == ({WRITER: 6, OTHER: 1}, (), True)
    assert incarnation.unpack(meta.store.get_meta("incarnations") or b"").head == b"c" * 16
    meta.view.rebuild()
    meta.tree._nodes.clear()
    assert shown(meta) == SHOWN, "a view made anew from the records differs"
    meta.tree.unlink(ROOT_INODE, b"moved")
    meta.log.commit()
    meta.close()
    again = maker.metadata(tmp_path / "metadata.db", 1, WriterId(b"unused!!"), 1_800_000_100.0)
    assert shown(again).keys() == SHOWN.keys() - {b"/moved"}
    again.close()


def test_its_log_can_be_sent(tmp_path: Path) -> None:
    """A pod that has nothing learns from it what it shows."""
    meta = opened(tmp_path)
    other = maker.metadata(tmp_path / "other.db", 2, WriterId(b"writer-3"), 1_800_000_100.0)

    async def hear() -> None:
        for writer in (WRITER, OTHER):
            await other.log.receive(meta.log.read(writer, 0, 1 << 20), LAPTOP)

    anyio.run(hear, backend="trio")
    assert shown(other) == SHOWN
    assert list(other.tree.trash()) == list(meta.tree.trash())
    meta.close()
    other.close()


@pytest.mark.parametrize("version", [1, 3, 1000])
def test_a_file_of_another_format_is_left_as_it_is(tmp_path: Path, version: int) -> None:
    meta = opened(tmp_path)
    meta.store.db.execute(f"PRAGMA user_version = {version}")
    meta.store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    meta.close()
    before = (tmp_path / "metadata.db").read_bytes()
    with pytest.raises(MachineError, match="newer" if version > 2 else "early"):
        maker.metadata(tmp_path / "metadata.db", 1, WRITER, 1_800_000_100.0)
    assert (tmp_path / "metadata.db").read_bytes() == before


# -- the files themselves ---------------------------------------------------------------------------------------------


def test_this_version_still_writes_what_it_wrote() -> None:
    """Whoever changes a form gives it another number, and makes its file beside the old one."""
    depends_on_libraries = ("transaction", "metadata")
    for name, data in maker.forms():
        assert (FORMS / name).exists(), f"{name}: run python -m tests.golden.make"
        if not name.startswith(depends_on_libraries):
            assert (FORMS / name).read_bytes() == data, f"{name} changed under the same number"
