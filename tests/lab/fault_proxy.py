"""A TCP proxy that misbehaves on command: what a network can do to a client."""

import contextlib
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from tests.lab.bounds import bound
from tests.lab.postgres import Server, reserved_port

TIMEOUT = bound(30)  # seconds
_CHUNK = 65536
_CANCEL_REQUEST = 80877102  # PostgreSQL manual, "Message Formats"

Direction = Literal["to_client", "to_server"]
Kind = Literal["stall", "trickle", "delay", "cut", "reset", "half_close", "ignore", "refuse"]


_LIMITED: tuple[Kind, ...] = ("stall", "cut", "reset", "half_close")


def skip_without_tls(server: Server) -> None:
    """Skip the test if this PostgreSQL was built without TLS."""
    if "tls" not in server.transports:
        pytest.skip("this PostgreSQL was built without TLS")


def _any(connection: "Proxied") -> bool:
    return True


@dataclass(frozen=True)
class Fault:
    """One way to misbehave.

    *value* is in seconds for a delay and a trickle. For the others it is how many bytes of the
    direction still pass, counted from the connection's beginning.
    """

    kind: Kind
    direction: Direction | None = None  # both
    value: float = 0
    only: Callable[["Proxied"], bool] = _any


@dataclass
class _Pipe:
    """One direction of a proxied connection."""

    direction: Direction
    source: socket.socket
    target: socket.socket
    recorded: bytearray  # what was passed on
    held: deque[tuple[float, bytes]] = field(default_factory=deque)
    next_step: float = 0  # monotonic, of a trickle
    has_ended: bool = False  # the source has no more
    is_shut: bool = False  # and the target knows, or will never know
    values: dict[Kind, float] | None = None  # of the faults that there are; None: to be looked up

    @property
    def is_over(self) -> bool:
        return self.is_shut and self.has_ended


class Proxied:
    """A connection that goes through the proxy."""

    def __init__(self, index: int, client: socket.socket, upstream: socket.socket | None) -> None:
        self.index = index
        self.client = client
        self.upstream = upstream
        self.to_server = bytearray()
        self.to_client = bytearray()
        self.pipes: list[_Pipe] = []
        if upstream is not None:
            self.pipes = [
                _Pipe("to_server", client, upstream, self.to_server),
                _Pipe("to_client", upstream, client, self.to_client),
            ]
        for sock in self.sockets:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def sockets(self) -> list[socket.socket]:
        """The client's, and the server's if there is one."""
        return [sock for sock in (self.client, self.upstream) if sock is not None]

    @property
    def is_cancel(self) -> bool:
        """Was a CancelRequest the first that it sent, in clear?"""
        return int.from_bytes(self.to_server[4:8], "big") == _CANCEL_REQUEST

    @property
    def is_open(self) -> bool:
        """Has it not been closed yet, by whomever?"""
        return self.client.fileno() >= 0

    def close(self, *, reset: bool = False) -> None:
        """Close both sides; *reset* has the client see ECONNRESET."""
        if reset:
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for sock in self.sockets:
            sock.close()


