"""The wait callback, which psycopg2 calls where it would block: ``wait``, ``WaitCallback``."""

cimport cython
from cpython.object cimport PyObject
from greenwait._deadline cimport (
    blocks_entered,
    checked_seconds,
    hear_blocks,
    timeout as timeout_block,
    to_ns,
)
from greenwait._interrupt cimport wait_or_stop
from greenwait._options cimport Options, default_options
from greenwait._sleep cimport (
    POLLER_EPOLL,
    POLLER_POLL,
    RAISE_ERROR,
    WARN_ALWAYS,
    WARN_IN_DEBUG_MODE,
)
from greenwait._stats cimport counters
from greenwait._system.method cimport PyVectorcall_NARGS, set_vectorcall

from functools import partial
from typing import get_type_hints

from greenwait._deadline import recognise
from greenwait._elsewhere import refusing
from greenwait._errors import QueryTimeout
from greenwait._psycopg.decoders import use_c_decoders
from greenwait._sleep import POLLERS
from greenwait._system.call_signature import CallSignature
from greenwait._types import Pollable

__all__ = [
    "EpollWaitCallback",
    "WaitCallback",
    "wait",
    "wait_at_most",
]

# On import: a connection made before the callback is registered keeps the decoder it was made with.
use_c_decoders()

cdef object query_timeout = QueryTimeout

cdef tuple OPTIONS = ("poller", "timeout", "spin", "slow", "cancel_grace", "on_event_loop")
cdef dict ON_EVENT_LOOP = {None: WARN_IN_DEBUG_MODE, "warn": WARN_ALWAYS, "raise": RAISE_ERROR}


cdef inline object wait_counted(object conn, const Options* options):
    """Wait until the server has answered."""
    counters.waits += 1
    if blocks_entered > 0:
        hear_blocks()
    wait_or_stop(conn, options)
    return None


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
    return wait_counted(conn, &default_options)


ctypedef object (*Vectorcall)(object self, PyObject** args, size_t nargs, PyObject* keywords)


cdef object call_with_vector(object self, PyObject** args, size_t nargs, PyObject* keywords):
    """Wait as ``__call__()`` does, but psycopg2 need not make a tuple of the connection."""
    cdef Py_ssize_t count = PyVectorcall_NARGS(nargs)
    if count != 1 or (keywords is not NULL and len(<tuple>keywords) > 0):
        raise TypeError(f"a wait callback takes one argument, the connection ({count} given)")
    return wait_counted(<object>args[0], &(<WaitCallback>self)._options)


