"""Pairs of a kill and a timeout at random moments: neither is lost. DSN SEED gevent|eventlet."""

import importlib
import random
import sys
import warnings
from typing import Any

import psycopg2
from greenlet import GreenletExit, getcurrent

warnings.filterwarnings("ignore", message="(?s).*Eventlet is deprecated")
framework: Any = importlib.import_module(sys.argv[3])
adapter: Any = importlib.import_module(f"greenwait.{sys.argv[3]}")

if sys.argv[3] == "gevent":

    def kill_later(seconds, victim):
        framework.spawn_later(seconds, victim.kill, block=False)
else:

    def kill_later(seconds, victim):
        framework.spawn_after(seconds, victim.kill)


spawn, sleep, Timeout = framework.spawn, framework.sleep, framework.Timeout

TIMES, BESIDE, SEED = 1000, 25, int(sys.argv[2])
adapter.patch_psycopg()
generator = random.Random(SEED)
lost, closed = [], 0


def chain(exc):
    found = []
    while exc is not None and exc not in found:
        found.append(exc)
        exc = exc.__context__
    return found


def victim(limit, kill, seen):
    conn = psycopg2.connect(sys.argv[1])
    conn.autocommit = True
    cur = conn.cursor()
    ready.append(True)
    while len(ready) < BESIDE:
        sleep(0.001)
    timer = Timeout(limit)
    if hasattr(timer, "start") and not timer.pending:
        timer.start()
    kill_later(kill, getcurrent())
    for attempt in range(3):
        try:
            if not conn.closed and not attempt:
                cur.execute("select pg_sleep(0.004)")
            sleep(5)
            break
        except BaseException as exc:
            links = chain(exc)
            ends = [each for each in links if isinstance(each, GreenletExit)]
            if ends and links[0] is not ends[0]:
                seen.append("the lower one was raised")
            seen += ends[:1] + [each for each in links if each is timer]
            if len(seen) == 2:
                break
    if conn.closed:
        seen.append("closed")
    conn.close()


for _ in range(TIMES // BESIDE):
    ready, group = [], []
    for _ in range(BESIDE):
        seen = []
        limit, kill = (generator.uniform(0.0005, 0.008) for _ in range(2))
        group.append((spawn(victim, limit, kill, seen), limit, kill, seen))
    for job, limit, kill, seen in group:
        job.get() if hasattr(job, "get") else job.wait()
        if seen[-1:] == ["closed"]:
            closed += 1
            seen.pop()
        if sorted(type(each).__name__ for each in seen) != ["GreenletExit", "Timeout"]:
            lost.append((limit, kill, seen))
assert not lost, (SEED, len(lost), lost[:5])
assert closed > 10, closed  # the second came as the first was drained
print("none was lost", closed)