class FaultProxy:
    """Listens on 127.0.0.1 in front of *server*, and passes on what comes, but for its faults.

    A fault works on all connections that its ``only`` accepts, open or to come, from the
    moment that ``inject()`` returns. Everything is done by one thread, which needs the GIL.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connections: list[Proxied] = []
        self._open: list[Proxied] = []
        self._count = 0  # of those that there were
        self._faults: tuple[Fault, ...] = ()
        self._lock = threading.Lock()  # between the thread's rounds
        self._stopping = False
        self._failure: BaseException | None = None

    def __enter__(self) -> "FaultProxy":
        self._reserved = contextlib.ExitStack()
        self.port = self._reserved.enter_context(reserved_port())
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self._listening.setblocking(False)
        self._woken, self._waking = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping = True
        self._wake()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        for connection in self._connections:
            connection.close()
        for sock in (self._listening, self._woken, self._waking):
            sock.close()
        self._reserved.close()
        if self._failure is not None:
            raise self._failure

    @property
    def connections(self) -> list[Proxied]:
        """All that there were. What a peer has received by now has been recorded."""
        with self._lock:
            return list(self._connections)

    def dsn(self, **parameters: Any) -> str:
        """Return a connection string that leads through the proxy, with *parameters* added."""
        here = {"host": "127.0.0.1", "port": self.port, "sslmode": "disable"} | parameters
        if here["sslmode"] == "require":
            skip_without_tls(self._server)
        return self._server.dsn("tcp", **here)

    def inject(self, *faults: Fault) -> None:
        """Misbehave in these ways too."""
        with self._lock:
            while self._accept():  # these were there before
                pass
            self._faults += faults
            self._look_up_again()
            if any(fault.kind == "refuse" for fault in faults):
                self._listening.shutdown(socket.SHUT_RDWR)  # at once; poll(2) keeps it open
                self._listening.close()
        self._wake()

    def drop(self, connections: list[Proxied]) -> None:
        """Close what is left of these: a server at work does not notice that nobody is there."""
        with self._lock:
            for connection in connections:
                connection.close()
        self._wake()

    def forget_closed(self) -> None:
        """Forget connections that are closed, and what was said on them."""
        with self._lock:
            self._connections = [each for each in self._connections if each.is_open]

    def clear(self) -> None:
        """Behave from now on, and pass on what was held back."""
        with self._lock:
            self._faults = ()
            self._look_up_again()
            if self._listening.fileno() < 0:
                self._listening = socket.create_server(("127.0.0.1", self.port))
                self._listening.setblocking(False)
        self._wake()

    def _wake(self) -> None:
        self._waking.send(b"x")

    def _run(self) -> None:
        try:
            while not self._stopping:
                with self._lock:
                    poller, timeout = self._what_to_wait_for()
                ready = dict(poller.poll(timeout))
                if self._woken.fileno() in ready:
                    self._woken.recv(_CHUNK)
                with self._lock:
                    self._go_on(ready)
        except BaseException as exc:
            self._failure = exc

    def _what_to_wait_for(self) -> tuple[Any, int | None]:
        poller = select.poll()
        poller.register(self._woken, select.POLLIN)
        if self._listening.fileno() >= 0:
            poller.register(self._listening, select.POLLIN)
        events: dict[int, int] = {}
        due: list[float] = []
        for connection, pipe in self._pipes():
            if _is_stalled(pipe, self._values(connection, pipe)):
                continue
            if not pipe.has_ended and len(pipe.held) < 100:
                source = pipe.source.fileno()
                events[source] = events.get(source, 0) | select.POLLIN
            if pipe.held:
                when = max(pipe.held[0][0], pipe.next_step)
                if when > time.monotonic():
                    due.append(when)
                else:
                    target = pipe.target.fileno()
                    events[target] = events.get(target, 0) | select.POLLOUT
        for number, mask in events.items():
            poller.register(number, mask)
        if not due:
            return poller, None
        return poller, max(0, int((min(due) - time.monotonic()) * 1000) + 1)

    def _pipes(self) -> list[tuple[Proxied, _Pipe]]:
        self._open = [each for each in self._open if each.is_open]
        return [(connection, pipe) for connection in self._open for pipe in connection.pipes]

    def _look_up_again(self) -> None:
        for _, pipe in self._pipes():
            pipe.values = None

    def _faults_of(self, connection: Proxied, pipe: _Pipe | None = None) -> list[Fault]:
        return [
            fault
            for fault in self._faults
            if (pipe is None or fault.direction in (None, pipe.direction))
            and fault.only(connection)
        ]

    def _values(self, connection: Proxied, pipe: _Pipe) -> dict[Kind, float]:
        if pipe.values is None:
            faults = self._faults_of(connection, pipe)
            pipe.values = {fault.kind: fault.value for fault in faults}
        return pipe.values

    def _go_on(self, ready: dict[int, int]) -> None:
        for connection, pipe in self._pipes():
            if not connection.is_open:  # since, by its other direction
                continue
            faults = self._values(connection, pipe)
            try:
                if not _is_stalled(pipe, faults):
                    self._receive(pipe, ready, faults)
                    self._pass_on(connection, pipe, faults)
            except OSError:  # one side has hung up, which is the end of the other too
                connection.close()
            if connection.is_open and all(each.is_over for each in connection.pipes):
                connection.close()
        if self._listening.fileno() in ready:
            self._accept()

    def _receive(self, pipe: _Pipe, ready: dict[int, int], faults: dict[Kind, float]) -> None:
        if pipe.has_ended or not ready.get(pipe.source.fileno(), 0) & ~select.POLLOUT:
            return
        with contextlib.suppress(BlockingIOError):
            data = pipe.source.recv(_CHUNK)
            if data:
                pipe.held.append((time.monotonic() + faults.get("delay", 0), data))
            else:
                pipe.has_ended = True

    def _pass_on(self, connection: Proxied, pipe: _Pipe, faults: dict[Kind, float]) -> None:
        while pipe.held and pipe.held[0][0] <= time.monotonic():
            if pipe.is_shut:
                pipe.held.clear()  # nobody is to have it
                break
            if "trickle" in faults and pipe.next_step > time.monotonic():
                return
            due, data = pipe.held[0]
            limits = [faults[kind] for kind in _LIMITED if kind in faults]
            allowed = int(min(limits, default=1e18)) - len(pipe.recorded)
            if "trickle" in faults:
                allowed = min(allowed, 1)
            sent = 0
            if allowed > 0:
                try:
                    sent = pipe.target.send(data[:allowed])
                except BlockingIOError:
                    return
            pipe.recorded += data[:sent]
            pipe.held[0] = (due, data[sent:])
            if not pipe.held[0][1]:
                pipe.held.popleft()
            pipe.next_step = time.monotonic() + faults.get("trickle", 0)
            self._end_at_the_limit(connection, pipe, faults)
            if not connection.is_open:
                return
            if "trickle" in faults or _is_stalled(pipe, faults):
                return
        if pipe.has_ended and not pipe.held and not pipe.is_shut:
            pipe.is_shut = True
            pipe.target.shutdown(socket.SHUT_WR)
        self._end_at_the_limit(connection, pipe, faults)

    def _end_at_the_limit(
        self, connection: Proxied, pipe: _Pipe, faults: dict[Kind, float]
    ) -> None:
        passed = len(pipe.recorded)
        if "cut" in faults and passed >= faults["cut"]:
            connection.close()
        elif "reset" in faults and passed >= faults["reset"]:
            connection.close(reset=True)
        elif "half_close" in faults and passed >= faults["half_close"] and not pipe.is_shut:
            pipe.is_shut = True
            pipe.target.shutdown(socket.SHUT_WR)

    def _accept(self) -> bool:
        if self._listening.fileno() < 0:
            return False
        try:
            client, _ = self._listening.accept()
        except BlockingIOError:
            return False
        connection = Proxied(self._count, client, None)
        self._count += 1
        if not any(fault.kind == "ignore" for fault in self._faults_of(connection)):
            try:
                upstream = socket.create_connection(("127.0.0.1", self._server.port), TIMEOUT)
            except OSError:  # the server is not up
                client.close()
                return True
            connection = Proxied(connection.index, client, upstream)
        self._connections.append(connection)
        self._open.append(connection)
        return True


def _is_stalled(pipe: _Pipe, faults: dict[Kind, float]) -> bool:
    return len(pipe.recorded) >= faults.get("stall", float("inf"))
