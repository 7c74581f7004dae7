"""psycopg2 in trio programs: its waits let other tasks run."""

import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import trio

from greenwait._elsewhere import missing_name
from greenwait._install import check_registered
from greenwait._synchronous import check_synchronous
from greenwait._waiter import READ, WRITE, register
from greenwait.trio._adapter import TrioAdapter, TrioWorker
from greenwait.trio._request import CHECKPOINT, Request

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = ["run"]

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_adapter = TrioAdapter()


async def run(  # pragma: no cover: coverage.py is late to see which greenlet runs
    function: Callable[_Parameters, _Result],
    /,
    *args: _Parameters.args,
    **kwargs: _Parameters.kwargs,
) -> _Result:
    """Call synchronous code on this thread; while it waits for the server other tasks run.

    :param function: called with the further arguments, in a greenlet, in a copy of the
        task's context variables: an outer ``greenwait.timeout()`` applies to it.
    :param args: passed on to it.
    :param kwargs: passed on to it.
    :returns: what it returns.
    :raises BaseException: what it raises.
    :raises TypeError: *function* is not a synchronous function.
    :raises RuntimeError: trio does not run in this thread, it is called below ``run()``, or
        greenwait's callback is not registered.

    When a cancel scope around it is cancelled, the query under way is cancelled on the
    server, its end is waited for within the callback's ``cancel_grace``, and trio.Cancelled
    is raised where the code waits: the connection stays usable. A commit is not cancelled.
    """
    check_synchronous("greenwait.trio.run()", function)
    result: _Result = await _run(TrioWorker(function, args, kwargs))
    return result


@trio.lowlevel.enable_ki_protection  # an interrupt is raised where it waits, and nowhere else
async def _run(worker: TrioWorker) -> Any:  # pragma: no cover: as above
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        raise RuntimeError(
            "greenwait.trio.run() is awaited in a trio task, below trio.run(); in asyncio, use "
            "greenwait.aio.run()"
        ) from None
    check_registered("greenwait.trio")
    register(_adapter)
    await trio.lowlevel.checkpoint()
    found: Any = worker.switch()
    while not worker.dead:
        try:
            events = await _wait(found)
        except BaseException as exc:
            found = worker.throw(exc)
        else:
            found = worker.switch(events)
    return worker.outcome()


async def _wait(request: Request) -> int:
    """Wait as *request* asks; return the events that came, or 0 when the time is up."""
    if request is CHECKPOINT:
        await trio.lowlevel.checkpoint_if_cancelled()
        return 0
    seconds = float("inf") if request.seconds is None else request.seconds
    with trio.move_on_after(seconds, shield=request.draining) as scope:
        try:
            if request.events == READ:
                await trio.lowlevel.wait_readable(request.fd)
            elif request.events == WRITE:
                await trio.lowlevel.wait_writable(request.fd)
            else:
                await _wait_for_either(request.fd)
        except trio.BusyResourceError:  # another task waits on it: poll every 10 ms
            await trio.sleep(0.01)
    return 0 if scope.cancelled_caught else request.events


async def _wait_for_either(fd: int) -> None:
    async def first(wait: Callable[[int], Any]) -> None:
        await wait(fd)
        nursery.cancel_scope.cancel()

    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first, trio.lowlevel.wait_readable)
            nursery.start_soon(first, trio.lowlevel.wait_writable)
    except BaseExceptionGroup as group:  # the exceptions of both; usually trio.Cancelled
        others = group.split(trio.Cancelled)[1]
        failure = (others or group).exceptions[0]
    if failure is not None:
        try:
            raise failure
        finally:
            failure = None  # or it would be kept by its own traceback


def __getattr__(name: str) -> Any:
    raise missing_name(__name__, name)
