"""Interrupts at random moments of gather()."""

import random
import signal

import greenwait
from greenwait._greenlets.hub import hub_here


def interrupt(*_):
    raise KeyboardInterrupt


greenwait.install()
signal.signal(signal.SIGALRM, interrupt)
source = random.Random(4711)
interrupts = 0
while interrupts < 5000:
    try:
        signal.setitimer(signal.ITIMER_REAL, source.uniform(1e-6, 6e-5))
        greenwait.gather(lambda: None)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupts += 1
    assert hub_here() is None, interrupts
print(interrupts)
