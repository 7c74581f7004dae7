"""The epoll poller's own risks: what stays in the set, threads, forks, reused descriptors."""

import contextlib
import errno
import gc
import os
import resource
import signal
import socket
import threading
import time

import psycopg2
import pytest
from psycopg2.extensions import POLL_OK, POLL_READ, set_wait_callback

import greenwait
from tests.lab.marks import needs_epoll
from tests.lab.queries import one

pytestmark = needs_epoll


@pytest.fixture(autouse=True)
def _epoll():
    set_wait_callback(greenwait.EpollWaitCallback)


def descriptors(kind):
    """Return this process's descriptors of a kind, "eventpoll" or "timerfd"."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"/proc/self/fd/{name}") == f"anon_inode:[{kind}]":
                found.append(int(name))
    return found


def test_thread_keeps_one_epoll_descriptor(connect):
    gc.collect()  # event loops that other tests have left
    before = set(descriptors("eventpoll"))
    own = []

    def work():
        for _ in range(10):
            one(connect(), "select 1")
            own.append(set(descriptors("eventpoll")) - before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(own[0]) == 1
    assert own == own[:1] * 10


def test_descriptor_is_not_inherited_by_programs(connect):
    one(connect(), "select 1")
    own = descriptors("eventpoll") + descriptors("timerfd")
    assert len(own) >= 2
    assert [number for number in own if os.get_inheritable(number)] == []


def test_descriptor_is_closed_with_its_thread(connect):
    one(connect(), "select 1")
    gc.collect()  # event loops that other tests have left
    before = descriptors("eventpoll")
    during = []

    def work():
        one(connect(), "select 1")
        during.append(len(descriptors("eventpoll")))

    for _ in range(30):
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join()
    assert during == [len(before) + 1] * 30
    assert descriptors("eventpoll") == before


def test_reused_descriptor_is_waited_for(connect, transport):
    """Close one connection and open another under the same number, many times."""
    numbers = set()
    for number in range(50):
        conn = connect(transport)
        numbers.add(conn.fileno())
        assert one(conn, f"select {number} from pg_sleep(0.001)") == number
        conn.close()
    assert len(numbers) < 10


def test_connection_used_by_threads_in_turn(connect, transport):
    """Each thread's set learns of the descriptor; the others' registrations stay silent."""
    conn = connect(transport)
    conn.autocommit = True
    one(conn, "select 1")
    answers = []

    def work(number):
        answers.append(one(conn, f"select {number} from pg_sleep(0.001)"))

    for number in range(20):
        thread = threading.Thread(target=work, args=(number,), daemon=True)
        thread.start()
        thread.join()
    assert answers == list(range(20))
    assert one(conn, "select 5 from pg_sleep(0.01)") == 5


def test_connection_reopened_elsewhere_under_a_known_number(connect, transport):
    """This thread's set knows the number; the socket was exchanged by another thread."""
    conn = connect(transport)
    number = conn.fileno()
    one(conn, "select 1")
    gc.collect()  # what other tests have left would give its number to another
    conn.close()
    replacements = []
    thread = threading.Thread(target=lambda: replacements.append(connect(transport)), daemon=True)
    thread.start()
    thread.join()
    assert replacements[0].fileno() == number
    assert one(replacements[0], "select 6 from pg_sleep(0.05)") == 6


def test_registration_is_dropped_when_the_wait_fails():
    left, right = os.pipe(), os.pipe()

    class Failing:
        def __init__(self, number):
            self.numbers = iter([number])

        def poll(self):
            return POLL_READ

        def fileno(self):
            return next(self.numbers)

    class Good(Failing):
        def __init__(self, number):
            self.states, self.number = iter([POLL_READ, POLL_OK]), number

        def poll(self):
            return next(self.states)

        def fileno(self):
            return self.number

    try:
        with pytest.raises(StopIteration):
            greenwait.EpollWaitCallback(Failing(left[0]))
        registered = read_registrations()
        assert left[0] not in registered
        os.write(right[1], b"x")
        greenwait.EpollWaitCallback(Good(right[0]))
    finally:
        for number in left + right:
            os.close(number)


def read_registrations():
    """Return the descriptors in this process's epoll sets (proc(5), fdinfo)."""
    registered = []
    for number in descriptors("eventpoll"):
        with open(f"/proc/self/fdinfo/{number}") as info:
            registered += [int(line.split()[1]) for line in info if line.startswith("tfd:")]
    return registered


def test_without_a_descriptor_to_be_had_the_thread_polls(connect):
    """EMFILE for the epoll descriptor: the wait needs no new descriptor to go on."""
    conn = connect()
    answers = []

    def work():
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (conn.fileno() + 1, hard))
        try:
            with contextlib.ExitStack() as stack:
                with contextlib.suppress(OSError):
                    while True:
                        stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
                with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                    os.open(os.devnull, os.O_RDONLY)
                answers.append(one(conn, "select 3 from pg_sleep(0.05)"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join()
    assert answers == [3]


def test_readiness_of_an_outer_wait_is_not_that_of_the_nested_one():
    """``PQconnectPoll()`` takes a socket for connected when it is asked before it is ready."""
    (outer, outer_peer), (inner, inner_peer) = socket.socketpair(), socket.socketpair()
    late = threading.Timer(0.3, inner_peer.send, [b"x"])
    waited = []

    class Stub:
        def __init__(self, sock):
            self.states, self.fileno = iter([POLL_READ, POLL_OK]), sock.fileno

        def poll(self):
            return next(self.states)

    def handler(*_):
        outer_peer.send(b"x")
        start = time.monotonic()
        late.start()
        greenwait.EpollWaitCallback(Stub(inner))
        waited.append(time.monotonic() - start)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with outer, outer_peer, inner, inner_peer:
            threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGUSR1]).start()
            greenwait.EpollWaitCallback(Stub(outer))
            late.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(waited) == 1
    assert waited[0] > 0.2


def test_forked_child_makes_its_own_set(run_program):
    output = run_program("epoll_forks")
    assert output == "ok\n"


def test_socket_inherited_by_a_child_does_not_wake_the_parent(run_program):
    """A closed connection stays in the kernel's set, and readable, if a child holds its socket."""
    output = run_program("inherited_socket")
    assert output == "True\n"


def test_epoll_callable_works_as_it_stands(server):
    """``set_wait_callback(greenwait.EpollWaitCallback)``: an instance, not a class to be called."""
    conn = psycopg2.connect(server.dsn())
    assert one(conn, "select 1") == 1
    conn.close()
