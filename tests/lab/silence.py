"""How long the other threads of a process are kept from running."""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.lab.bounds import bound

TIMEOUT = bound(30)  # seconds


@dataclass
class Silence:
    """The longest time in which nobody could run, in seconds: here, and in another process."""

    longest: float = 0
    machine: float = 0


_TICK = """
import sys, time
longest, last = 0, time.perf_counter()
print(flush=True)
import select
while not select.select([sys.stdin], [], [], 0.001)[0]:
    now = time.perf_counter()
    longest, last = max(longest, now - last), now
print(longest)
"""


@contextlib.contextmanager
def silence() -> Iterator[Silence]:
    """Measure how long the other threads of this process are kept from running.

    A process beside it shows what the machine does to everybody.
    """
    found = Silence()
    begun, done = threading.Event(), threading.Event()

    def tick() -> None:
        last = time.perf_counter()
        begun.set()
        while not done.is_set():
            time.sleep(0.001)
            now = time.perf_counter()
            found.longest, last = max(found.longest, now - last), now

    with subprocess.Popen(
        [sys.executable, "-c", _TICK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as twin:
        assert twin.stdout is not None
        twin.stdout.readline()
        thread = threading.Thread(target=tick, daemon=True)
        thread.start()
        begun.wait(TIMEOUT)
        try:
            yield found
        finally:
            done.set()
            thread.join(TIMEOUT)
            found.machine = float(twin.communicate("\n", TIMEOUT)[0])
