"""A TLS server whose records are as large as the protocol allows, in front of our PostgreSQL.

PostgreSQL sends what it has every 8 KB, so its TLS records are small. Other servers
and poolers send records of up to 16 KB. Of such a one, ``PQconsumeInput()`` took no more
than its buffer had room for, before a fix of August 2026 (libpq 17.11 has it, 17.10 has
not): the rest is inside OpenSSL, ``PQisBusy()``, and the socket has nothing to read.
"""

import contextlib
import selectors
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import trustme

from tests.lab.bounds import bound
from tests.lab.postgres import Server

MAX_RECORD = 16384  # RFC 8446, 5.1
TIMEOUT = bound(30)  # seconds
_CHUNK = 65536
_SILENCE = 0.2  # seconds; what does not end in ReadyForQuery ends by this
_READY_FOR_QUERY = tuple(b"Z\x00\x00\x00\x05" + status for status in (b"I", b"T", b"E"))

# PostgreSQL's "Message Formats": the code in the first packet of a connection
_CANCEL_REQUEST = 80877102
_SSL_REQUEST = 80877103
_GSSENC_REQUEST = 80877104


class TlsProxy:
    """Listens on 127.0.0.1, and passes on what *server* answers in records of *record_bytes*.

    An answer is collected whole and sent at once, so that its records depend on its
    length alone. A short record comes first and the full ones last: whatever libpq holds of
    an incomplete message then, the last record does not fit beside it, as long as the
    connection's buffer has its first size, 16 KB.

    Its threads need the GIL, which psycopg2's ``cancel()`` keeps until it is answered:
    whoever cancels through the proxy does it in another process.
    """

    def __init__(self, server: Server, record_bytes: int = MAX_RECORD) -> None:
        assert 0 < record_bytes <= MAX_RECORD
        self._server = server
        self._record_bytes = record_bytes
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(self._context)
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._stopping = False
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "TlsProxy":
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._stopping = True
            for sock in self._sockets:
                with contextlib.suppress(OSError):  # the peer has gone already
                    sock.shutdown(socket.SHUT_RDWR)
        # Only a connection wakes accept() on every system.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            pass
        self._accepting.join(TIMEOUT)
        self._listening.close()
        for thread in self._threads:
            thread.join(TIMEOUT)
        assert not any(thread.is_alive() for thread in [self._accepting, *self._threads])

    def dsn(self, **parameters: Any) -> str:
        """Return a connection string that leads through the proxy, with *parameters* added."""
        here = {"host": "127.0.0.1", "port": self.port, "sslmode": "require"}
        return self._server.dsn("tcp", **(here | parameters))

    def _accept(self) -> None:
        while not self._stopping:
            client, _ = self._listening.accept()
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    @contextlib.contextmanager
    def _open(self, sock: socket.socket) -> Iterator[socket.socket]:
        """Close *sock* after the ``with`` block, which ``__exit__`` ends by shutting it down."""
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                if self._stopping:
                    raise ConnectionAbortedError
                self._sockets.add(sock)
            try:
                yield sock
            finally:
                with self._lock:
                    self._sockets.remove(sock)

    def _serve(self, client: socket.socket) -> None:
        # Either side may hang up at any time, which is the end of the other side too.
        with contextlib.suppress(OSError), self._open(client):
            first = _receive(client, 8)
            if _code(first) == _GSSENC_REQUEST:
                client.sendall(b"N")
                first = _receive(client, 8)
            if _code(first) not in (_SSL_REQUEST, _CANCEL_REQUEST):
                return
            with self._open(socket.create_connection(("127.0.0.1", self._server.port))) as server:
                if _code(first) == _CANCEL_REQUEST:  # in clear, before libpq 17
                    server.sendall(first + _receive(client, 8))
                    server.recv(1)  # nothing: it hangs up when it has sent the signal
                else:
                    client.sendall(b"S")
                    _Session(client, server, self._context, self._record_bytes).run()


class _Session:
    """One client's TLS, of which this sees every record, unlike ``SSLSocket``."""

    def __init__(
        self,
        client: socket.socket,
        server: socket.socket,
        context: ssl.SSLContext,
        record_bytes: int,
    ) -> None:
        self._client = client
        self._server = server
        self._record_bytes = record_bytes
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def run(self) -> None:
        """Pass on what comes, until one side hangs up: ``OSError`` when it is the client."""
        self._handshake()
        self._server.sendall(self._decrypted())  # what has come with the handshake's end
        answer = bytearray()
        with selectors.DefaultSelector() as selector:
            for sock in (self._client, self._server):
                selector.register(sock, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select(_SILENCE if answer else None)}
                if self._client in ready:
                    self._incoming.write(_receive(self._client))
                    self._server.sendall(self._decrypted())
                if self._server in ready:
                    data = self._server.recv(_CHUNK)
                    answer += data
                    if not data or answer.endswith(_READY_FOR_QUERY):
                        self._send(answer)
                    if not data:
                        return
                elif not ready:
                    self._send(answer)

    def _handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._client.sendall(self._outgoing.read())
                self._incoming.write(_receive(self._client))
        self._client.sendall(self._outgoing.read())

    def _decrypted(self) -> bytes:
        """Return what the client has sent, nothing when that is no whole record yet."""
        received = bytearray()
        with contextlib.suppress(ssl.SSLWantReadError):
            while data := self._tls.read(_CHUNK):  # until the client's goodbye
                received += data
        return bytes(received)

    def _send(self, answer: bytearray) -> None:
        """Send *answer*, and empty it."""
        size = len(answer) % self._record_bytes or self._record_bytes
        while answer:
            self._tls.write(answer[:size])  # one record
            del answer[:size]
            size = self._record_bytes
        self._client.sendall(self._outgoing.read())


def _receive(sock: socket.socket, size: int = 0) -> bytes:
    """Return exactly *size* bytes, or with 0 what there is; ``OSError`` at the stream's end."""
    data = sock.recv(size or _CHUNK, socket.MSG_WAITALL if size else 0)
    if len(data) < (size or 1):
        raise ConnectionResetError("the peer has hung up")
    return data


def _code(packet: bytes) -> int:
    return int.from_bytes(packet[4:8], "big")
