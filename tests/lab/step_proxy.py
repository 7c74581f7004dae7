"""A proxy that passes PostgreSQL's messages on one at a time, as its driver says.

It has no thread: whoever drives it reads from its descriptor what has come, and decides between
any two messages what else is to happen. So a client is asleep whenever something is done to it.
"""

import contextlib
import os
import select
import shutil
import signal
import socket
import struct
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

from tests.lab.bounds import bound
from tests.lab.postgres import Server

TIMEOUT = bound(30)  # seconds
PORT = 5432  # of a unix socket, a part of its name
_CANCEL_REQUEST = 80877102  # PostgreSQL manual, "Message Formats"
_LARGE = 50_000  # bytes: such a message is two steps


class Message(NamedTuple):
    """What one side has sent to the other: a message, or a part of one, or the end."""

    link: "Link"
    to_client: bool
    kind: str  # of the manual; "startup", "cancel"; "end"; with "..." it goes on
    data: bytes

    def __str__(self) -> str:
        return f"{'<' if self.to_client else '>'}{self.kind}"


class Link:
    """A connection that goes through the proxy."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.buffers = {True: b"", False: b""}  # by "to the client?", not yet a message
        self.kind = {True: "", False: ""}  # of a large message
        self.rest = {True: 0, False: 0}  # how much of it is still to come
        self.has_begun = False  # the client has said who it is
        self.is_cancel = False
        self.backend = 0  # its process id
        self.is_busy = False  # it has a query, and has not answered
        self.has_ended = False  # the server's side: there is nobody who could answer
        self.is_within = False  # a message to the client, of which half was passed on
        self.later = b""  # what is to follow that

    @property
    def is_open(self) -> bool:
        """Has it not been closed yet?"""
        return self.client.fileno() >= 0


class StepProxy:
    """In front of *server*, on a unix socket of its own."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._address = f"{server.directory}/.s.PGSQL.{server.port}"
        self.links: list[Link] = []  # that are open
        self.queue: deque[Message] = deque()  # what has come, and was not passed on
        self.is_silent = False
        self.held_back = 0  # bytes, from clients
        self.has_cancels_wait = False  # for the end of the query: they come too late

    def __enter__(self) -> "StepProxy":
        self._directory = Path(tempfile.mkdtemp(prefix="greenwait-step-"))
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self._directory / f".s.PGSQL.{PORT}"))
        self._listening.listen()
        self._listening.setblocking(False)
        self._woken, self._waking = socket.socketpair()
        self._woken.setblocking(False)
        self._epoll = select.epoll()
        self._ends: dict[int, tuple[Link, bool]] = {}
        for sock in (self._listening, self._woken):
            self._epoll.register(sock, select.EPOLLIN)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for link in list(self.links):
            self.close(link)
        for each in (self._epoll, self._listening, self._woken, self._waking):
            each.close()
        shutil.rmtree(self._directory)

    def fileno(self) -> int:
        """Return what is readable when there is something to read."""
        return self._epoll.fileno()

    def dsn(self, **parameters: Any) -> str:
        """Return a connection string that leads through the proxy."""
        own = {"host": self._directory, "port": PORT, "gssencmode": "disable"}
        return self._server.dsn("unix", **own | parameters)

    def wake(self) -> None:
        """Have the descriptor be readable once."""
        self._waking.send(b"x")

    # -- What the driver calls

    def read(self, seconds: float = 0) -> None:
        """Take in what has come."""
        for fd, _ in self._epoll.poll(seconds):
            if fd == self._woken.fileno():
                self._woken.recv(1000)
            elif fd == self._listening.fileno():
                self._accept()
            elif fd in self._ends:
                self._receive(*self._ends[fd])

    def next(self) -> Message | None:
        """Return what comes next, if that is there: a cancel request has precedence."""
        while self.queue and not self.queue[0].link.is_open:
            self.queue.popleft()
        for message in self.queue:
            if message.link.is_cancel:
                if message.kind == "cancel" and self.has_cancels_wait and self.is_busy:
                    return None
                self.queue.remove(message)
                return message
        if not self.queue or (
            self.queue[0].to_client
            and self.queue[0].link.has_begun
            and any(link.is_cancel or not link.has_begun for link in self.links)
        ):
            return None
        return self.queue.popleft()

    @property
    def is_busy(self) -> bool:
        """Is the server at work on a query, as far as it has said?"""
        return any(link.is_busy for link in self.links)

    def forward(self, message: Message) -> None:
        """Pass it on."""
        link = message.link
        if not link.is_open:
            return
        if message.kind == "end":
            self.close(link)
        elif message.to_client:
            if self.is_silent:
                self.held_back += len(message.data)
            else:
                link.is_within = message.kind.endswith("...")
                later = b"" if link.is_within else link.later
                link.later = link.later[len(later) :]
                self._send(link.client, message.data + later)
        else:
            self._send(link.server, message.data)
            link.is_busy |= message.kind == "Q" and not link.has_ended
            if message.kind.endswith("..."):
                self._watch(link.client, link, False)

    # -- What can be done to a client

    def say(self, link: Link, data: bytes) -> None:
        """Send a message of one's own to the client."""
        if link.is_within:
            link.later += data
        else:
            self._send(link.client, data)

    def terminate(self, link: Link) -> None:
        """End the server's process, and wait for that."""
        os.kill(link.backend, signal.SIGTERM)
        give_up = time.monotonic() + TIMEOUT
        while Path(f"/proc/{link.backend}").exists():
            assert time.monotonic() < give_up
            time.sleep(0.0005)
        while not link.has_ended:
            self._receive(link, True)

    def close(self, link: Link) -> None:
        """Close both sides."""
        self.links.remove(link)
        link.is_busy = False
        for sock in (link.client, link.server):
            self._ends.pop(sock.fileno(), None)
            sock.close()

    # -- Its own

    def _accept(self) -> None:
        client, _ = self._listening.accept()
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._address)
        link = Link(client, server)
        self.links.append(link)
        self._watch(client, link, False)
        self._watch(server, link, True)

    def _watch(self, sock: socket.socket, link: Link, to_client: bool) -> None:
        self._ends[sock.fileno()] = link, to_client
        self._epoll.register(sock, select.EPOLLIN)

    def _ignore(self, sock: socket.socket) -> None:
        del self._ends[sock.fileno()]
        self._epoll.unregister(sock)

    def _receive(self, link: Link, to_client: bool) -> None:
        sock = link.server if to_client else link.client
        try:
            data = sock.recv(65536, socket.MSG_DONTWAIT)
        except ConnectionError:
            data = b""
        link.buffers[to_client] += data
        while self._parse(link, to_client):
            pass
        if not data:
            self._ignore(sock)
            if to_client:
                link.is_busy, link.has_ended = False, True
            self.queue.append(Message(link, to_client, "end", b""))

    def _parse(self, link: Link, to_client: bool) -> bool:
        """Queue a message, if the whole of it is there, or half of a large one."""
        data = link.buffers[to_client]
        if not data:
            return False
        if link.rest[to_client]:
            kind, length = link.kind[to_client], link.rest[to_client]
            if len(data) < length:
                return False
            link.rest[to_client] = 0
        else:
            at = 1 if to_client or link.has_begun else 0  # of the length
            if len(data) < at + 8 - 4 * at:
                return False
            length = at + int(struct.unpack_from("!I", data, at)[0])
            kind = chr(data[0])
            if at == 0:
                link.is_cancel = struct.unpack_from("!I", data, 4)[0] == _CANCEL_REQUEST
                kind = "cancel" if link.is_cancel else "startup"
                link.has_begun = True
            if length > _LARGE and len(data) > 5:
                link.kind[to_client] = kind
                kind, whole, length = f"{kind}...", length, min(len(data), length // 2)
                link.rest[to_client] = whole - length
                if not to_client:
                    self._ignore(link.client)  # it can't send the rest now
            elif len(data) < length:
                return False
            if to_client and kind == "Z":
                link.is_busy = False
            if to_client and kind == "K":
                link.backend = int(struct.unpack_from("!I", data, 5)[0])
        self.queue.append(Message(link, to_client, kind, data[:length]))
        link.buffers[to_client] = data[length:]
        return True

    @staticmethod
    def _send(sock: socket.socket, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            sock.sendall(data)
