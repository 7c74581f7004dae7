"""What `make windows-rules` takes away is gone: else it would be one more run with all of it."""

import os
import select
import socket

import psycopg2
import pytest

import greenwait
from greenwait._psycopg.libpq import FAST_PATHS
from greenwait._sleep import POLLERS
from tests.lab.hosts import shutdown_ends_an_attempt
from tests.lab.readable import Readable

pytestmark = pytest.mark.skipif(
    os.environ.get("GREENWAIT_TEST_PLATFORM") != "windows_rules",
    reason="this is not `make windows-rules`",
)


def test_package_has_neither_epoll_nor_libpq():
    assert POLLERS == ("poll",)
    assert all(state.startswith("off") for path, state in FAST_PATHS.items() if path != "TLS")


def test_package_waits_for_sockets_only():
    reading, writing = os.pipe()
    with (
        os.fdopen(reading),
        os.fdopen(writing, "w"),
        pytest.raises(psycopg2.OperationalError, match="was closed"),
    ):
        greenwait.wait(Readable(reading))


@pytest.mark.parametrize(
    ("module", "name"),
    [(select, "epoll"), (select, "poll"), (os, "eventfd"), (os, "fork"), (os, "register_at_fork")],
)
def test_python_has_less(module, name):
    assert not hasattr(module, name)


@pytest.mark.parametrize("function", [os.fstat, os.dup])
def test_socket_is_no_file(function):
    with socket.socket() as one, pytest.raises(OSError, match="Bad file descriptor"):
        function(one.fileno())


def test_attempt_to_connect_outlives_shutdown():
    assert not shutdown_ends_an_attempt()
