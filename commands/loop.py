"""Running the few commands that speak to the network themselves (`join`, `nearby`); everything else asks the pod."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

_Result = TypeVar("_Result")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_async(function: Callable[[], Awaitable[_Result]]) -> _Result:
    """Run ``function`` on an event loop and return its result; a signal cancels it first and then has its way."""
    import anyio

    arrived: list[signal.Signals] = []
    outcome: list[_Result] = []
    failure: list[Exception] = []

    async def watch(signals: AsyncIterator[signal.Signals], scope: anyio.CancelScope) -> None:
        async for number in signals:
            arrived.append(number)
            scope.cancel()

    async def main() -> None:
        with anyio.open_signal_receiver(*_SIGNALS) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(watch, signals, group.cancel_scope)
                    try:
                        outcome.append(await function())
                    except Exception as error:  # raised outside the group, which would wrap it
                        failure.append(error)
                    group.cancel_scope.cancel()
            finally:
                signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)

    # Outside the receiver a signal would be an exception in the middle of the loop's own code: it waits meanwhile.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        anyio.run(main, backend="trio")
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    if arrived:
        signal.raise_signal(arrived[0])
    if failure:
        raise failure[0]
    if not outcome:  # the signal is one that this process ignores
        raise KeyboardInterrupt
    return outcome[0]
