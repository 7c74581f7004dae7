"""Every fault of the laboratory with fifty queries under way, on every kind of event loop."""

import contextlib
import subprocess
import sys

import pytest

from tests.lab.marks import cancels_through_the_proxy
from tests.lab.programs import ROOT
from tests.lab.steps import FAULTS

STRUCK = 25


class Client:
    """The other process, ``programs/fault_client.py``."""

    def __init__(self, loop, *dsns):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.programs.fault_client", loop, *dsns],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.play(*[lambda: None] * 3)  # it opens what it keeps

    def play(self, strike, relent, drop):
        self.say("begin")
        assert self.hear() == "ready"
        strike()
        self.say("go")
        assert self.hear() == "over"
        relent()
        self.say("end")
        assert self.hear() == "closed"
        drop()
        self.say("count")
        assert self.hear() == "well"

    def say(self, line):
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hear(self):
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def end(self):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()


@pytest.fixture(scope="module", params=["gevent", "eventlet", "asyncio", "uvloop", "trio"])
def client(request, laboratory, own_server):
    client = Client(request.param, laboratory.proxy.dsn(), own_server.dsn("unix"))
    with contextlib.closing(contextlib.ExitStack()) as stack:
        stack.callback(client.end)
        yield client


@cancels_through_the_proxy
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_with_fifty_in_flight(client, laboratory, fault):
    proxy = laboratory.proxy
    proxy.clear()
    first = len(proxy.connections)

    def strike():
        struck = proxy.connections[first:][:STRUCK]
        assert len(struck) == STRUCK
        proxy.inject(*[each for target in struck for each in FAULTS[fault](target)])

    def drop():
        # What an old libpq does in threads hangs until then.
        proxy.drop(proxy.connections[first:])

    client.play(strike, proxy.clear, drop)
