"""Do something while the server sleeps in a query: then it has begun, and nothing has come back.

A query that is only "active" may still be the BEGIN before it, and what is done to
that, a cancel or a kill, is another case.
"""

import time

from tests.lab.waiting import TIMEOUT, when


def wait_until_asleep(watcher, pid):
    """Return when the server process *pid* is in ``pg_sleep()``; *watcher* is who asks.

    To wait for an advisory lock is to be asleep too.
    """
    query = f"""
        select true from pg_stat_activity
        where pid = {pid} and wait_event in ('PgSleep', 'advisory')"""
    give_up = time.monotonic() + TIMEOUT
    cur = watcher.cursor()
    while time.monotonic() < give_up:
        cur.execute(query)
        if cur.fetchone():
            return
    raise AssertionError("it never slept")


def when_asleep(watcher, conn, action):
    """In the ``with`` block, run *action* in a thread as soon as *conn*'s query sleeps."""
    pid = conn.info.backend_pid
    watcher.autocommit = True
    return when(lambda: wait_until_asleep(watcher, pid), action)


def again_until(happened, conn, attempt):
    """Repeat *attempt* until *happened()*; return what it has returned then.

    A cancel stops whatever the server does when it comes, and one request sends two signals
    (signal_child() in its postmaster.c), besides the request that is sent again on a busy
    machine. So what a statement does because of the first may be stopped by the second.
    """
    for _ in range(50):
        outcome = attempt()
        if happened():
            return outcome
        conn.rollback()
    raise AssertionError("it never came to that")
