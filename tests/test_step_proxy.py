"""The proxy that the explorer steps with: what it lets pass, and when."""

import socket
import struct
import sys
import time

import psycopg2.extensions
import pytest

from tests.lab.step_proxy import PORT, TIMEOUT, StepProxy

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="it needs epoll and /proc"),
    pytest.mark.timeout(60),
]


def packet(*fields):
    """Return a message without a type: a start-up packet, or a cancel request."""
    body = b"".join(fields)
    return struct.pack("!I", len(body) + 4) + body


def read_until(proxy, is_there):
    """Take in what comes, until that is there."""
    give_up = time.monotonic() + TIMEOUT / 3
    while not is_there():
        assert time.monotonic() < give_up, [str(message) for message in proxy.queue]
        proxy.read(0.1)


def test_query_to_a_server_that_has_ended_holds_no_cancel_back(own_server):
    """It was held back, and with it the connection's end, until the grace was over."""
    with (
        StepProxy(own_server) as proxy,
        socket.socket(socket.AF_UNIX) as client,
        socket.socket(socket.AF_UNIX) as canceller,
    ):
        proxy.has_cancels_wait = True
        dsn = psycopg2.extensions.parse_dsn(proxy.dsn())
        address = f"{dsn['host']}/.s.PGSQL.{PORT}"
        client.connect(address)
        names = f"user\0{dsn['user']}\0database\0{dsn['dbname']}\0\0"
        client.sendall(packet(struct.pack("!I", 196608), names.encode()))
        kinds = []

        def is_ready():
            while (message := proxy.next()) is not None:
                proxy.forward(message)
                kinds.append(message.kind)
            return "Z" in kinds

        read_until(proxy, is_ready)
        (link,) = proxy.links
        proxy.terminate(link)
        client.sendall(b"Q" + packet(b"select 1\0"))
        read_until(proxy, lambda: {"Q", "end"} <= {message.kind for message in proxy.queue})
        proxy.forward(next(message for message in proxy.queue if message.kind == "Q"))
        canceller.connect(address)
        canceller.sendall(packet(struct.pack("!III", 80877102, link.backend, 0)))
        read_until(proxy, lambda: any(message.kind == "cancel" for message in proxy.queue))
        message = proxy.next()
        assert message is not None
        assert message.kind == "cancel"
