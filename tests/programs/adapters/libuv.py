"""gevent's loop on libuv, which has no timers of less than a millisecond: gevent warns of them."""

from typing import Any

import gevent

asked_for = []
loop: Any = gevent.config.loop


class Loop(loop):  # type: ignore[misc]
    def timer(self, after, *args, **options):
        asked_for.append(after)
        return super().timer(after, *args, **options)


gevent.config.loop = Loop

import greenwait
from tests.lab.queries import one
from tests.programs.adapters.framework import connect, spawn


def timers_are_not_too_short_for_libuv():
    def work():
        conn = connect()
        conn.autocommit = True
        for number in range(30):
            try:
                with greenwait.timeout(number / 10_000):
                    one(conn, "select pg_sleep(30)")
            except greenwait.QueryTimeout:
                pass

    spawn(work).get()
    assert min(asked_for) >= 0.001, min(asked_for)
