"""In every context, whatever the answer: no interrupt is lost, no message, and nothing runs after.

``make delivery-table`` makes a hundred tries of what has a few here.
"""

import asyncio
import itertools
import random
from typing import Any

import pytest
import uvloop

import greenwait
from greenwait import aio
from tests.delivery_trials import table
from tests.delivery_trials.contexts import CONTEXTS
from tests.delivery_trials.tries import ANSWERS, EVENTS
from tests.lab.marks import needs_refusal

TRIES = 4


@needs_refusal
@pytest.mark.parametrize("context", CONTEXTS)
def test_nothing_is_lost_of_what_meets_an_answer(context, server):
    dsn = server.dsn(server.transports[0])
    cells, problems = table.cells_of(context, dsn, TRIES, str(random.randrange(1_000_000)))
    assert [*table.faults(context, cells), *problems] == []
    answered = 0
    for answer, events in cells.items():
        for event, counts in events.items():
            assert counts["tries"] == TRIES, (answer, event)
            # Half of them strike when the answer is there, most of these when it is whole.
            assert counts["successes"] >= counts["answered"], (answer, event)
            answered += counts["answered"]
    assert answered


def test_faults_of_a_table_are_told():
    counts = {"tries": 1, "lost": 0, "messages": 0, "after": 0}
    cells = {answer: {event: dict(counts) for event in EVENTS} for answer in ANSWERS}
    assert list(table.faults("hub", cells)) == []
    for what in ("lost", "messages", "after", "closed"):
        cells["notice"]["deadline"] = counts | {what: 1}
        (fault,) = table.faults("hub", cells)
        assert fault.startswith("hub, notice, deadline")
    assert " | 1 / 0 / 0 / 0 | " in table.row("hub", "deadline", cells)


# -- A connection that listens

COUNT = 300
asyncio_timeout: Any = getattr(asyncio, "timeout", None)
needs_asyncio_timeout = pytest.mark.skipif(
    asyncio_timeout is None, reason="asyncio.timeout() is new in Python 3.11"
)


async def collect(listen, conn, payloads, rng):
    """Let *listen* be struck by timeouts until all is there; return how many there were."""
    struck = 0
    while struck < COUNT or len(payloads) < COUNT:
        try:
            async with asyncio_timeout(rng.random() * 0.01):
                await listen(conn, payloads)
        except TimeoutError:
            struck += 1
    return struck


async def ask(conn, payloads):
    """Statements in a loop, whose answers have notifications."""
    cur = conn.cursor()
    for number in itertools.count():
        await cur.execute("select %s", (number,))
        assert await cur.fetchone() == (number,)
        payloads += [each.payload for each in conn.notifies]
        del conn.notifies[:]


async def wait_for_notifies(conn, payloads):
    async for each in aio.notifies(conn):
        payloads.append(each.payload)


async def notify(conn, rng):
    cur = conn.cursor()
    for number in range(COUNT):
        await asyncio.sleep(rng.random() * 0.01)
        await cur.execute("select pg_notify('delivery', %s)", (str(number),))


@needs_asyncio_timeout
@needs_refusal
@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("listen", [ask, wait_for_notifies])
def test_notifications_and_timeouts_at_random_moments_are_all_there(server, listen, new_loop):
    seed = random.randrange(1_000_000)
    rng = random.Random(seed)
    dsn = server.dsn(server.transports[0])

    async def main():
        conn, other = await aio.connect(dsn), await aio.connect(dsn)
        conn.autocommit = other.autocommit = True
        await conn.cursor().execute("listen delivery")
        payloads: list[str] = []
        struck, _ = await asyncio.wait_for(
            asyncio.gather(collect(listen, conn, payloads, rng), notify(other, rng)), 50
        )
        assert struck >= COUNT
        assert payloads == [str(number) for number in range(COUNT)], f"seed {seed}"
        assert not conn.closed
        await asyncio.gather(conn.close(), other.close())

    with greenwait.installed(cancel_grace=10):
        loop = new_loop()
        try:
            loop.run_until_complete(main())
        finally:
            loop.close()
