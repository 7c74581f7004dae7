"""Deadlines and signals while a connection is made."""

import _socket
import contextlib
import gc
import signal
import time

import psycopg2
import psycopg2.extras
import pytest

import greenwait
import greenwait.aio
from tests.lab.connecting import BAD_HOSTS, SLOW_NAME, dsn_of, name_server, stalls
from tests.lab.hosts import silent_listener
from tests.lab.leaks import no_leaked_descriptors


def test_timeout_block_ends_it(connect_with):
    with silent_listener() as port, no_leaked_descriptors():
        began = time.monotonic()
        with pytest.raises(greenwait.QueryTimeout) as info, greenwait.timeout(0.3) as block:
            connect_with(dsn_of(port, connect_timeout=10))
        assert 0.29 <= time.monotonic() - began < 5
        info.value.__traceback__ = None
    assert block.expired
    assert info.value.pgcode == "57014"
    assert "It was still connecting; nothing is left of that" in str(info.value)


def test_timeout_block_is_for_all_hosts_together(callback):
    with (
        silent_listener() as one,
        silent_listener() as two,
        no_leaked_descriptors(),
        stalls() as stalled,
    ):
        began = time.monotonic()
        with pytest.raises(greenwait.QueryTimeout) as info, greenwait.timeout(1.3):
            greenwait.connect(dsn_of(one, two, connect_timeout=1))
        assert 1.29 <= time.monotonic() - began < 1.95 + sum(stalled)
        info.value.__traceback__ = None


def test_timeout_block_ends_a_look_up(callback, monkeypatch):
    with name_server(monkeypatch, slow=30):
        with (
            pytest.raises(greenwait.QueryTimeout, match="Nothing had been sent"),
            greenwait.timeout(0.2) as block,
        ):
            greenwait.connect(dsn_of(1, host=SLOW_NAME, connect_timeout=10))
        assert block.expired


class Interrupted(BaseException):
    pass


@contextlib.contextmanager
def interrupt_after(seconds, exception=Interrupted):
    def handler(number, frame):
        raise exception

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("exception", [Interrupted, KeyboardInterrupt, psycopg2.Error])
@pytest.mark.parametrize("kind", ["silent", "dropping"])
def test_interrupt_ends_it(connect_with, kind, exception):
    greenwait.stats(reset=True)
    with BAD_HOSTS[kind]() as port, no_leaked_descriptors():
        began = time.monotonic()
        with pytest.raises(exception) as info, interrupt_after(0.2, exception):
            connect_with(dsn_of(port, connect_timeout=10))
        assert time.monotonic() - began < 5
        info.value.__traceback__ = None
        gc.collect()
    assert greenwait.stats().cancels == 0


def test_interrupt_ends_a_look_up(callback, monkeypatch):
    with name_server(monkeypatch, slow=30):
        began = time.monotonic()
        with pytest.raises(Interrupted), interrupt_after(0.2):
            greenwait.connect(dsn_of(1, host=SLOW_NAME))
        assert time.monotonic() - began < 5


@pytest.mark.skipif(
    not hasattr(_socket, "socketpair"),
    reason="Python's own socketpair() loses a descriptor that an interrupt meets",
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # between two lines of Python
def test_connecting_again_and_again_leaves_nothing_behind(callback, server, live):
    """Interrupts at every moment of connecting, also in the look-up's."""
    greenwait.connect(dsn_of(live, host="localhost")).close()
    done = interrupted = 0
    with no_leaked_descriptors():
        for i in range(300):
            conn = None
            try:
                with interrupt_after(0.0001 + i % 100 * 0.0001):
                    conn = greenwait.connect(dsn_of(live, host="localhost", connect_timeout=9))
                    done += 1
            except Interrupted as exc:
                interrupted += 1
                exc.__traceback__ = None
            finally:
                if conn is not None:
                    conn.close()
        del conn
        gc.collect()
    assert interrupted > 10, done