@cython.final
cdef class WaitCallback:
    """WaitCallback(*, poller="poll", timeout=None, spin=0.0, slow=None, cancel_grace=1.0,
on_event_loop=None)
--

    A wait callback with options: a callable that does what ``wait`` does.

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

    cdef Vectorcall _vectorcall
    cdef Options _options
    cdef object _spin
    cdef object _slow
    cdef object _timeout
    cdef object _cancel_grace
    cdef object _on_event_loop

    def __cinit__(
        self, *args, poller="poll", timeout=None, spin=0.0, slow=None, cancel_grace=1.0,
        on_event_loop=None, **unknown
    ):
        if args:
            raise TypeError(
                "WaitCallback takes keyword options only; register an instance, "
                "set_wait_callback(greenwait.WaitCallback())"
            )
        if unknown:
            raise TypeError(
                f"WaitCallback has no option {next(iter(unknown))!r}; "
                f"it accepts: {', '.join(OPTIONS)}"
            )
        if not isinstance(poller, str):
            raise TypeError(f"poller must be one of {POLLERS}, not {type(poller).__name__!r}")
        if poller not in POLLERS:
            raise ValueError(f"poller={poller!r} is not available here; this system has {POLLERS}")
        self._vectorcall = call_with_vector
        self._options.poller = POLLER_EPOLL if poller == "epoll" else POLLER_POLL
        self._spin = spin if spin == "auto" else checked_seconds("spin", spin, ', or "auto"')
        self._options.spin_auto = spin == "auto"
        self._options.spin_ns = 0 if spin == "auto" else to_ns(self._spin)
        self._slow = None if slow is None else checked_seconds("slow", slow, ", or None")
        self._options.slow_ns = -1 if slow is None else to_ns(self._slow)
        self._timeout = (
            None if timeout is None else checked_seconds("timeout", timeout, ", or None")
        )
        self._options.timeout_ns = -1 if timeout is None else to_ns(self._timeout)
        self._cancel_grace = checked_seconds("cancel_grace", cancel_grace, "")
        self._options.grace_ns = to_ns(self._cancel_grace)
        if not (on_event_loop is None or isinstance(on_event_loop, str)) or (
            on_event_loop not in ON_EVENT_LOOP
        ):
            raise ValueError(f"on_event_loop={on_event_loop!r}: it is None, 'warn' or 'raise'")
        self._on_event_loop = on_event_loop
        self._options.on_event_loop = ON_EVENT_LOOP[on_event_loop]

    __enter__ = __exit__ = refusing(
        "a registered callback is not a with block: write 'with greenwait.installed():', which "
        "registers one for a block; install() is for the whole process"
    )

    @property
    def poller(self):
        """The system call that sleeps: ``"poll"`` or ``"epoll"``."""
        return "epoll" if self._options.poller == POLLER_EPOLL else "poll"

    @property
    def spin(self):
        """Seconds to look before sleeping, or ``"auto"``."""
        return self._spin

    @property
    def slow(self):
        """Seconds after which a wait is logged, or None."""
        return self._slow

    @property
    def timeout(self):
        """Seconds that a statement may take, or None."""
        return self._timeout

    @property
    def cancel_grace(self):
        """Seconds that the server has to end an interrupted query."""
        return self._cancel_grace

    @property
    def on_event_loop(self):
        """The reaction to a wait that stops an event loop: ``"warn"``, ``"raise"`` or None."""
        return self._on_event_loop

    def __call__(self, conn: Pollable, /) -> None:
        """Wait until the server has answered; see ``greenwait.wait``."""
        return wait_counted(conn, &self._options)

    __signature__ = CallSignature(wait)

    @property
    def __annotations__(self):
        return get_type_hints(wait)

    def __reduce__(self):
        options = {name: getattr(self, name) for name in OPTIONS}
        return partial(WaitCallback, **options), ()

    def __repr__(self):
        return (
            f"greenwait.WaitCallback(poller={self.poller!r}, timeout={self.timeout!r}, "
            f"spin={self.spin!r}, slow={self.slow!r}, cancel_grace={self.cancel_grace!r}, "
            f"on_event_loop={self.on_event_loop!r})"
        )


#: ``WaitCallback(poller="epoll")``, ready made; on a system without epoll(7) it uses poll(2).
EpollWaitCallback = WaitCallback(poller=POLLERS[-1])

cdef WaitCallback example = EpollWaitCallback
set_vectorcall(WaitCallback, <char*>&example._vectorcall - <char*><PyObject*>example)

recognise(wait, WaitCallback)


def wait_at_most(conn, seconds, /, *, bint hears_blocks=True):
    """Wait as ``wait()`` does, for *seconds* at most if not None. Returns whether it is over.

    :param hears_blocks: outer ``timeout()`` blocks apply, whatever callback is registered.

    For waits in greenwait's own Python code, where an interrupt between two lines may leave a
    ``with`` block entered.
    """
    cdef timeout_block block = timeout_block(seconds)
    block.is_internal = True
    counters.waits += 1
    if hears_blocks and blocks_entered > 0:
        hear_blocks()
    block.enter()
    try:
        wait_or_stop(conn, &default_options)
    except query_timeout as exc:
        if exc.timeout is not block:
            raise
        return False
    finally:
        block.leave()
    return True
