"""Name lookups that block only their caller: getaddrinfo() in a native thread.

libpq resolves names itself, in the middle of connecting, by a call that holds the GIL and
stops the thread, and with it an event loop that runs there. So libpq is given addresses.
"""

import _socket
import _thread
import contextlib
import socket
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType
from typing import Any

from psycopg2.extensions import POLL_OK, POLL_READ

__all__ = ["Lookup", "start_native_thread"]

# socket's own takes the descriptors out of one object and puts them into another: an
# interrupt between the two would lose them.
_socketpair = getattr(_socket, "socketpair", socket.socketpair)

# Monkey patching replaces socket.getaddrinfo, and leaves the module below it alone. gevent's and
# eventlet's would open a hub in the thread, which is never closed: two descriptors each.
_getaddrinfo = _socket.getaddrinfo
_FRAMEWORKS = ("gevent", "eventlet")


def _native_start_new_thread() -> Callable[..., int]:
    """Return the original of ``_thread``, which starts no greenlet, even if that is patched."""
    start = _thread.start_new_thread
    if not isinstance(start, BuiltinFunctionType):
        if "gevent.monkey" in sys.modules:
            start = sys.modules["gevent.monkey"].get_original("_thread", "start_new_thread")
        if not isinstance(start, BuiltinFunctionType) and "eventlet.patcher" in sys.modules:
            start = sys.modules["eventlet.patcher"].original("_thread").start_new_thread
    return start


#: Starts a native thread, not a greenlet, even where a framework has patched that.
start_native_thread = _native_start_new_thread()


def _is_replaced() -> bool:
    """Has the program replaced ``socket.getaddrinfo``?

    Tests do, and programs with a name server of their own. A framework's function does not count.
    """
    function = socket.getaddrinfo
    if type(function) is not FunctionType:  # a wrapper passes itself off as what it wraps
        return True
    module = str(function.__globals__.get("__name__"))  # functools.wraps() leaves it alone
    return module != "socket" and module.partition(".")[0] not in _FRAMEWORKS


class Lookup:
    """A lookup of a host's addresses, in a thread. It is waited for as a connection is.

    A lookup that is given up ends by itself, when getaddrinfo(3) does, and keeps nothing open.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self.addresses: list[str] = []
        #: The error, if there are no addresses.
        self.error: OSError | UnicodeError | None = None
        pair: tuple[Any, Any] = _socketpair()
        self._reading, writing = pair
        self._reading.setblocking(False)
        # Not a threading.Thread: an interrupt while it starts would keep the object for ever.
        if _is_replaced():  # it may be written for green threads: these, where threads are patched
            _thread.start_new_thread(self._look_up, (writing, socket.getaddrinfo))
        else:
            start_native_thread(self._look_up, (writing, _getaddrinfo))

    def _look_up(  # pragma: no cover: not traced in such a thread
        self, writing: Any, getaddrinfo: Callable[..., Any]
    ) -> None:
        with contextlib.closing(writing):
            try:
                found = getaddrinfo(self.host, None, type=_socket.SOCK_STREAM)
                self.addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
            except (OSError, UnicodeError) as exc:  # UnicodeError: not a name, to IDNA
                self.error = exc
            with contextlib.suppress(OSError):  # the lookup was given up
                writing.send(b"x")

    def fileno(self) -> int:
        """Return a descriptor that is readable once the addresses are there."""
        return int(self._reading.fileno())

    def poll(self) -> int:
        """Return POLL_OK if the addresses are there, else POLL_READ."""
        try:
            self._reading.recv(1)
        except BlockingIOError:
            return POLL_READ
        return POLL_OK

    def close(self) -> None:
        """Give the lookup up."""
        self._reading.close()
