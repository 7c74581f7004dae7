"""gevent in one thread, eventlet in another, a hub in a third, and threads that just sleep."""

import sys
import threading
import warnings

warnings.simplefilter("ignore")
import eventlet
import gevent
import psycopg2

import greenwait
import greenwait.eventlet
import greenwait.gevent

greenwait.gevent.patch_psycopg(cancel_grace=20)
greenwait.eventlet.patch_psycopg(cancel_grace=20)
DSN = sys.argv[1]
EACH = 40
done, threads, failures = [], [], []
shared = psycopg2.connect(DSN, connection_factory=greenwait.Connection)


def work(name, number):
    with pool.connection() as conn, conn.cursor() as cur:
        cur.execute("select %s from pg_sleep(0.005)", (number,))
        assert cur.fetchone() == (number,)
    with shared.cursor() as cur:
        cur.execute("select %s", (number,))
        assert cur.fetchone() == (number,)
    shared.commit()
    try:
        with pool.connection() as conn, conn.cursor() as cur, greenwait.timeout(0.05):
            cur.execute("select pg_sleep(23)")
    except greenwait.QueryTimeout:
        done.append((name, number))


def in_gevent():
    gevent.joinall([gevent.spawn(work, "gevent", n) for n in range(EACH)], raise_error=True)
    gevent.get_hub().destroy()


def in_eventlet():
    for job in [eventlet.spawn(work, "eventlet", n) for n in range(EACH)]:
        job.wait()


def in_hub():
    list(greenwait.map(lambda n: work("hub", n), range(EACH), concurrency=EACH))


def in_threads():
    own = [threading.Thread(target=work, args=("thread", n)) for n in range(EACH)]
    for thread in own:
        thread.start()
    for thread in own:
        thread.join()


def guarded(function):
    try:
        function()
    except BaseException as exc:
        failures.append(exc)
        raise


with greenwait.Pool(DSN, max_size=20, timeout=40) as pool:
    for function in (in_gevent, in_eventlet, in_hub, in_threads):
        threads.append(threading.Thread(target=guarded, args=(function,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sorted(done) == sorted(
        (name, n) for name in ("gevent", "eventlet", "hub", "thread") for n in range(EACH)
    )
    assert pool.stats().in_use == pool.stats().waiting == 0
shared.rollback()
with shared.cursor() as cur:
    cur.execute(
        "select count(*) from pg_stat_activity where state = 'active'"
        " and query like '%pg_sleep(23)' and pid <> pg_backend_pid()"
    )
    assert cur.fetchone() == (0,)
print("well")
