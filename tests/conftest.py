"""One server for the run, every callback, every transport, and bounds on all of it."""

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import get_wait_callback, set_wait_callback

import greenwait
from greenwait import _install
from greenwait._sleep import POLLERS
from tests.lab import programs, servers
from tests.lab.bounds import bound
from tests.lab.postgres import ExternalServer, Server
from tests.lab.readable import Readable
from tests.lab.steps import Laboratory

CALLBACKS: dict[str, Callable[[Any], None]] = {
    "poll": greenwait.wait,
    "epoll": greenwait.EpollWaitCallback,
}
TRANSPORTS = servers.running().transports  # not started yet
GRACE = bound(20)  # seconds


@pytest.fixture(scope="session")
def server() -> Iterator[Server | ExternalServer]:
    """The server of the run: ours, maybe pooled, or the one that GREENWAIT_TEST_DSN names."""
    with servers.running() as server:
        yield server


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A server that a module may break."""
    with Server() as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def _tickers_are_made() -> None:
    """The first waits of a process make two descriptors that stay; no test is to count them."""
    reading, writing = socket.socketpair()  # WSAPoll takes no pipe
    with reading, writing:
        writing.send(b"x")
        thread = threading.Thread(target=greenwait.wait, args=(Readable(reading.fileno()),))
        thread.start()
        thread.join()
        greenwait.wait(Readable(reading.fileno()))


@pytest.fixture(autouse=True)
def _callback_is_put_back() -> Iterator[None]:
    """Leave psycopg2's one callback of the process as it was; who installs also uninstalls."""
    before = get_wait_callback()
    installed = list(_install._entries)
    yield
    set_wait_callback(before)
    assert _install._entries == installed


@pytest.fixture(params=POLLERS)
def callback(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    """Each of greenwait's callbacks in turn, registered.

    Where a test or its module is marked as ``patient``, they give the server more time to end a
    query: for tests that are not about the grace, on a busy machine.
    """
    chosen = CALLBACKS[request.param]
    if request.node.get_closest_marker("patient"):
        chosen = greenwait.WaitCallback(poller=request.param, cancel_grace=GRACE)
    set_wait_callback(chosen)
    return chosen


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """Each way to the server in turn."""
    return str(request.param)


@pytest.fixture
def connect(server: Server | ExternalServer) -> Iterator[Callable[..., Any]]:
    """Return a function that connects; what it opened is closed after the test.

    It is ``psycopg2.connect`` with the server's DSN: ``transport="tls"`` chooses the way,
    ``async_=`` and the factories go to psycopg2, and the rest into the DSN.
    """
    opened = contextlib.ExitStack()

    def connect(transport: str = server.transports[0], **keywords: Any) -> Any:
        own = {
            name: keywords.pop(name)
            for name in ("async_", "connection_factory", "cursor_factory")
            if name in keywords
        }
        conn = psycopg2.connect(server.dsn(transport, **keywords), **own)
        opened.callback(conn.close)
        return conn

    with opened:
        yield connect


@pytest.fixture
def conn(callback: Any, transport: str, connect: Callable[..., Any]) -> Any:
    """A green connection, for every callback over every transport."""
    return connect(transport)


@pytest.fixture
def watcher(connect: Callable[..., Any]) -> Any:
    """A connection beside the one that is tested, in autocommit mode."""
    conn = connect()
    conn.autocommit = True
    return conn


@pytest.fixture(scope="module")
def laboratory(own_server: Server) -> Iterator[Laboratory]:
    """A proxy that misbehaves, and a connection beside it, to see what is true."""
    with Laboratory.on(own_server) as laboratory:
        yield laboratory


@pytest.fixture
def run_program(server: Server | ExternalServer) -> Callable[..., str]:
    """Return a function that runs a program of tests/programs and returns what it printed.

    The program finds the DSN, over *transport*, in ``sys.argv[1]``; it fails the test when it exits
    with anything but 0, and when it hangs, after its stacks have been dumped.
    """

    def run(name: str, *arguments: str, transport: str = "", timeout: float = 40) -> str:
        dsn = server.dsn(transport or server.transports[0])
        return programs.run_program(name, dsn, *arguments, timeout=timeout)

    return run


@pytest.fixture
def run_python(server: Server | ExternalServer) -> Callable[..., str]:
    """Return a function that does so with a program that is short enough for a test's text."""

    def run(code: str, *arguments: str, transport: str = "", timeout: float = 40) -> str:
        dsn = server.dsn(transport or server.transports[0])
        return programs.run_code(code, dsn, *arguments, timeout=timeout)

    return run


@pytest.fixture
def on_signal():
    """Return a function that sets a signal's handler; the old ones come back after the test."""
    before = {}

    def set_handler(number, handler):
        before.setdefault(number, signal.getsignal(number))
        signal.signal(number, handler)

    yield set_handler
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _ctrl_c_is_not_ignored(on_signal):
    """A run in the background inherits SIG_IGN for SIGINT, and Python then leaves it at that."""
    on_signal(signal.SIGINT, signal.default_int_handler)
