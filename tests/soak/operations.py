"""What is done on a connection: each operation has an answer that can be checked.

Each is called with a job and its connection, is synchronous code as programs have it, and leaves
the end of the transaction to the job.
"""

import hashlib
import os
import socket
from contextlib import suppress
from traceback import format_exception

import psycopg2
import psycopg2.extras
import pytest

import greenwait
from tests.lab.queries import one

ACCOUNTS = 16  # of each context
AMOUNT = 1000  # in each at the beginning
_LETTERS = "abcdefghij äöüß '\\\" % 漢字 😀"
LONG = 600  # seconds: a query of that time is there at the end, unless it was cancelled
SKIPPED = "skipped"  # what an operation returns that is not for this job
#: A transaction that was interrupted keeps its locks until somebody uses its connection again.
LOCK_TIMEOUT = "set local lock_timeout = '0.5s'"
_COPIES = (
    "copy copied from stdin",
    "copy (select 1) to stdout",
    "copy (select generate_series(1, 10000)) to stdout",
)
_MOST_TEXT = 2_000_000


def _text(rng):
    """A text of any length, most of them short."""
    length = int(_MOST_TEXT ** rng.random())
    part = "".join(rng.choices(_LETTERS, k=min(length, 50)))
    return (part * (length // len(part) + 1))[:length]


def numbers(job, conn):
    values = (job.rng.randrange(1 << 60), job.rng.random(), _text(job.rng)[:100], None)
    with conn.cursor() as cur:
        cur.execute("select %s, %s, %s, %s", values)
        (row,) = cur.fetchall()
    assert (row[0], float(row[1]), *row[2:]) == values, row


def many_numbers(job, conn):
    for number in range(job.rng.randrange(20)):
        assert one(conn, "select %s + 1", number) == number + 1


def rows(job, conn):
    count = job.rng.randrange(20_000)
    with conn.cursor() as cur:
        cur.execute("select g, repeat('x', g %% 100) from generate_series(1, %s) g", (count,))
        for number, (got, text) in enumerate(cur, 1):
            assert got == number
            assert text == "x" * (number % 100)
        assert cur.rowcount == count


def text_up(job, conn):
    text = _text(job.rng)
    digest = hashlib.md5(text.encode()).hexdigest()
    assert one(conn, "select md5(%s)", text) == digest


def text_down(job, conn):
    count = int((_MOST_TEXT / 3) ** job.rng.random())
    assert one(conn, "select repeat('ab ', %s)", count) == "ab " * count


def text_both_ways(job, conn):
    text = _text(job.rng)
    assert one(conn, "select %s", text) == text


def bytes_both_ways(job, conn):
    data = job.rng.randbytes(int(300_000 ** job.rng.random()))
    assert bytes(one(conn, "select %s::bytea", psycopg2.Binary(data))) == data


def named_cursor(job, conn):
    count = job.rng.randrange(5000)
    with conn.cursor(f"soak{job.rng.randrange(3)}") as cur:
        cur.itersize = job.rng.choice([10, 100, 2000])
        cur.execute("select generate_series(1, %s)", (count,))
        if job.rng.random() < 0.5:
            assert [row[0] for row in cur] == list(range(1, count + 1))
        else:
            asked = job.rng.randrange(100)
            assert len(cur.fetchmany(asked)) == min(asked, count)


def insert_many(job, conn):
    count = job.rng.randrange(1, 300)
    with conn.cursor() as cur:
        cur.execute("create temp table summands (n int) on commit drop")
        psycopg2.extras.execute_values(
            cur, "insert into summands values %s", [(n,) for n in range(count)], page_size=50
        )
        cur.execute("select sum(n) from summands")
        assert cur.fetchone() == (count * (count - 1) // 2,)


def copy_is_refused(job, conn):
    """psycopg2 has no COPY in green mode; what it sends is ended, and the connection goes on."""
    with conn.cursor() as cur:
        cur.execute("create temp table copied (n int) on commit drop")
        copy = job.rng.choice(_COPIES)
        with pytest.raises(psycopg2.ProgrammingError, match="use the copy_"):
            cur.execute(copy)
    conn.rollback()


def error(job, conn):
    with pytest.raises(psycopg2.errors.DivisionByZero):
        one(conn, "select 1 / 0")
    conn.rollback()


def notices(job, conn):
    """Some: none may be missing, whatever has struck, if the statement has succeeded."""
    text = f"notice {job.rng.random()}"
    count = job.rng.randrange(1, 4 if job.way == "shared" else 20)  # psycopg2 keeps 50
    one(
        conn,
        f"do $$begin for i in 1..{count} loop raise notice '{text}'; end loop; end$$; select 1",
    )
    # Not always the last: a server process that has to go for another's crash warns of it.
    assert sum(text in notice for notice in conn.notices) == count, conn.notices
    if job.way != "shared":
        del conn.notices[:]


def notify(job, conn):
    payload = str(job.rng.random())
    with conn.cursor() as cur:
        cur.execute("unlisten *; listen soak")
        conn.commit()
        cur.execute("select pg_notify('soak', %s)", (payload,))
    conn.commit()
    for notification in greenwait.notifies(conn):
        if notification.payload == payload:  # not another one's
            break
    with conn.cursor() as cur:
        cur.execute("unlisten *")


def nap(job, conn):
    seconds = job.rng.random() * 0.05
    assert one(conn, "select %s from pg_sleep(%s)", 5, seconds) == 5


def sleep_too_long(job, conn):
    """The server would be at work on it long after the end, if nobody cancelled it."""
    try:
        with greenwait.timeout(job.rng.random() * 0.2):
            one(conn, "select pg_sleep(%s)", job.long_time)
    except greenwait.QueryTimeout:
        job.count("cancelled by a deadline")
        conn.rollback()
    else:
        raise AssertionError("the deadline was not kept")


def sleep_until_interrupted(job, conn):
    """No deadline: the interrupt alone ends it, here and on the server."""
    if not job.is_interrupt_to_come():
        return SKIPPED
    one(conn, "select pg_sleep(%s)", LONG)
    raise AssertionError("the interrupt has not come")


def transfer(job, conn):
    """From one account of the context's to another; and a line in the ledger."""
    first, second = sorted(job.rng.sample(range(ACCOUNTS), 2))
    amount = job.rng.randrange(-20, 20)
    tag = job.soak.new_tag()
    base = job.soak.index * ACCOUNTS
    with conn.cursor() as cur:
        cur.execute(LOCK_TIMEOUT)
        try:
            for account, change in ((first, amount), (second, -amount)):
                cur.execute(
                    "update accounts set amount = amount + %s where number = %s",
                    (change, base + account),
                )
        except psycopg2.errors.LockNotAvailable:
            conn.rollback()
            return SKIPPED
        cur.execute("insert into ledger values (%s)", (tag,))
    with Committing(job.soak, tag):
        conn.commit()
    return None


class Committing:
    """A block that commits what *tag* names: is it in the ledger then?"""

    def __init__(self, soak, tag):
        self.ledger, self.failures, self.tag = soak.ledger, soak.failures, tag

    def __enter__(self):
        self.ledger[self.tag] = None  # an interrupt leaves it so

    def __exit__(self, kind, exc, traceback):
        if kind is None:
            self.ledger[self.tag] = True
        elif issubclass(kind, psycopg2.Error) and not issubclass(kind, greenwait.CommitInDoubt):
            self.ledger[self.tag] = False  # a plain failure is never a commit
            self.failures[self.tag] = "".join(format_exception(exc))


def add_up(job, conn):
    total = one(conn, "select sum(amount) from accounts")
    assert total == job.soak.total, f"the accounts add up to {total}, not {job.soak.total}"


def hang_up(job, conn):
    """What a middlebox does, from this side."""
    if job.is_sound:
        return SKIPPED
    # A server that was killed has cut it already: "not connected", or the descriptor is -1.
    how = job.rng.choice([socket.SHUT_WR, socket.SHUT_RDWR])
    with suppress(OSError), socket.socket(fileno=os.dup(conn.fileno())) as sock:
        sock.shutdown(how)
    one(conn, "select 1")
    raise AssertionError("the connection was cut, and nobody has noticed")


def gather(job, conn):
    """Three more of them at once, where there is a hub, or may be one."""
    # Who has one place of a few, and waits for another, may wait for ever.
    if not job.soak.context.has_hub or not job.is_sound or job.way == "pool":
        return SKIPPED

    def ask(number):
        with job.soak.pool(True).connection() as other:
            return one(other, "select %s from pg_sleep(0.002)", number)

    asked = [job.rng.randrange(1000) for _ in range(3)]
    assert list(greenwait.map(ask, asked)) == asked
    return None


#: Their names, and how likely each is.
OPERATIONS = {
    numbers: 6,
    many_numbers: 6,
    rows: 3,
    text_up: 3,
    text_down: 3,
    text_both_ways: 2,
    bytes_both_ways: 2,
    named_cursor: 4,
    insert_many: 3,
    copy_is_refused: 3,
    error: 2,
    notices: 2,
    notify: 3,
    nap: 8,
    sleep_too_long: 6,
    sleep_until_interrupted: 6,
    transfer: 10,
    add_up: 3,
    hang_up: 1,
    gather: 2,
}
#: What may be done on a connection that others use meanwhile.
OF_SHARED = {numbers: 1, text_down: 1, text_up: 1, notices: 1, nap: 3}
