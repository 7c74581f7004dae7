"""Forks, threads and the end of the interpreter: DSN POLLER CASE.

CASE is a function of this module, which is the program's main one: what it leaves in it is there
until the interpreter has ended.
"""

import atexit
import builtins
import multiprocessing
import os
import signal
import sys
import threading
import time
from typing import Any

import psycopg2

import greenwait
from tests.lab.queries import one

_, dsn, poller, case = sys.argv
greenwait.install(poller="epoll" if poller == "epoll" else "poll")
kept: Any = None


def connect() -> Any:
    return psycopg2.connect(dsn)


def lateness_of_a_signal(conn):
    """In a long query, of one that does not interrupt the sleep: another thread gets it."""
    sent: list[float] = []
    late: list[float] = []
    signal.signal(signal.SIGUSR1, lambda *_: late.append(time.monotonic() - sent[-1]))

    def send():
        time.sleep(0.2)
        sent.append(time.monotonic())
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    helper = threading.Thread(target=send)
    helper.start()
    one(conn, "select pg_sleep(3)")
    helper.join()
    return late[0] if late else 3


def open_twenty():
    return [os.open(os.devnull, os.O_WRONLY) for _ in range(20)]


def can_be_written(numbers):
    return all(os.write(number, b"x") for number in numbers)


# -- Forks


def forked_child_queries_on_its_own_connection():
    mine = connect()
    one(mine, "select 1")
    for number in range(5):
        pid = os.fork()
        if pid == 0:
            os._exit(one(connect(), f"select {number} from pg_sleep(0.02)"))
        assert one(mine, "select 8 from pg_sleep(0.04)") == 8
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == number
    print("ok")


def child_forked_from_a_thread_serves_signals():
    def fork():
        pid = os.fork()
        if pid == 0:
            os._exit(0 if lateness_of_a_signal(connect()) < 2 else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    thread = threading.Thread(target=fork, daemon=True)
    thread.start()
    thread.join()


def child_inherits_no_descriptor_and_keeps_what_it_opens():
    one(connect(), "select 1")
    pid = os.fork()
    if pid == 0:
        inherited = [os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")]
        assert not [to for to in inherited if "anon_inode" in to], inherited
        os.closerange(3, 256)
        own = open_twenty()
        one(connect(), "select 1")
        os._exit(0 if can_be_written(own) else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def double(number):
    return one(connect(), f"select {number} * 2")


def multiprocessing_workers_query():
    with multiprocessing.get_context("fork").Pool(3) as pool:
        print(pool.map(double, range(6)))


# -- Descriptors


def process_that_closes_all_descriptors_can_go_on():
    def descriptors(kind):
        links = {n: os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")}
        return [int(n) for n, to in links.items() if kind in to]

    def take_until(number):
        while os.open(os.devnull, os.O_WRONLY) < number:
            pass

    def close_all_in_a_thread():
        global kept
        one(connect(), "select 1")
        os.closerange(3, 256)
        kept = open_twenty()
        one(connect(), "select 1")

    print(lateness_of_a_signal(connect()) < 2)
    (timer,) = descriptors("timerfd") or [5]  # only Linux has it
    os.closerange(3, 256)
    take_until(timer - 1)
    conn = connect()
    assert conn.fileno() == timer
    print(lateness_of_a_signal(conn) < 2)
    worker = threading.Thread(target=close_all_in_a_thread)
    worker.start()
    worker.join()
    print(can_be_written(kept))
    print(lateness_of_a_signal(connect()) < 2)


def thread_that_ends_closes_only_its_own_descriptor():
    queried, closed = threading.Event(), threading.Event()

    def work():
        one(connect(), "select 1")
        queried.set()
        closed.wait(20)

    thread = threading.Thread(target=work)
    thread.start()
    queried.wait(20)
    os.closerange(3, 256)
    own = open_twenty()
    closed.set()
    thread.join()
    print(can_be_written(own))


# -- The end of the interpreter


def query_in_atexit():
    conn = connect()
    atexit.register(lambda: print(one(conn, "select 'late' from pg_sleep(0.05)")))


class Late:
    """Its names are gone when it is freed, but for those that it has."""

    def __init__(self):
        self.conn = connect()
        self.cur, self.write = self.conn.cursor(), os.write  # cursor() can't import any more

    def __del__(self):
        self.cur.execute("select '7' from pg_sleep(0.05)")
        self.write(1, self.cur.fetchone()[0].encode())


def query_in_del_while_modules_are_torn_down():
    global kept
    kept = Late()
    kept.self = kept  # a cycle: collected after the module's names are gone


class LateAndGuarded:
    def __init__(self):
        self.conn = psycopg2.connect(dsn, connection_factory=greenwait.Connection)
        one(self.conn, "select 1")
        self.write = os.write

    def __del__(self):
        self.conn.rollback()
        self.write(1, b"rolled back, ")
        self.conn.close()
        self.write(1, b"closed")


def guarded_connection_in_del_while_modules_are_torn_down():
    builtins.__dict__["late"] = LateAndGuarded()


def daemon_threads_in_a_query_do_not_disturb_the_exit():
    def query():
        started.release()
        one(connect(), "select pg_sleep(30)")

    started = threading.Semaphore(0)
    for _ in range(5):
        threading.Thread(target=query, daemon=True).start()
    for _ in range(5):
        started.acquire()
    time.sleep(0.2)
    print("bye")


def sigterm_ends_a_process_that_waits():
    def stop(*_):
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    try:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        one(connect(), "select pg_sleep(30)")
    finally:
        print("left")


# -- Memory


def threads_that_come_and_go_leak_no_memory():
    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    class Stub:
        left = 0

        def poll(self):
            self.left -= 1
            return 2 if self.left > 0 else 0

        def fileno(self):
            return writable

    _, writable = os.pipe()
    callback = psycopg2.extensions.get_wait_callback()
    assert callback

    def work(waits):
        for _ in range(waits):
            stub: Any = Stub()
            stub.left = 3
            callback(stub)

    def play():
        for _ in range(100):
            thread = threading.Thread(target=work, args=(500,), daemon=True)
            thread.start()
            thread.join()
        work(50_000)

    play()
    before = resident()
    play()
    print(resident() - before < 1_000_000)


globals()[case]()
