"""The hub: many jobs on one thread, each in a greenlet.

A job is a function that runs in a greenlet. The hub has no greenlet of its own: one that steps
aside and finds none due polls the descriptors, and sleeps if none is ready.
"""

from collections.abc import Callable, Generator, Iterable
from types import GenericAlias, TracebackType
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar, final

__all__ = [
    "Hub",
    "Job",
    "SharedHub",
    "each_in_shared_hub",
    "hub_here",
    "in_shared_hub",
    "join",
    "raise_first",
]

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

@final
class Job(Generic[_Result]):
    """A call of a function in a greenlet of its own; ``Hub.spawn()`` makes them."""
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    def done(self) -> bool:
        """Return whether it has ended: returned, failed or been cancelled."""
    def result(self, timeout: float | None = None) -> _Result:
        """Return what the function has returned, or raise what it has raised.

        :param timeout: seconds to wait for that; None sets no limit.
        :raises TimeoutError: it is still at work.
        :raises concurrent.futures.CancelledError: it was cancelled.
        :raises RuntimeError: called in another thread than the hub's, or by the job itself.

        Other jobs go on meanwhile. A signal handler's exception ends the wait where the
        hub was entered.
        """
    def cancel(self) -> bool:
        """Make the job's wait raise ``greenlet.GreenletExit``; its query stops on the server.

        :returns: whether there was something to cancel: False once it is done.
        :raises RuntimeError: called in another thread than the hub's.

        A job that has not begun never begins. This does not wait for the end; ``result()``
        does. If the query is being stopped already, by a deadline for instance, the exception
        is raised after that. A second cancel does not wait for the server any more, and costs
        the connection.
        """

@final
class Hub:
    """A ``with`` block in which this thread runs many jobs at once, each in a greenlet.

    While a job waits for the server, through greenwait's callback, other jobs run, and so
    does the block's own code. Leaving the block waits for all jobs, and raises the exception
    of a job whose result was never requested. An exception in the block cancels them: their
    queries stop on the server, their connections stay usable.

    Ctrl-C is raised where the block waits, as is any other exception of a signal handler.

    :raises RuntimeError: on entering, a hub or another framework's event loop is at work already
        in this thread, the hub was entered before, or greenwait's callback is not registered.
    :raises OSError: on entering, no descriptor is left.

    A child that a job has forked must end in ``os._exit()``, as multiprocessing's do: the other
    jobs go on in the parent.
    """
    def __enter__(self) -> Hub: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def spawn(
        self,
        function: Callable[_Parameters, _Result],
        /,
        *args: _Parameters.args,
        **kwargs: _Parameters.kwargs,
    ) -> Job[_Result]:
        """Run ``function(*args, **kwargs)`` as a job, and return that ``Job``.

        It begins when this greenlet waits next, in a copy of its context variables, so that
        an outer ``greenwait.timeout()`` applies to it too.

        :param function: the function to call.
        :param args: passed on to it.
        :param kwargs: passed on to it.
        :returns: the job, whose ``result()`` is what the function returns or raises.
        :raises TypeError: *function* is not a synchronous function.
        :raises RuntimeError: called in another thread, or outside of the block.
        """
    def sleep(self, seconds: float, /) -> None:
        """Let other jobs run for that many seconds; 0 lets those run that are due.

        :param seconds: the time to sleep.
        :raises ValueError: *seconds* is negative or not finite.
        :raises TypeError: *seconds* is not a number.
        :raises RuntimeError: called in another thread, or outside of the block.
        """

@final
class SharedHub:
    """A ``with`` block with the thread's hub, or a new one that lasts until its last user leaves.

    gather() and map() use it; their blocks may overlap in any order. Compiled, so that no
    interrupt between two lines leaves it entered.
    """
    def __enter__(self) -> Hub: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

def join(
    hub: Hub, jobs: Iterable[Job[Any]], failure: BaseException | None = None
) -> BaseException | None:
    """Wait until *jobs* are done; cancel them if there is a failure, or when one comes.

    Returns the failure, or the higher one of two. A second one interrupts what a job does
    because of the first. After a failure, those of the jobs are not raised.
    """

def hub_here() -> Hub | None:
    """Return the hub that is at work in this thread, or None."""

def in_shared_hub(function: Callable[[Hub], _Result], /) -> _Result:
    """Return ``function(hub)``, called within a SharedHub's block.

    For Python code, whose own ``with`` may be interrupted before its block begins (see
    ``timeout.__enter__()``).
    """

def each_in_shared_hub(function: Callable[[Hub], Iterable[_Result]], /) -> Generator[_Result]:
    """Yield from ``function(hub)`` within a SharedHub's block."""

def raise_first(failures: Iterable[BaseException]) -> NoReturn:
    """Raise the first of several; the others become its cause, unless it has one already."""
