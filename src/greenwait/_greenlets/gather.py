"""Concurrent calls, with their results in order: ``gather()`` and ``map()``."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextvars import copy_context
from functools import partial
from typing import TypeVar

from greenlet import GreenletExit

from greenwait._greenlets.hub import (
    Hub,
    Job,
    each_in_shared_hub,
    hub_here,
    in_shared_hub,
    join,
    raise_first,
)
from greenwait._greenlets.local import call_in_scope
from greenwait._synchronous import check_synchronous

__all__ = ["gather", "map"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def gather(*callables: Callable[[], _Result], limit: int | None = None) -> list[_Result]:
    """Call all of *callables*, each as a job of this thread's hub, and return their results.

    :param callables: functions without parameters; ``functools.partial`` gives them some.
    :param limit: how many run at once; None: all of them.
    :returns: their results, in their order.
    :raises BaseException: what the first of them that failed has raised. The others are
        cancelled then: their queries stop on the server, their connections stay usable.
        If others failed by themselves, their exceptions are its ``__cause__``, several of
        them as an ExceptionGroup.
    :raises TypeError: one of *callables* is not a synchronous function, or *limit* is not an
        integer.
    :raises ValueError: *limit* is less than 1.
    :raises RuntimeError: greenwait's callback is not registered.

    An interrupt, such as Ctrl-C, cancels all of them, and is raised when they have ended. A
    second one costs their connections. Each is called in a copy of the caller's context
    variables: a ``greenwait.timeout()`` that is entered around ``gather()`` applies to all.
    """
    for each in callables:
        check_synchronous("gather()", each)
    context = copy_context()  # not that of a worker, which calls several
    workers = len(callables) if limit is None else min(_checked(limit, "limit"), len(callables))
    results: dict[int, _Result] = {}
    failures: list[BaseException] = []
    todo = iter(enumerate(callables))
    jobs: list[Job[None]] = []
    at_work: Hub | None = None

    def work() -> None:
        for index, call in todo:
            try:
                results[index] = call_in_scope(context.copy(), call)
            except GreenletExit:
                raise
            except BaseException as exc:
                if hub_here() is not at_work:  # it leaves a child that it has forked
                    raise  # pragma: no cover: what was running at a fork is not traced in the child
                failures.append(exc)
                if len(failures) == 1:  # once: a second cancel would cost their connections
                    for job in jobs:
                        job.cancel()
            if failures:
                break

    def run(hub: Hub) -> BaseException | None:
        nonlocal at_work, jobs
        at_work = hub
        jobs += [hub.spawn(work) for _ in range(workers)]
        return join(hub, jobs)

    failure = in_shared_hub(run)
    if failure is not None:
        raise failure
    if failures:
        raise_first(failures)
    return [results[index] for index in range(len(callables))]


def map(  # noqa: A001, the fixed name
    fn: Callable[[_Item], _Result], iterable: Iterable[_Item], *, concurrency: int = 32
) -> Generator[_Result, None, None]:
    """Yield ``fn(item)`` for each item, in order; several are under way at once.

    :param fn: the function; each call is a job of this thread's hub.
    :param iterable: the items; they are consumed as results are requested.
    :param concurrency: how many calls are under way, or done and not yielded yet.
    :raises BaseException: what a call has raised, in its place. Calls under way are cancelled.
    :raises TypeError: *fn* is not a synchronous function, or *concurrency* is not an integer.
    :raises ValueError: *concurrency* is less than 1.
    :raises RuntimeError: greenwait's callback is not registered.

    It begins when the first result is requested. Closing the iterator cancels the calls under
    way: their queries stop on the server, their connections stay usable. Each call runs in a
    copy of the context variables of the code that requested a result when the call began.
    """
    check_synchronous("map()", fn)
    map_in = partial(_map, fn, iter(iterable), _checked(concurrency, "concurrency"))
    return each_in_shared_hub(map_in)


def _map(
    fn: Callable[[_Item], _Result], items: Iterator[_Item], concurrency: int, hub: Hub
) -> Generator[_Result, None, None]:
    jobs: deque[Job[_Result]] = deque()
    try:
        for item in items:
            jobs.append(hub.spawn(fn, item))
            if len(jobs) == concurrency:
                yield _first_result(jobs)
        while jobs:
            yield _first_result(jobs)
    except BaseException as exc:
        failure = join(hub, list(jobs), exc)
        if failure is None or failure is exc:
            raise
        raise failure from exc


def _first_result(jobs: "deque[Job[_Result]]") -> _Result:
    """Wait for the first job, remove it, and return its result."""
    result = jobs[0].result()
    jobs.popleft()
    return result


def _checked(value: int, name: str) -> int:
    # Callers may not use a type checker.
    if isinstance(value, bool) or not isinstance(value, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{name} must be a number of calls, not {type(value).__name__!r}")
    if value < 1:
        raise ValueError(f"{name}={value}: it must be 1 or more")
    return value
