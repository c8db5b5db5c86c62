"""Accepts connections and decides what may happen on each: a verified pod, a joiner, or nobody.

Strangers are bounded in number, time and bytes before anything is known of them, and logged once a minute for each
address. When there are too many, the one that has taken longest gives way: a pod shows who it is within milliseconds,
so that whoever opens connections and says nothing keeps nobody out.
"""

from __future__ import annotations

import errno
import logging
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
from anyio.abc import SocketAttribute, SocketListener, SocketStream, TaskGroup

from base.errors import MachineError, RefusedError, WormholeError
from mesh.address import is_wildcard, parse_address
from mesh.channel import Channel
from mesh.handshake import HANDSHAKE_S, refuse
from mesh.join_stream import LIFETIME_S, MAX_TOGETHER, JoinHandler, JoinStream
from mesh.quiet import QuietLog

MAX_STRANGERS: Final = 64
"""Connections under way that haven't shown who they are."""
MAX_STRANGERS_OF_HOST: Final = 16
GRACE_S: Final = 0.5
IPV4_ANY: Final = "0.0.0.0"  # noqa: S104 (every link is TLS with both sides verified)

logger = logging.getLogger(__name__)


async def bind(listen: str) -> list[SocketListener]:
    """Listen on ``HOST:PORT`` (port 0: any free one). Raises `MachineError` when that isn't possible.

    A host that means every interface means those of IPv4 and of IPv6, as far as this machine has them.
    """
    host, port = parse_address(listen)
    try:
        listeners = await _bind(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise MachineError(
                f"The port {port} is in use.", "Choose another one with --listen HOST:PORT, or stop who uses it."
            ) from error
        reason = error.strerror or str(error)
        raise MachineError(f"This machine can't listen on {listen}: {reason}.", "Check --listen.") from error
    return listeners


async def _bind(host: str, port: int) -> list[SocketListener]:
    listeners: list[SocketListener] = []
    failed: OSError | None = None
    for one in dict.fromkeys((host or IPV4_ANY, IPV4_ANY, "::")) if is_wildcard(host) else (host,):
        try:
            multi = await anyio.create_tcp_listener(local_host=one, local_port=port, backlog=128)
        except OSError as error:
            failed = failed or error
            if error.errno == errno.EADDRINUSE:
                break
            continue
        listeners += [listener for listener in multi.listeners if isinstance(listener, SocketListener)]
        port = port_of(listeners)
    if failed is not None and not listeners:
        raise failed
    return listeners


def port_of(listeners: list[SocketListener]) -> int:
    """Return the port listened on."""
    return int(listeners[0].extra(SocketAttribute.local_port))  # noqa: S610


class Listener:
    """The door of a pod."""

    def __init__(
        self,
        context: Callable[[], ssl.SSLContext],
        certificate: Callable[[], bytes],
        accept: Callable[[Channel], Awaitable[None]],
    ) -> None:
        """``context`` and ``certificate`` give the current ones; ``accept`` does the handshake with a pod."""
        self._context = context
        self._certificate = certificate
        self._accept = accept
        self._strangers: dict[anyio.CancelScope, tuple[str, float]] = {}
        self._joining = 0
        self._quiet = QuietLog(logger, anyio.current_time)
        self.join_handler: JoinHandler | None = None

    async def run(self, listeners: list[SocketListener]) -> None:
        """Accept until cancelled; the listeners are closed then."""
        try:
            async with anyio.create_task_group() as group:
                for listener in listeners:
                    group.start_soon(self._accept_from, listener, group)
        finally:
            with anyio.CancelScope(shield=True):
                for listener in listeners:
                    await listener.aclose()

    async def _accept_from(self, listener: SocketListener, group: TaskGroup) -> None:
        while True:
            try:
                stream = await listener.accept()
                host = str(stream.extra(SocketAttribute.remote_address)[0])  # noqa: S610
            except (OSError, anyio.BrokenResourceError, anyio.TypedAttributeLookupError) as error:
                self._quiet.warning("", f"a connection can't be accepted: {error}")
                await anyio.sleep(0.1)
                continue
            if not self._make_room(host):
                await anyio.aclose_forcefully(stream)
                continue
            scope = anyio.CancelScope()
            self._strangers[scope] = host, anyio.current_time()
            group.start_soon(self._meet, stream, host, scope)

    def _make_room(self, host: str) -> bool:
        """Let the oldest stranger of ``host`` go, or of the host with most of them, if there are too many.

        Return whether there is room now. Of one host none gives way that has just begun: many pods of one machine, all
        at once and slow, would keep each other from ever ending.
        """
        hosts = Counter(other for other, _ in self._strangers.values())
        crowd = host if hosts[host] >= MAX_STRANGERS_OF_HOST else ""
        if len(self._strangers) >= MAX_STRANGERS:
            crowd = crowd or hosts.most_common(1)[0][0]
        if not crowd:
            return True
        self._quiet.warning(crowd, f"too many unfinished connections; one from {crowd} was closed")
        oldest, since = next((scope, since) for scope, (other, since) in self._strangers.items() if other == crowd)
        if crowd == host and anyio.current_time() - since < GRACE_S:
            return False
        del self._strangers[oldest]
        oldest.cancel()
        return True

    async def _meet(self, stream: SocketStream, host: str, scope: anyio.CancelScope) -> None:
        """Find out who connects; must not raise."""
        joining: Channel | None = None
        try:
            with scope:
                with anyio.fail_after(HANDSHAKE_S):
                    channel = await Channel.open(stream, self._context(), server_side=True)
                if channel.peer_certificate is None:
                    joining = channel
                else:
                    await self._accept(channel)
        except TimeoutError:
            self._quiet.warning(host, f"a connection from {host} was closed: no handshake in time")
        except WormholeError as error:
            self._quiet.warning(host, f"a connection from {host} was closed: {error.message}")
        except Exception:
            logger.exception("a connection from %s failed", host)
        finally:
            self._strangers.pop(scope, None)
            if scope.cancel_called and joining is None:
                with anyio.CancelScope(shield=True):
                    await anyio.aclose_forcefully(stream)
        if joining is not None:
            await self._serve_join(joining, host)

    async def _serve_join(self, channel: Channel, host: str) -> None:
        handler = self.join_handler
        try:
            if handler is None or self._joining >= MAX_TOGETHER:
                reason = "This pod admits nobody now." if handler is None else "Too many pods are joining now."
                await refuse(channel, RefusedError(reason, "Try again in a minute, or ask another pod."))
                return
            self._joining += 1
            try:
                with anyio.fail_after(LIFETIME_S):
                    await handler(JoinStream(channel, self._certificate()))
            finally:
                self._joining -= 1
        except TimeoutError:
            self._quiet.warning(host, f"a join from {host} took too long")
        except WormholeError as error:
            self._quiet.warning(host, f"a join from {host} ended: {error.message}")
            await refuse(channel, error)
        except Exception:
            logger.exception("a join from %s failed", host)
        finally:
            await channel.close()
