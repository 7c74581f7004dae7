"""There is no descriptor left to cancel with, beside others: DSN CONTEXT deadline|cancel."""

import importlib
import os
import resource
import sys
import time
import warnings
from typing import Any

warnings.simplefilter("ignore")
import psycopg2

import greenwait

context, what = sys.argv[2:]
said = []


def exhaust():
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 2, hard))
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass


def work():
    global is_asking
    conn = psycopg2.connect(sys.argv[1])
    conn.autocommit = True
    cur = conn.cursor()
    cur.execute("select 1")
    exhaust()
    is_asking = True  # nothing else runs before it waits
    began = time.monotonic()
    try:
        with greenwait.timeout(0.3 if what == "deadline" else 30):
            cur.execute("select pg_sleep(20)")
    except BaseException as exc:
        took = time.monotonic() - began
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        said.append(f"{type(exc).__name__} {exc} {exc.__cause__} {took < 10} {conn.closed}")


held = []
is_asking = False
job: Any
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if context == "hub":
    greenwait.install(cancel_grace=0.5)
    with greenwait.Hub() as hub:
        job = hub.spawn(work)
        while not is_asking:
            hub.sleep(0.01)
        if what == "cancel":
            job.cancel()
elif context == "asyncio":
    import asyncio

    import greenwait.aio

    greenwait.install(cancel_grace=0.5)

    async def main():
        task = asyncio.ensure_future(greenwait.aio.run(work))
        while not is_asking:
            await asyncio.sleep(0.01)
        if what == "cancel":
            task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())
else:
    framework: Any = importlib.import_module(context)
    importlib.import_module(f"greenwait.{context}").patch_psycopg(cancel_grace=0.5)
    job = framework.spawn(work)
    while not is_asking:
        framework.sleep(0.01)
    if what == "cancel":
        job.kill()
    job.get() if context == "gevent" else job.wait()
for fd in held:
    os.close(fd)
print(*said)
