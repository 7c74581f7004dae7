"""What the loop asks of a connection, and what it makes of the answers: with stubs and pipes."""

import errno
import fcntl
import os
import select
import socket
import threading
import time

import psycopg2
import pytest
from psycopg2.extensions import POLL_OK, POLL_READ, POLL_WRITE

import greenwait


class Stub:
    """An object with just ``fileno()`` and ``poll()``, which answers from a list of states."""

    def __init__(self, states, filenos):
        self.states = iter(states)
        self.filenos = iter(filenos)
        self.calls = []

    def poll(self):
        self.calls.append("poll")
        return next(self.states)

    def fileno(self):
        self.calls.append("fileno")
        return next(self.filenos)


class Recorder:
    """A connection in front of which somebody notes down what ``poll()`` returned."""

    def __init__(self, conn):
        self.conn = conn
        self.states = []

    def fileno(self):
        return self.conn.fileno()

    def poll(self):
        state = self.conn.poll()
        self.states.append(state)
        return state


@pytest.fixture
def pair():
    """Two connected sockets; nothing has been written to either."""
    left, right = socket.socketpair()
    with left, right:
        yield left, right


@pytest.fixture
def ready(pair):
    """A descriptor that is ready for reading and for writing."""
    pair[1].send(b"x")
    return pair[0].fileno()


def test_ready_connection_returns_none_without_sleeping(callback):
    stub = Stub([POLL_OK], [])
    assert callback(stub) is None
    assert stub.calls == ["poll"]


def test_descriptor_is_read_before_every_sleep(callback, ready):
    stub = Stub([POLL_READ, POLL_WRITE, POLL_READ, POLL_OK], [ready] * 3)
    callback(stub)
    assert stub.calls == ["poll", "fileno"] * 3 + ["poll"]


def test_another_socket_under_the_same_descriptor_is_waited_for(callback):
    """What libpq does while connecting, where it tries one address after the other."""
    old, old_peer = socket.socketpair()
    new, new_peer = socket.socketpair()
    number = old.fileno()
    late = threading.Timer(0.1, new_peer.send, [b"x"])

    class Replacing(Stub):
        def poll(self):
            state = super().poll()
            if self.calls.count("poll") == 2:
                os.dup2(new.fileno(), number)
                late.start()
            return state

    with old, old_peer, new, new_peer:
        old_peer.send(b"x")
        callback(Replacing([POLL_READ, POLL_READ, POLL_OK], [number] * 50))
        late.join()
        assert select.select([number], [], [], 0)[0] == [number]


def test_write_readiness_is_waited_for_only_when_asked(callback, pair):
    """A socket is nearly always writable: POLL_READ must not wake on that."""
    late = threading.Timer(0.1, pair[1].send, [b"x"])
    stub = Stub([POLL_WRITE, POLL_READ, POLL_OK], [pair[0].fileno()] * 50)
    start = time.monotonic()
    late.start()
    callback(stub)
    assert time.monotonic() - start > 0.05
    late.join()


def test_hang_up_lets_poll_say_what_happened(callback, pair):
    pair[1].close()

    class Broken(Stub):
        def poll(self):
            if self.calls.count("poll"):
                raise psycopg2.OperationalError("server closed the connection")
            return super().poll()

    with pytest.raises(psycopg2.OperationalError, match="server closed"):
        callback(Broken([POLL_READ], [pair[0].fileno()]))


@pytest.mark.parametrize("state", [3, -1, 17, None, "read", 2**80])
def test_unknown_state_is_an_operational_error_that_names_it(callback, state):
    with pytest.raises(psycopg2.OperationalError, match=repr(state)):
        callback(Stub([state], []))


@pytest.mark.parametrize("number", ["closed", -1])
def test_closed_descriptor_is_an_operational_error_from_the_oserror(callback, pair, number):
    if number == "closed":  # and high, so that nobody is given the number meanwhile
        number = fcntl.fcntl(pair[0].fileno(), fcntl.F_DUPFD, 900)
        os.close(number)
    with pytest.raises(psycopg2.OperationalError, match=f"descriptor {number} was closed") as info:
        callback(Stub([POLL_READ], [number] * 5))
    assert isinstance(info.value.__cause__, OSError)
    assert info.value.__cause__.errno == errno.EBADF


@pytest.mark.parametrize("where", ["main thread", "other thread"])
def test_descriptor_closed_during_the_sleep_is_noticed(callback, pair, where):
    """No poller reports a close() of the descriptor it sleeps on."""
    # High, so that nobody is given the number meanwhile, a thread's epoll set for instance.
    number = fcntl.fcntl(pair[0].fileno(), fcntl.F_DUPFD, 900)
    pair[0].close()
    stub = Stub([POLL_READ, POLL_OK], [number] * 100)
    outcome = []

    def wait():
        with pytest.raises(psycopg2.OperationalError) as info:
            callback(stub)
        outcome.append(info.value)

    closer = threading.Timer(0.1, os.close, [number])
    closer.start()
    if where == "main thread":
        wait()
    else:
        waiter = threading.Thread(target=wait, daemon=True)
        waiter.start()
        waiter.join(20)
    closer.join()
    assert [getattr(exc.__cause__, "errno", None) for exc in outcome] == [errno.EBADF]


