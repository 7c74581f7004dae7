"""Twenty jobs share a pool of four connections; the trace shows who waited for what.

python examples/twenty_jobs.py "dbname=postgres" timeline.json
python -m greenwait timeline timeline.json -o timeline.html
"""

import sys

import greenwait

dsn, file = sys.argv[1:]
greenwait.install()
pool = greenwait.Pool(dsn, max_size=4)


def report(number: int) -> None:
    with pool.connection() as conn, conn.cursor() as cur:
        cur.execute("select pg_sleep(%s), 'a report'", (0.01 + number % 5 * 0.01,))
        cur.execute("select count(*) from pg_class")


def slow_report() -> None:
    try:
        with greenwait.timeout(0.09), pool.connection() as conn, conn.cursor() as cur:
            cur.execute("select pg_sleep(60), 'takes too long'")
    except greenwait.QueryTimeout as exc:
        print(exc)


with greenwait.trace(file), greenwait.Hub() as hub:
    for number in range(20):
        if number == 3:
            hub.spawn(slow_report)
        else:
            hub.spawn(report, number)
pool.close()
