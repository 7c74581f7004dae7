"""What one of the libraries does in one of the contexts: ``DSN LIBRARY CONTEXT CASE``."""

import sys

DSN, LIBRARY, CONTEXT, CASE = sys.argv[-4:]
if CONTEXT == "patched gevent":
    from gevent import monkey

    monkey.patch_all()

import contextlib
import signal
import time
from functools import partial
from typing import Any

import psycopg2

import greenwait
from tests.lab.bounds import bound
from tests.lab.contexts import CONTEXTS
from tests.lab.libraries import LIBRARIES, Pandas

COUNT = 8
context = CONTEXTS[CONTEXT.removeprefix("patched ")](cancel_grace=20)
library = LIBRARIES[LIBRARY](DSN)
said: set[str] = set()


class Regret(Exception):
    """What a transaction is rolled back by."""


def ask(query):
    with contextlib.closing(psycopg2.connect(DSN)) as conn, conn.cursor() as cur:
        cur.execute(query)
        return cur.fetchall()


def committed():
    return {name for (name,) in ask("select name from names")}


def until(happened):
    """Let others run until it is true."""
    give_up = time.monotonic() + bound(20)
    while not happened():
        assert time.monotonic() < give_up
        ask("select pg_sleep(0.01)")


def reasons(exc):
    """Return the exception, and those that it was raised in the place of."""
    found = []
    while exc is not None:
        found.append(exc)
        exc = exc.__cause__ or exc.__context__
    return found


def assert_nothing_is_left():
    until(lambda: library.lent() == 0)
    at_work = (
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and backend_type = 'client backend' and state <> 'idle' and pid <> pg_backend_pid()"
    )
    until(lambda: ask(at_work) == [(0,)])


# -- As it should be


def they_run_at_once():
    context.run(partial(library.sleep, 0))
    jobs = [partial(library.sleep, 0.5, number) for number in range(COUNT)]
    began = time.monotonic()
    assert context.together(jobs) == list(range(COUNT))
    assert time.monotonic() - began < 0.5 * COUNT / 2
    assert_nothing_is_left()


def transactions_keep_their_own_rows():
    seen: dict[str, set[str]] = {}  # asserted below: records suppresses what is raised in its block

    def roll_back():
        with library.transaction() as block:
            library.add(block, "a")
            said.add("a is there")
            until(lambda: "b is there" in said)
            seen["a"] = library.names(block)
            raise Regret

    def first():
        with contextlib.suppress(Regret):
            roll_back()
        assert committed() == set()
        said.add("a is gone")

    def second():
        until(lambda: "a is there" in said)
        with library.transaction() as block:
            library.add(block, "b")
            said.add("b is there")
            until(lambda: "a is gone" in said)
            seen["b"] = library.names(block)

    context.together([first, second])
    assert seen == {"a": {"a"}, "b": {"b"}}
    assert committed() == {"b"}
    assert_nothing_is_left()


def one_commits_while_another_is_open():
    def first():
        with library.transaction() as block:
            library.add(block, "a")
            said.add("a is there")
            until(lambda: "b is committed" in said)

    def second():
        until(lambda: "a is there" in said)
        with library.transaction() as block:
            library.add(block, "b")
        assert committed() == {"b"}
        said.add("b is committed")

    context.together([first, second])
    assert committed() == {"a", "b"}
    assert_nothing_is_left()


def deadline_ends_one_query():
    def impatient():
        try:
            with greenwait.timeout(0.3):
                library.sleep(600)
        except Exception as exc:
            assert any(isinstance(each, greenwait.QueryTimeout) for each in reasons(exc))
            return "too slow"
        return "?"

    assert context.together([impatient, partial(library.sleep, 0.6, 1)]) == ["too slow", 1]
    assert context.run(partial(library.sleep, 0, 2)) == 2
    assert_nothing_is_left()


def rows_are_copied():
    assert isinstance(library, Pandas)
    pandas = library

    def copy(name):
        with pandas.transaction() as block:
            pandas.add(block, name, method=pandas.copy)

    context.together([partial(copy, name) for name in "abc"])
    assert committed() == {"a", "b", "c"}
    assert_nothing_is_left()


# -- As it is where the page says so


def they_share_a_transaction():
    def first():
        with contextlib.suppress(Regret), library.transaction() as block:
            library.add(block, "a")
            said.add("a is there")
            until(lambda: "a is seen" in said)
            raise Regret

    def second():
        until(lambda: "a is there" in said)
        with library.transaction() as block:
            assert library.names(block) == {"a"}
            said.add("a is seen")

    context.together([first, second])


def one_commits_what_another_rolls_back():
    def first():
        with contextlib.suppress(Regret), library.transaction() as block:
            library.add(block, "a")
            said.add("a is there")
            until(lambda: "b is there" in said)
            raise Regret
        said.add("a should be gone")

    def second():
        until(lambda: "a is there" in said)
        with library.transaction() as block:
            library.add(block, "b")
            said.add("b is there")
            until(lambda: "a should be gone" in said)

    context.together([first, second])
    assert committed() == {"a", "b"}


def exceptions_are_suppressed():
    def impatient():
        with greenwait.timeout(0.2), library.transaction() as block:
            block.query("select pg_sleep(600)")
        return "as if it had committed"

    assert context.run(impatient) == "as if it had committed"


def second_to_connect_stops_the_thread():
    def give_up(*_: Any) -> None:
        raise Regret

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 3)
    try:
        context.together([partial(library.sleep, 0.1)] * 2)
    except Regret:
        return
    raise AssertionError("it does not any more")


CASES = (
    they_run_at_once,
    transactions_keep_their_own_rows,
    one_commits_while_another_is_open,
    deadline_ends_one_query,
    rows_are_copied,
    they_share_a_transaction,
    one_commits_what_another_rolls_back,
    exceptions_are_suppressed,
    second_to_connect_stops_the_thread,
)

if __name__ == "__main__":
    (case,) = [each for each in CASES if each.__name__ == CASE]
    case()
    print("well")
