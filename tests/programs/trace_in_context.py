"""Jobs over a pool, a deadline and an interrupt, recorded in one context: CONTEXT DSN FILE."""

import signal
import sys

import greenwait
from tests.lab.contexts import CONTEXTS

JOBS, PLACES = 8, 2


def main(name: str, dsn: str, file: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored
    context = CONTEXTS[name](cancel_grace=20)
    pool = greenwait.Pool(dsn, max_size=PLACES)

    def ask(number: int) -> None:
        with pool.connection() as conn, conn.cursor() as cur:
            cur.execute(f"select {number}, pg_sleep(0.02)")

    def too_slow() -> None:
        with pool.connection() as conn, conn.cursor() as cur, greenwait.timeout(0.1):
            cur.execute("select pg_sleep(60) -- too slow")

    def forever() -> None:
        with pool.connection() as conn, conn.cursor() as cur:
            cur.execute("select pg_sleep(61)")

    with greenwait.trace(file):
        context.many(ask, JOBS, JOBS)
        try:
            context.run(too_slow)
        except greenwait.QueryTimeout:
            print("timeout")
        try:
            context.kill(forever, 0.3)
        except BaseException as exc:
            print(type(exc).__name__)
    pool.close()


main(*sys.argv[1:])
