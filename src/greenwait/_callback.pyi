"""The wait callback, which psycopg2 calls where it would block: ``wait``, ``WaitCallback``."""

from typing import Literal, final

from greenwait._types import Pollable

__all__ = [
    "EpollWaitCallback",
    "WaitCallback",
    "wait",
    "wait_at_most",
]

def wait(conn: Pollable, /) -> None:
    """Wait until the server has answered: the wait callback.

    Register it once, ``psycopg2.extensions.set_wait_callback(greenwait.wait)``,
    and psycopg2 calls it wherever it would block. Call it yourself to wait for
    an ``async_=1`` connection, after connecting and after every ``execute``.

    :param conn: a psycopg2 connection, or any object with ``poll()`` and
        ``fileno()``.
    :returns: None, once ``conn.poll()`` has returned ``POLL_OK``.
    :raises TypeError: *conn* lacks one of the two methods.
    :raises psycopg2.InterfaceError: the connection is closed.
    :raises psycopg2.OperationalError: the descriptor was closed during the wait
        (chained from the OSError), ``poll()`` returned an unknown state, a host has not
        answered within ``connect_timeout``, or the server did not end an interrupted
        query within ``cancel_grace``, 1 second.
    :raises greenwait.CommitInDoubt: the server did not end an interrupted commit in that time.

    The thread sleeps in poll(2) with the GIL released. A signal's Python handler
    runs at once (within 50 ms where the signal arrives just before the sleep, or
    in another thread), then the wait goes on.

    When the handler raises, KeyboardInterrupt for instance, or a ``greenwait.timeout()``
    expires, the query is cancelled on the server and its end waited for; then ``execute()``
    raises that exception, or ``greenwait.QueryTimeout``, and the connection stays open. A
    commit is not cancelled: its outcome is waited for. A second interrupt meanwhile is
    raised at once, and psycopg2 closes the connection. While connecting there is nothing
    to cancel.

    May be called from any thread, in a forked child (with the child's own
    connections), from a ``__del__`` or a signal handler during another
    connection's wait, and at interpreter exit.
    """

@final
class WaitCallback:
    """A wait callback with options: a callable that does what ``wait`` does.

    Immutable, and safe to share between threads.

    :param poller: the system call that sleeps, ``"poll"`` or (on Linux)
        ``"epoll"``. With ``"epoll"`` every thread keeps one epoll descriptor as
        long as it lives; a forked child makes its own. If it can't be made
        (EMFILE), the thread sleeps in poll(2).
    :param timeout: seconds that each statement may take, by default and at most; None sets
        no limit. It does not bound connecting, for which there is ``connect_timeout``. The
        deadline of a ``greenwait.timeout()`` block may be nearer; it has the same effect.
    :param spin: seconds to look for the answer of a query before sleeping, without
        the GIL, and giving up the CPU between two looks. It saves the wake-up, which
        can take longer than the query, and costs CPU time. 0.0 sleeps at once.
        ``"auto"`` learns, for every connection on its own, how long answers take:
        while they come within 100 us, it spins for at most twice that time, and
        ever more rarely if they don't. A thread that may use only one CPU
        (sched_setaffinity(2)) never spins.
    :param slow: seconds; a wait that took longer is logged as a warning by the logger
        ``greenwait``, with the backend's pid and the Python line that waited. None
        logs nothing. A handler of that logger must not use this connection; a ``timeout()``
        around the wait does not apply to it.
    :param cancel_grace: seconds for the server to end a query after an interrupt or a
        deadline, before the connection is given up. A commit has as long to be answered.
    :param on_event_loop: the reaction to a wait that stops an asyncio event loop in its
        thread. ``"warn"`` warns once for each line, ``"raise"`` cancels the query and raises
        RuntimeError. None warns in asyncio's debug mode.
    :raises ValueError: this system has no such poller, a time is negative or not finite, or
        *on_event_loop* is another value.
    :raises TypeError: an option is unknown or has the wrong type.
    """
    def __new__(
        cls,
        *,
        poller: Literal["poll", "epoll"] = "poll",
        timeout: float | None = None,
        spin: float | Literal["auto"] = 0.0,
        slow: float | None = None,
        cancel_grace: float = 1.0,
        on_event_loop: Literal["warn", "raise"] | None = None,
    ) -> WaitCallback: ...
    @property
    def poller(self) -> Literal["poll", "epoll"]:
        """The system call that sleeps: ``"poll"`` or ``"epoll"``."""
    @property
    def spin(self) -> float | Literal["auto"]:
        """Seconds to look before sleeping, or ``"auto"``."""
    @property
    def timeout(self) -> float | None:
        """Seconds that a statement may take, or None."""
    @property
    def cancel_grace(self) -> float:
        """Seconds that the server has to end an interrupted query."""
    @property
    def slow(self) -> float | None:
        """Seconds after which a wait is logged, or None."""
    @property
    def on_event_loop(self) -> Literal["warn", "raise"] | None:
        """The reaction to a wait that stops an event loop: ``"warn"``, ``"raise"`` or None."""
    def __call__(self, conn: Pollable, /) -> None: ...

EpollWaitCallback: WaitCallback
"""``WaitCallback(poller="epoll")``, ready made; on a system without epoll(7) it uses poll(2)."""

def wait_at_most(conn: Pollable, seconds: float | None, /, *, hears_blocks: bool = True) -> bool:
    """Wait as ``wait()`` does, for *seconds* at most if not None. Returns whether it is over.

    :param hears_blocks: outer ``timeout()`` blocks apply, whatever callback is registered.

    For waits in greenwait's own Python code, where an interrupt between two lines may leave a
    ``with`` block entered.
    """