def test_descriptors_closed_under_many_threads_are_noticed_by_all(callback):
    """Each thread has its own end of the sleep: none takes it from another."""
    pairs = [socket.socketpair() for _ in range(30)]
    noticed = []

    def wait(number):
        with pytest.raises(psycopg2.OperationalError):
            callback(Stub([POLL_READ] * 100, [number] * 100))
        noticed.append(number)

    numbers = [fcntl.fcntl(left.fileno(), fcntl.F_DUPFD, 900) for left, _ in pairs]
    threads = [threading.Thread(target=wait, args=(number,), daemon=True) for number in numbers]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    for number in numbers:
        os.close(number)
    give_up = time.monotonic() + 5
    for thread in threads:
        thread.join(give_up - time.monotonic())
    for left, right in pairs:
        left.close()
        right.close()
    assert sorted(noticed) == sorted(numbers)


def test_regular_file_is_always_ready(callback, tmp_path):
    """epoll refuses files (EPERM), poll(2) calls them ready; a caller should see no difference."""
    with (tmp_path / "file").open("w") as file:
        callback(Stub([POLL_READ, POLL_WRITE, POLL_OK], [file.fileno()] * 10))


@pytest.mark.parametrize("method", ["poll", "fileno"])
def test_exception_of_a_method_is_raised_as_it_is(callback, ready, method):
    class Failing(Stub):
        pass

    def fail(self):
        raise LookupError(method)

    setattr(Failing, method, fail)
    with pytest.raises(LookupError, match=method):
        callback(Failing([POLL_READ], [ready]))


@pytest.mark.parametrize(
    "thing",
    [None, 7, object(), socket.socket, select.poll(), ConnectionError()],
    ids=lambda thing: type(thing).__name__,
)
def test_object_without_the_methods_is_a_type_error(callback, thing):
    with pytest.raises(TypeError, match=r"poll\(\) and fileno\(\), not"):
        callback(thing)


def test_cursor_is_a_type_error_that_names_its_connection(callback, connect):
    with pytest.raises(TypeError, match=r"not 'cursor' \(for a cursor, pass its \.connection\)"):
        callback(connect().cursor())


@pytest.mark.parametrize("arguments", [(), (1, 2)])
def test_wrong_number_of_arguments_is_a_type_error(callback, arguments):
    with pytest.raises(TypeError, match="argument"):
        callback(*arguments)


def test_closed_connection_is_an_interface_error(callback, connect):
    conn = connect()
    conn.close()
    with pytest.raises(psycopg2.InterfaceError, match="already closed"):
        callback(conn)


def test_idle_connection_returns_at_once(callback, connect):
    assert callback(connect()) is None


def test_connection_subclass_may_override_poll_and_fileno(callback, connect):
    class Counting(psycopg2.extensions.connection):
        polls = filenos = 0

        def poll(self):
            self.polls += 1
            return super().poll()

        def fileno(self):
            self.filenos += 1
            return super().fileno()

    conn = connect(connection_factory=Counting)
    assert conn.polls > 0
    assert conn.filenos > 0


def test_query_is_a_write_a_read_and_an_answer(callback, connect):
    conn = connect()
    recorder = Recorder(conn)
    psycopg2.extensions.set_wait_callback(lambda conn: callback(recorder))
    conn.autocommit = True
    conn.cursor().execute("select pg_sleep(0.05)")
    assert recorder.states == [POLL_READ, POLL_OK]


def test_two_second_wait_costs_no_cpu(callback, connect, pair):
    """In the main thread, in another one, and where a peer that does not read blocks a send."""
    pair[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            pair[0].send(b"x" * 65536)
    blocked = Stub([POLL_WRITE, POLL_OK], [pair[0].fileno()] * 100)
    conn, other = connect(), connect()
    spent = {}

    def measure(name, wait, *args):
        before = time.thread_time()
        wait(*args)
        spent[name] = time.thread_time() - before

    sleep = "select pg_sleep(2)"
    threads = [
        threading.Thread(
            target=measure, args=("thread", other.cursor().execute, sleep), daemon=True
        ),
        threading.Thread(target=measure, args=("send", callback, blocked), daemon=True),
    ]
    for thread in threads:
        thread.start()
    measure("main", conn.cursor().execute, sleep)
    pair[1].close()
    for thread in threads:
        thread.join(20)
    assert {name: seconds for name, seconds in spent.items() if seconds >= 0.05} == {}
    assert len(spent) == 3


def test_gil_is_released_during_the_sleep(callback, pair):
    """Another thread's whole work fits into the sleep, and only that ends it."""

    def work():
        for _ in range(200_000):
            pass
        pair[1].send(b"x")

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    callback(Stub([POLL_READ, POLL_OK], [pair[0].fileno()] * 200))
    worker.join()


def test_wait_is_documented_and_callable_as_the_docs_say():
    assert "poll(2)" in str(greenwait.wait.__doc__)
    assert greenwait.wait.__module__ == "greenwait"
