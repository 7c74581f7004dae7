"""The fault laboratory does to a connection what it says."""

import os
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import psycopg2
import pytest

import greenwait
from greenwait._psycopg.libpq import FAST_PATHS
from tests.lab.fault_proxy import TIMEOUT, Fault, FaultProxy
from tests.lab.freezers import frozen
from tests.lab.hosts import dropping_listener, refusing_port, silent_listener
from tests.lab.leaks import no_leaked_descriptors
from tests.lab.silence import silence


class Upstream:
    """A host that sends back what it gets; it has what a proxy wants of a server."""

    def __init__(self):
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def _serve(self):
        while True:
            try:
                peer, _ = self._listening.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._echo, args=(peer,), daemon=True))
            self._threads[-1].start()

    def _echo(self, peer):
        with peer:
            try:
                while data := peer.recv(65536):
                    peer.sendall(data)
            except OSError:
                pass

    def close(self):
        """Stop, and leave no descriptor to be closed in another test."""
        self._listening.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(TIMEOUT)
        self._listening.close()


@pytest.fixture
def proxy():
    upstream: Any = Upstream()
    with FaultProxy(upstream) as proxy:
        yield proxy
    upstream.close()


@pytest.fixture
def client(proxy):
    with socket.create_connection(("127.0.0.1", proxy.port), 20) as client:
        yield client


def receive(client, size):
    data = b""
    while len(data) < size and (more := client.recv(size - len(data))):
        data += more
    return data


def is_silent(client, seconds=0.2):
    client.settimeout(seconds)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(20)
    return False


DATA = bytes(range(256)) * 1000


def test_without_faults_everything_passes_and_is_recorded(proxy, client):
    threading.Thread(target=client.sendall, args=(DATA,), daemon=True).start()
    assert receive(client, len(DATA)) == DATA
    assert proxy.connections[0].to_server == proxy.connections[0].to_client == DATA


@pytest.mark.parametrize("direction", ["to_client", "to_server", None])
def test_stall_holds_everything_until_it_is_cleared(proxy, client, direction):
    proxy.inject(Fault("stall", direction))
    client.sendall(b"one")
    assert is_silent(client)
    proxy.clear()
    assert receive(client, 3) == b"one"


def test_trickle_passes_on_byte_by_byte(proxy, client):
    proxy.inject(Fault("trickle", "to_client", 0.01))
    began = time.monotonic()
    client.sendall(b"x" * 20)
    assert receive(client, 20) == b"x" * 20
    assert time.monotonic() - began > 0.15


def test_delay_comes_late_and_in_order(proxy, client):
    proxy.inject(Fault("delay", "to_client", 0.2))
    began = time.monotonic()
    for word in (b"one", b"two", b"three"):
        client.sendall(word)
    assert receive(client, 11) == b"onetwothree"
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("count", [0, 1, 7])
def test_cut_comes_after_the_very_byte(proxy, client, count):
    proxy.inject(Fault("cut", "to_client", count))
    client.sendall(b"x" * 20)
    try:
        assert receive(client, 20) == b"x" * count
    except ConnectionResetError:  # what it had sent was not read
        assert count == 0


def test_reset_is_a_reset(proxy, client):
    client.sendall(b"x")
    assert receive(client, 1) == b"x"
    proxy.inject(Fault("reset"))
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_half_close_ends_one_direction(proxy, client):
    client.sendall(b"x")
    assert receive(client, 1) == b"x"
    proxy.inject(Fault("half_close", "to_client"))
    assert client.recv(1) == b""
    for _ in range(20):
        client.sendall(b"y" * 1000)  # still taken
        time.sleep(0.001)
    assert proxy.connections[0].is_open


def test_ignored_connection_is_accepted_and_silent(proxy, client):
    client.sendall(b"x")
    proxy.inject(Fault("ignore"))
    with socket.create_connection(("127.0.0.1", proxy.port), 20) as ignored:
        ignored.sendall(b"y")
        assert is_silent(ignored)
    assert receive(client, 1) == b"x"


def test_refused_connection_is_refused_until_it_is_cleared(proxy, client):
    proxy.inject(Fault("refuse"))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), 20)
    proxy.clear()
    socket.create_connection(("127.0.0.1", proxy.port), 20).close()
    client.sendall(b"x")
    assert receive(client, 1) == b"x"


def test_fault_for_one_connection_leaves_the_others_alone(proxy, client):
    client.sendall(b"x")
    assert receive(client, 1) == b"x"
    proxy.inject(Fault("stall", only=lambda connection: connection.index == 1))
    with socket.create_connection(("127.0.0.1", proxy.port), 20) as other:
        other.sendall(b"y")
        assert is_silent(other)
        client.sendall(b"z")
        assert receive(client, 1) == b"z"


def test_end_of_one_side_is_the_end_of_the_other(proxy, client):
    client.sendall(b"x")
    client.shutdown(socket.SHUT_WR)
    assert receive(client, 2) == b"x"


@pytest.mark.skipif(
    FAST_PATHS["cancel"].endswith("keeps the GIL"), reason="the proxy's thread needs the GIL"
)
def test_cancel_request_is_recognised(own_server, callback):
    with FaultProxy(own_server) as proxy:
        conn = psycopg2.connect(proxy.dsn())
        greenwait.cancel(conn, timeout=20)
        conn.close()
        # psycopg2's own is in clear, and so is libpq's where the connection is.
        assert [each.is_cancel for each in proxy.connections] == [False, True]


def test_silent_listener_accepts_and_says_nothing():
    with silent_listener() as port, socket.create_connection(("127.0.0.1", port), 5) as client:
        assert is_silent(client)


def test_dropping_listener_lets_a_connect_hang():
    with dropping_listener() as port:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                socket.create_connection(("127.0.0.1", port), 0.3)


def test_refusing_port_refuses():
    with refusing_port() as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)


def test_frozen_process_stands_still():
    script = "import time\nwhile True: print(time.monotonic(), flush=True); time.sleep(0.01)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout
        it.stdout.readline()
        with frozen(it.pid):
            frozen_at = time.monotonic()
            time.sleep(0.3)
            thawed_at = time.monotonic()
        times = [float(it.stdout.readline()) for _ in range(100)]
        it.kill()
    assert not [each for each in times if frozen_at < each < thawed_at]


def test_leaked_descriptor_is_noticed():
    leaked = []
    with pytest.raises(AssertionError), no_leaked_descriptors():
        leaked.append(os.dup(0))
    os.close(leaked[0])
    with no_leaked_descriptors():
        os.close(os.dup(0))


def test_silence_is_noticed_and_is_this_process_s_own():
    for _ in range(10):  # a busy machine may keep the process beside it waiting for longer
        with silence() as others:
            sum(range(20_000_000))  # one call, which keeps the GIL
        assert others.longest > 0.05
        if others.longest > others.machine:
            break
    assert others.longest > others.machine
