import errno
import os

import pytest

from base.errors import FileSystemError
from base.ids import ROOT_INODE, InodeId
from vfs.inodes import ROOT_NUMBER, Inodes, number_of


def test_a_number_is_the_first_eight_bytes_as_a_positive_integer_and_the_root_is_one():
    inode = InodeId(bytes.fromhex("ff00000000000001") + bytes(8))
    assert number_of(inode) == 0x7F00000000000001
    assert number_of(ROOT_INODE) == ROOT_NUMBER == 1
    for low in (0, 1):
        assert number_of(InodeId(low.to_bytes(8, "big") + b"x" * 8)) > ROOT_NUMBER


def test_the_same_id_has_the_same_number_in_every_table():
    inode = InodeId(os.urandom(16))
    assert Inodes().number(inode) == Inodes().number(inode)


def test_an_entry_lives_as_long_as_the_kernel_counts_it():
    table = Inodes()
    inode = InodeId(os.urandom(16))
    known = table.entry(inode)
    with pytest.raises(FileSystemError) as caught:
        table.find(known.number)
    assert caught.value.errno == errno.ESTALE
    for _ in range(3):
        table.looked_up(known)
    table.forget(known.number, 2)
    assert table.find(known.number) is known
    table.forget(known.number, 1)
    assert table.get(inode) is None
    assert len(table) == 1


def test_the_root_is_never_forgotten_and_unknown_numbers_do_no_harm():
    table = Inodes()
    table.forget(ROOT_NUMBER, 10)
    table.forget(12345, 1)
    assert table.find(ROOT_NUMBER).inode == ROOT_INODE


def test_two_ids_that_share_eight_bytes_get_two_numbers():
    table = Inodes()
    first, second = (InodeId(b"\x01" * 8 + bytes([last]) * 8) for last in (1, 2))
    one, two = table.entry(first), table.entry(second)
    table.looked_up(one)
    two = table.entry(second)
    table.looked_up(two)
    assert one.number != two.number
    assert table.get(first) is one
    assert table.get(second) is two
    table.forget(one.number, 1)
    assert table.get(second) is two
    assert table.get(first) is None
