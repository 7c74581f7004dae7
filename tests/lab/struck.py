"""Connections that are interrupted when the answer is there."""

import select
from typing import Any

import psycopg2
import pytest

import greenwait
from tests.lab.interrupts import Limit


class Struck:
    """What connections have of which a wait is interrupted when the answer is there."""

    raised: BaseException | None = None
    at_wait = 0

    def fileno(self):
        connection: Any = super()
        fd = connection.fileno()
        if self.raised is not None and greenwait.stats().waits == self.at_wait:
            assert select.select([fd], [], [], 20)[0]
            raised, self.raised = self.raised, None
            self.before(fd)
            raise raised
        return fd

    def before(self, fd):
        pass

    def strike(self, wait=1):
        """Interrupt the n-th wait from now on; return the exception."""
        self.raised = Limit()
        self.at_wait = greenwait.stats().waits + wait
        return self.raised


class Plain(Struck, psycopg2.extensions.connection):
    pass


class Own(Struck, greenwait.Connection):
    pass


BEGIN = 1  # the first wait of a transaction
KINDS = [Plain, Own]


def assert_raised(conn, raised, function, *args):
    with pytest.raises(Limit) as info:
        function(*args)
    assert info.value is raised
    assert conn.raised is None
