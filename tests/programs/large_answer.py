"""How late is the deadline of a large answer, beside a neighbour that computes?

``DSN CONTEXT KIND deadline|signal DEADLINE GRACE``. It computes 5 ms in each turn. What is left in
the buffers when the query is cancelled takes a while then: it may take all of the grace, and cost
the connection.
"""

import importlib
import os
import signal
import sys
import time
import warnings
from typing import Any

context, kind, what = sys.argv[2:5]
DEADLINE, GRACE = map(float, sys.argv[5:])
if kind == "without libpq":
    os.environ["GREENWAIT_NO_LIBPQ"] = "1"
warnings.simplefilter("ignore")
import psycopg2.extensions

import greenwait


class Own(psycopg2.extensions.connection):
    def poll(self):
        return super().poll()


is_over = False


def wait(conn):
    callback = psycopg2.extensions.get_wait_callback()  # which has the options
    assert callback
    callback(conn)


def work():
    global is_over
    if kind == "async":
        conn = psycopg2.connect(sys.argv[1], async_=1)
        wait(conn)
    else:
        conn = psycopg2.connect(sys.argv[1], connection_factory=Own if kind == "own poll" else None)
        conn.autocommit = True
    cur = conn.cursor()
    began = time.monotonic()
    if what == "signal":
        signal.signal(signal.SIGALRM, lambda *_: ran.append(time.monotonic() - began - 0.2))
        signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with greenwait.timeout(DEADLINE):
            cur.execute("select repeat('x', 1000), generate_series(1, 5000000)")
            if kind == "async":
                wait(conn)
    except psycopg2.OperationalError as exc:
        assert isinstance(exc, greenwait.QueryTimeout) or conn.closed, exc
        print(time.monotonic() - began - DEADLINE)
    else:
        raise AssertionError("the answer was there in no time")
    finally:
        is_over = True


ran = []


def compute():
    if what == "deadline":
        end = time.perf_counter() + 0.005
        while time.perf_counter() < end:
            pass


options: dict[str, Any] = {"cancel_grace": GRACE}
if context == "hub":
    greenwait.install(**options)

    def be_busy():
        while not is_over:
            compute()
            hub.sleep(0)

    with greenwait.Hub() as hub:
        if what == "deadline":
            hub.spawn(be_busy)
        hub.spawn(work)
elif context in ("asyncio", "uvloop"):
    import asyncio

    import greenwait.aio

    if context == "uvloop":
        import uvloop

        uvloop.install()
    greenwait.install(**options)

    async def be_busy_too():
        while not is_over and what == "deadline":
            compute()
            await asyncio.sleep(0)

    async def main():
        await asyncio.gather(be_busy_too(), greenwait.aio.run(work))

    asyncio.run(main())
elif context == "trio":
    import trio

    import greenwait.trio

    greenwait.install(**options)

    async def be_busy_there():
        while not is_over and what == "deadline":
            compute()
            await trio.sleep(0)

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(be_busy_there)
            nursery.start_soon(greenwait.trio.run, work)

    trio.run(main)
else:
    framework: Any = importlib.import_module(context)
    importlib.import_module(f"greenwait.{context}").patch_psycopg(**options)

    def be_busy():
        while not is_over and what == "deadline":
            compute()
            framework.sleep(0)

    jobs = [framework.spawn(be_busy), framework.spawn(work)]
    for job in jobs:
        job.get() if context == "gevent" else job.wait()
if what == "signal":
    print(ran.pop())
