"""Which addresses has a host? Looked up without blocking anybody but who asks.

libpq resolves names itself, in the middle of connecting, by a call that keeps the GIL and
the thread, and with it an event loop that runs there. So it is given addresses.
"""

import _socket
import contextlib
import socket
from _thread import start_new_thread
from typing import Any

from psycopg2.extensions import POLL_OK, POLL_READ

__all__ = ["Lookup"]

# socket's own takes the descriptors out of one object and puts them into another: an
# interrupt between the two would lose them.
_socketpair = getattr(_socket, "socketpair", socket.socketpair)


class Lookup:
    """The addresses of a host, looked up in a thread. It is waited for as a connection is.

    One that is given up ends by itself, when getaddrinfo(3) does, and keeps nothing open.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self.addresses: list[str] = []
        #: Why there are none.
        self.error: OSError | UnicodeError | None = None
        pair: tuple[Any, Any] = _socketpair()
        self._reading, writing = pair
        self._reading.setblocking(False)
        # Not a threading.Thread: an interrupt while it starts would keep that for ever.
        start_new_thread(self._look_up, (writing,))

    def _look_up(self, writing: Any) -> None:  # pragma: no cover: not traced in such a thread
        with contextlib.closing(writing):
            try:
                found = socket.getaddrinfo(self.host, None, type=socket.SOCK_STREAM)
                self.addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
            except (OSError, UnicodeError) as exc:  # UnicodeError: no name at all, to IDNA
                self.error = exc
            with contextlib.suppress(OSError):  # nobody is interested any more
                writing.send(b"x")

    def fileno(self) -> int:
        """Return what gets readable when the addresses are there."""
        return int(self._reading.fileno())

    def poll(self) -> int:
        """Are they there?"""
        try:
            self._reading.recv(1)
        except BlockingIOError:
            return POLL_READ
        return POLL_OK

    def close(self) -> None:
        """Take no more interest in it."""
        self._reading.close()
