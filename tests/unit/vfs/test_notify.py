import threading
import time

from vfs import notify
from vfs.notify import Notifier


class Kernel:
    """Takes notifications; can be made to hang as the real one does."""

    def __init__(self):
        self.seen = []
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.errors = {}

    def send(self, item, attributes_only):
        self.entered.set()
        assert self.open.wait(10)
        self.seen.append((item, attributes_only))
        if item in self.errors:
            raise self.errors[item]


def drained(notifier, kernel, count):
    end = time.monotonic() + 60
    while len(kernel.seen) < count and time.monotonic() < end:
        threading.Event().wait(0.001)
    notifier.stop()
    assert notifier.join(10)
    return kernel.seen


def test_duplicates_collapse_and_pages_win_over_attributes():
    kernel = Kernel()
    notifier = Notifier(kernel.send)
    for _ in range(5):
        notifier.entry(1, b"a")
        notifier.inode(7, attributes_only=True)
        notifier.inode(8, attributes_only=True)
    notifier.inode(7)
    notifier.inode(7, attributes_only=True)
    notifier.start()
    assert drained(notifier, kernel, 3) == [((1, b"a"), False), ((7, None), False), ((8, None), True)]


def test_what_the_kernel_does_not_know_and_what_it_refuses_does_not_end_the_thread(caplog):
    kernel = Kernel()
    kernel.errors = {(1, b"gone"): FileNotFoundError(), (2, None): OSError(5, "no"), (3, None): RuntimeError()}
    notifier = Notifier(kernel.send)
    notifier.entry(1, b"gone")
    notifier.inode(2)
    notifier.inode(3)
    notifier.inode(4)
    notifier.start()
    assert [item for item, _ in drained(notifier, kernel, 4)][-1] == (4, None)
    assert "gone" not in caplog.text
    assert len(caplog.records) == 2


def test_an_inode_that_the_kernel_does_not_know_yet_is_named_again(monkeypatch):
    kernel = Kernel()
    kernel.errors = {(7, None): FileNotFoundError(), (8, None): FileNotFoundError()}
    monkeypatch.setattr(notify, "AGAIN_S", (0.001, 0.001))
    notifier = Notifier(kernel.send)
    notifier.inode(7)
    notifier.start()
    assert drained(notifier, kernel, 3) == [((7, None), False)] * 3, "it may be making it out of an older answer"


def test_putting_never_waits_for_a_kernel_that_hangs_and_the_watchdog_tells(monkeypatch, caplog):
    kernel = Kernel()
    kernel.open.clear()
    notifier = Notifier(kernel.send)
    notifier.start()
    notifier.inode(1)
    assert kernel.entered.wait(10)
    notifier.inode(2)
    assert not notifier.check()
    monkeypatch.setattr(notify, "STUCK_S", 0.0)
    assert notifier.check()
    assert notifier.check()
    assert caplog.text.count("stuck") == 1
    assert not notifier.join(0.0)
    kernel.open.set()
    assert len(drained(notifier, kernel, 2)) == 2


def test_the_queue_is_bounded_and_says_that_it_overflowed(monkeypatch):
    monkeypatch.setattr(notify, "QUEUE_LIMIT", 10)
    notifier = Notifier(Kernel().send)
    for number in range(2, 13):
        notifier.inode(number)
    assert len(notifier) <= 10
    assert notifier.take_overflow()
    assert not notifier.take_overflow()


def test_after_stop_nothing_is_sent():
    kernel = Kernel()
    notifier = Notifier(kernel.send)
    notifier.stop()
    notifier.inode(1)
    notifier.start()
    assert notifier.join(10)
    assert kernel.seen == []
