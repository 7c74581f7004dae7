"""Whose turn is it? A lock that greenlets and threads wait for side by side.

psycopg2 has a mutex for each connection, which stops the thread of whoever has to wait for
it, and with it the greenlet that is to give it back. So a turn is taken before. It is
waited for as the server is, in every context; who comes first is served first.

The GIL makes these methods atomic: compiled code is not interrupted between two lines.
"""

cimport cython

import os
import socket
from collections import deque

from greenlet import getcurrent

from greenwait._callback import wait
from greenwait._psycopg2 import ProgrammingError

__all__ = ["Turn"]

# Module-level C variables outlive the module's dict: a commit in a __del__ at interpreter
# exit still finds them.
cdef object current_greenlet = getcurrent
cdef object wait_for = wait
cdef object new_deque = deque
cdef object new_ticket
cdef object programming_error = ProgrammingError


class _Ticket:
    """A place in the queue. It is waited for as a connection is."""

    __slots__ = ("_descriptors", "greenlet", "is_called")

    def __init__(self, greenlet):
        self.greenlet = greenlet
        self.is_called = False
        self._descriptors = (
            (os.eventfd(0),) if hasattr(os, "eventfd") else socket.socketpair()
        )

    def call(self):
        """Say that it is this one's turn; from whichever thread."""
        self.is_called = True
        if isinstance(self._descriptors[0], int):
            os.eventfd_write(self._descriptors[0], 1)
        else:
            self._descriptors[1].send(b"x")

    def fileno(self):
        first = self._descriptors[0]
        return first if isinstance(first, int) else first.fileno()

    def poll(self):
        return 0 if self.is_called else 1

    def close(self):
        for each in self._descriptors:
            if isinstance(each, int):
                os.close(each)
            else:
                each.close()


new_ticket = _Ticket


@cython.auto_pickle(False)
@cython.final
cdef class Turn:
    """The turn on one connection."""

    cdef object owner    # the greenlet whose turn it is, or None; each thread has one at least
    cdef object waiting  # tickets

    def __cinit__(self):
        self.waiting = new_deque()

    def take(self, str what):
        """Wait until it is this greenlet's turn.

        :param what: the method it is for.
        :raises psycopg2.ProgrammingError: it is this one's turn already.

        A signal handler's exception, or a deadline, ends the wait.
        """
        here = current_greenlet()
        if self.owner is None:
            self.owner = here
            return
        if self.owner is here:
            raise programming_error(
                f"{what}: this connection is at work for the very greenlet or thread that "
                "calls, below a signal handler or a __del__; use another connection there, "
                "or cancel()"
            )
        ticket = new_ticket(here)
        self.waiting.append(ticket)
        try:
            wait_for(ticket)
        except BaseException:
            if ticket.is_called:
                self.give()
            else:
                self.waiting.remove(ticket)
            raise
        finally:
            ticket.close()

    def give(self):
        """Let the next one have it."""
        if self.waiting:
            ticket = self.waiting.popleft()
            self.owner = ticket.greenlet
            ticket.call()
        else:
            self.owner = None
