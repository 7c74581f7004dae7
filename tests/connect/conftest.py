"""psycopg2's connect() and ours, and where the server is."""

import socket

import pytest

from tests.lab.connecting import CONNECTS
from tests.lab.postgres import Server
from tests.lab.readable import Readable


@pytest.fixture(params=CONNECTS)
def connect_with(request, callback):
    """psycopg2's function and ours, under each callback."""
    return CONNECTS[request.param]


@pytest.fixture(autouse=True)
def _descriptors_are_kept(callback):
    """The first wait of a thread opens descriptors that are kept."""
    here, there = socket.socketpair()
    with here, there:
        there.send(b"x")
        callback(Readable(here.fileno()))


@pytest.fixture
def live(server):
    """Where the server is: its port."""
    if not isinstance(server, Server):
        pytest.skip("needs a server of our own")
    return server.port
