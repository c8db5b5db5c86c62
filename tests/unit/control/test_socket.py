"""The control socket for real: a server on trio in one thread, the synchronous client here."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import anyio.from_thread
import pytest

from base.errors import (
    DamagedError,
    MachineError,
    NotRunningError,
    RefusedError,
    UnreachableError,
    UsageError,
    WormholeError,
)
from base.home import Home
from control import server as server_module
from control.client import call
from control.protocol import REPLY_LIMIT_BYTES, REQUEST_LIMIT_BYTES
from control.server import Emit, Handler, serve

DEADLINE_S = 20


@contextmanager
def serving(home: Home, handlers: Mapping[str, Handler]) -> Iterator[Callable[[], None]]:
    """Serve in a thread of its own; yields what stops it."""
    with anyio.from_thread.start_blocking_portal("trio") as portal:
        scopes: list[anyio.CancelScope] = []

        async def run(*, task_status: anyio.abc.TaskStatus[None]) -> None:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await serve(home.socket, handlers, task_status=task_status)

        future, _ = portal.start_task(run)

        def stop() -> None:
            portal.call(scopes[0].cancel)
            future.result(DEADLINE_S)

        try:
            yield stop
        finally:
            stop()


async def echo(args: dict[str, object], emit: Emit) -> dict[str, object]:
    return {"got": args}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_call_gets_its_result(home: Home) -> None:
    with serving(home, {"echo": echo}):
        assert call(home, "echo", {"path": "/a\udcff"}) == {"got": {"path": "/a\udcff"}}
        assert call(home, "echo") == {"got": {}}


def test_events_come_in_order_before_the_result(home: Home) -> None:
    async def count(args: dict[str, object], emit: Emit) -> dict[str, object]:
        for number in range(500):
            await emit({"n": number})
        return {"done": True}

    seen: list[object] = []
    with serving(home, {"count": count}):
        assert call(home, "count", on_event=lambda event: seen.append(event["n"])) == {"done": True}
    assert seen == list(range(500))


def test_the_error_of_a_handler_is_raised_at_the_caller(home: Home) -> None:
    async def refuse(args: dict[str, object], emit: Emit) -> dict[str, object]:
        raise RefusedError("Not safe.", "Wait.")

    with serving(home, {"refuse": refuse}), pytest.raises(RefusedError, match="Not safe") as caught:
        call(home, "refuse")
    assert caught.value.advice == "Wait."


def test_a_bug_in_a_handler_is_one_sentence_for_the_caller_and_a_traceback_in_the_log(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    async def bug(args: dict[str, object], emit: Emit) -> dict[str, object]:
        raise ZeroDivisionError("secret detail")

    with serving(home, {"bug": bug, "echo": echo}):
        with pytest.raises(WormholeError) as caught:
            call(home, "bug")
        assert "secret detail" not in str(caught.value)
        assert call(home, "echo") == {"got": {}}
    assert "secret detail" in caplog.text


def test_an_unknown_operation_is_refused(home: Home) -> None:
    with serving(home, {}), pytest.raises(UsageError, match="does not know"):
        call(home, "nope")


def test_nobody_listening_is_not_running(home: Home) -> None:
    with pytest.raises(NotRunningError):
        call(home, "status")
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(home.socket))
    dead.close()
    with pytest.raises(NotRunningError):
        call(home, "status")


def test_a_dead_pods_socket_is_replaced_and_ours_removed_at_the_end(home: Home) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(home.socket))
    dead.close()
    with serving(home, {"echo": echo}):
        assert call(home, "echo") == {"got": {}}
    assert not home.socket.exists()


def test_the_socket_is_for_its_owner_only(home: Home) -> None:
    before = os.umask(0)
    try:
        with serving(home, {"echo": echo}):
            assert stat.S_IMODE(home.socket.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_long_home_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("ö" * 100)
    deep.mkdir(parents=True)
    home = Home(deep)
    with serving(home, {"echo": echo}):
        assert stat.S_ISSOCK(home.socket.stat().st_mode)
        assert call(home, "echo", {"x": 1}) == {"got": {"x": 1}}


def test_a_folder_that_is_gone_is_an_error_of_the_machine(tmp_path: Path) -> None:
    with pytest.raises(MachineError), serving(Home(tmp_path / "gone"), {}):
        pass


def test_silence_ends_at_the_deadline_and_the_handler_with_it(home: Home) -> None:
    cancelled = threading.Event()

    async def hang(args: dict[str, object], emit: Emit) -> dict[str, object]:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()
        return {}

    with serving(home, {"hang": hang}):
        with pytest.raises(UnreachableError, match="did not answer"):
            call(home, "hang", timeout_s=0.2)
        assert cancelled.wait(DEADLINE_S)


def test_a_client_that_goes_away_cancels_its_handler_only(home: Home) -> None:
    cancelled = threading.Event()

    async def talk(args: dict[str, object], emit: Emit) -> dict[str, object]:
        try:
            while True:
                await emit({"x": 1})
                await anyio.sleep(0.001)
        finally:
            cancelled.set()

    def interrupt(event: dict[str, object]) -> None:
        raise KeyboardInterrupt

    with serving(home, {"talk": talk, "echo": echo}):
        with pytest.raises(KeyboardInterrupt):
            call(home, "talk", on_event=interrupt)
        assert cancelled.wait(DEADLINE_S)
        assert call(home, "echo") == {"got": {}}


def test_the_pod_stopping_is_unreachable_and_the_operation_that_stops_it_is_answered(home: Home) -> None:
    scope: list[anyio.CancelScope] = []

    async def down(args: dict[str, object], emit: Emit) -> dict[str, object]:
        scope[0].cancel()
        return {"down": True}

    async def hang(args: dict[str, object], emit: Emit) -> dict[str, object]:
        await emit({"hangs": True})
        await anyio.sleep_forever()
        return {}

    with anyio.from_thread.start_blocking_portal("trio") as portal:

        async def run(*, task_status: anyio.abc.TaskStatus[None]) -> None:
            with anyio.CancelScope() as mine:
                scope.append(mine)
                await serve(home.socket, {"down": down, "hang": hang}, task_status=task_status)

        future, _ = portal.start_task(run)
        answers: list[object] = []
        hanging = threading.Event()

        def call_hang() -> None:
            try:
                call(home, "hang", on_event=lambda event: hanging.set())
            except WormholeError as error:
                answers.append(error)

        thread = threading.Thread(target=call_hang)
        thread.start()
        assert hanging.wait(DEADLINE_S)
        assert call(home, "down") == {"down": True}
        thread.join(DEADLINE_S)
        future.result(DEADLINE_S)
    assert [type(answer) for answer in answers] == [UnreachableError]


def _raw(home: Home) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(DEADLINE_S)
    connection.connect(str(home.socket))
    return connection


def _read_all(connection: socket.socket) -> bytes:
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionResetError:  # closed with our bytes unread
        pass
    return data


@pytest.mark.parametrize("sent", [b"garbage\n", b"\n", b'{"op":"echo"}\n', b"x" * (REQUEST_LIMIT_BYTES + 70_000)])
def test_garbage_is_answered_with_an_error_and_harms_nobody(home: Home, sent: bytes) -> None:
    with serving(home, {"echo": echo}):
        with _raw(home) as connection:
            with suppress(BrokenPipeError):
                connection.sendall(sent)
            assert b"DamagedError" in _read_all(connection)
        assert call(home, "echo") == {"got": {}}


def test_a_client_that_says_nothing_is_let_go(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "REQUEST_S", 0.1)
    with serving(home, {"echo": echo}), _raw(home) as connection:
        assert b"UnreachableError" in _read_all(connection)


def test_a_client_that_does_not_read_is_let_go(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "SEND_S", 0.2)
    ended = threading.Event()

    async def flood(args: dict[str, object], emit: Emit) -> dict[str, object]:
        try:
            while True:
                await emit({"x": "y" * 100_000})
        finally:
            ended.set()

    with serving(home, {"flood": flood, "echo": echo}), _raw(home) as connection:
        connection.sendall(b'{"op":"flood","args":{}}\n')
        assert ended.wait(DEADLINE_S)
        assert call(home, "echo") == {"got": {}}


def test_a_result_beyond_the_limit_is_an_error(home: Home) -> None:
    async def huge(args: dict[str, object], emit: Emit) -> dict[str, object]:
        return {"x": "y" * REPLY_LIMIT_BYTES}

    with serving(home, {"huge": huge}), pytest.raises(DamagedError, match="too long"):
        call(home, "huge")


def test_too_many_commands_are_told_so(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "CONNECTION_LIMIT", 2)
    release = threading.Event()
    entered = threading.Semaphore(0)

    async def hold(args: dict[str, object], emit: Emit) -> dict[str, object]:
        entered.release()
        await anyio.to_thread.run_sync(release.wait)
        return {}

    with serving(home, {"hold": hold}):
        threads = [threading.Thread(target=call, args=(home, "hold")) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert entered.acquire(timeout=DEADLINE_S)
        try:
            with pytest.raises(UnreachableError, match="too many"):
                call(home, "hold")
        finally:
            release.set()
            for thread in threads:
                thread.join(DEADLINE_S)


def test_a_lying_pod_does_not_fill_the_clients_memory(home: Home) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(home.socket))
    listener.listen(1)

    def lie() -> None:
        connection, _ = listener.accept()
        with connection:
            try:
                while True:
                    connection.sendall(b"x" * (1 << 20))
            except OSError:
                return

    thread = threading.Thread(target=lie)
    thread.start()
    with pytest.raises(DamagedError):
        call(home, "status")
    thread.join(DEADLINE_S)
    listener.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="takes two users")
def test_another_user_is_refused_even_where_the_socket_lets_him(home: Home) -> None:
    for folder in (home.path, *home.path.parents):
        if os.access(folder, os.W_OK) and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    with serving(home, {"echo": echo}):
        home.socket.chmod(0o666)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            answer = b"other"
            try:
                os.setgid(65534)
                os.setuid(65534)
                call(home, "echo")
                answer = b"let in"
            except RefusedError:
                answer = b"refused"
            finally:
                os.write(writer, answer)
                os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)
        assert os.read(reader, 100) == b"refused"
        os.close(reader)
