"""The contestants: blocking psycopg2, the callbacks that people use, and greenwait.

The Python callbacks are the shortest correct loop on each poller of the standard
library, with everything bound that can be bound: a slower version of a peer would
flatter greenwait. Like most that are in use they leave Ctrl-C alone, so they do less
than ``psycopg2.extras.wait_select`` and less than greenwait.
"""

import importlib
import select
import selectors
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

import psycopg2
import psycopg2.extras
from psycopg2.extensions import POLL_OK, POLL_READ, POLL_WRITE, connection

import greenwait
from greenwait import WaitCallback

Callback = Callable[[connection], object]
Kind = Literal["blocking", "python", "greenlet", "greenwait"]

BLOCKING = "blocking"
GREENWAIT = "greenwait-poll"


@dataclass(frozen=True)
class Contestant:
    """One way to wait for the server; ``callback`` None is psycopg2's own blocking call."""

    name: str
    title: str
    kind: Kind
    callback: Callback | None


def _bad_state(state: int) -> psycopg2.OperationalError:
    return psycopg2.OperationalError(f"bad state from poll: {state}")


def _select_callback() -> Callback:
    wait = select.select

    def callback(conn: connection) -> None:
        while True:
            state = conn.poll()
            if state == POLL_OK:
                return
            if state == POLL_READ:
                wait((conn.fileno(),), (), ())
            elif state == POLL_WRITE:
                wait((), (conn.fileno(),), ())
            else:
                raise _bad_state(state)

    return callback


def _poll_callback() -> Callback:
    # A poll object is a dict in user space, cheap to make; and one that is kept
    # refuses to be used by two threads at once.
    make, pollin, pollout = select.poll, select.POLLIN, select.POLLOUT

    def callback(conn: connection) -> None:
        while True:
            state = conn.poll()
            if state == POLL_OK:
                return
            poller = make()
            if state == POLL_READ:
                poller.register(conn.fileno(), pollin)
            elif state == POLL_WRITE:
                poller.register(conn.fileno(), pollout)
            else:
                raise _bad_state(state)
            poller.poll()

    return callback


def _epoll_callback() -> Callback:
    # One epoll object for the thread that measures. One-shot, so that the idle
    # connections in it stay silent: one epoll_ctl per sleep instead of two.
    poller = select.epoll()
    modify, register, sleep = poller.modify, poller.register, poller.poll
    pollin, pollout = select.EPOLLIN | select.EPOLLONESHOT, select.EPOLLOUT | select.EPOLLONESHOT

    def callback(conn: connection) -> None:
        while True:
            state = conn.poll()
            if state == POLL_OK:
                return
            if state == POLL_READ:
                events = pollin
            elif state == POLL_WRITE:
                events = pollout
            else:
                raise _bad_state(state)
            fd = conn.fileno()
            try:
                modify(fd, events)
            except FileNotFoundError:
                register(fd, events)
            sleep()

    return callback


def _selectors_callback() -> Callback:
    # Kept, for the same reason: a new DefaultSelector is a new epoll descriptor.
    selector = selectors.DefaultSelector()
    register, unregister, sleep = selector.register, selector.unregister, selector.select
    read, write = selectors.EVENT_READ, selectors.EVENT_WRITE

    def callback(conn: connection) -> None:
        while True:
            state = conn.poll()
            if state == POLL_OK:
                return
            if state == POLL_READ:
                events = read
            elif state == POLL_WRITE:
                events = write
            else:
                raise _bad_state(state)
            fd = conn.fileno()
            register(fd, events)
            try:
                sleep()
            finally:
                unregister(fd)

    return callback


def _psycogreen_callback() -> Callback:
    # Nothing is monkey-patched: the callback runs in the main greenlet, and its
    # every wait is a round through gevent's hub, as it is in a gevent program.
    psycogreen: Any = importlib.import_module("psycogreen.gevent")
    callback: Callback = psycogreen.gevent_wait_callback
    return callback


def _greenwait_epoll() -> Callback:
    select.epoll().close()  # AttributeError on other systems than Linux
    return greenwait.EpollWaitCallback


# In the order of the tables: name, title, kind, and what makes the callback.
_ALL: tuple[tuple[str, str, Kind, Callable[[], Callback | None]], ...] = (
    (BLOCKING, "psycopg2, blocking", "blocking", lambda: None),
    ("wait_select", "extras.wait_select", "python", lambda: psycopg2.extras.wait_select),
    ("select", "Python, select", "python", _select_callback),
    ("poll", "Python, poll", "python", _poll_callback),
    ("epoll", "Python, epoll", "python", _epoll_callback),
    ("selectors", "Python, selectors", "python", _selectors_callback),
    ("psycogreen", "psycogreen (gevent)", "greenlet", _psycogreen_callback),
    (GREENWAIT, "greenwait (poll)", "greenwait", lambda: greenwait.wait),
    ("greenwait-epoll", "greenwait (epoll)", "greenwait", _greenwait_epoll),
    ("spin-auto", "greenwait, spin auto", "greenwait", lambda: WaitCallback(spin="auto")),
    ("spin", "greenwait, spin 100 µs", "greenwait", lambda: WaitCallback(spin=0.0001)),
)

NAMES = tuple(name for name, *_ in _ALL)
#: Those that are compared unless others are named: spinning needs a core for each side.
DEFAULT = NAMES[:-2]
#: Those that are compared where a query takes long, and there is little time.
FEW = (BLOCKING, "wait_select", "poll", "psycogreen", GREENWAIT)


def contestants(names: Collection[str]) -> list[Contestant]:
    """Make those of *names* that can run here, in the order of the tables; tell of the others."""
    found = []
    for name, title, kind, make in _ALL:
        if name in names:
            try:
                found.append(Contestant(name, title, kind, make()))
            except (ImportError, AttributeError) as exc:
                print(f"left out: {title}, {exc}", file=sys.stderr)
    return found
