"""gevent and eventlet beside native threads, and in children that are forked."""

import gc
import os
import time

import psycopg2

import greenwait
from tests.lab.queries import one
from tests.programs.adapters.framework import (
    DSN,
    NAME,
    Timeout,
    connect,
    descriptors,
    framework,
    join,
    original,
    sleep,
    spawn,
    start_thread,
)


def native_threads_sleep_by_themselves_and_leak_nothing():
    done = []

    def work():
        conn = psycopg2.connect(DSN)
        done.append(one(conn, "select 1"))
        conn.close()

    start_thread(work)
    while len(done) < 1:
        sleep(0.01)
    before = descriptors()
    for number in range(2, 32):
        start_thread(work)
        while len(done) < number:
            sleep(0.005)
    give_up = time.monotonic() + 5
    while descriptors() > before and time.monotonic() < give_up:
        sleep(0.01)
    assert descriptors() <= before, (descriptors(), before)


def threads_with_a_hub_of_their_own_leak_nothing_when_they_destroy_it():
    if NAME != "gevent":
        return
    sleep(0)  # it imports what hubs consist of
    done = []

    def work():
        framework.get_hub()
        job = framework.spawn(one, connect(), "select 1")
        job.get()
        framework.get_hub().destroy()
        done.append(1)

    for number in range(20):
        start_thread(work)
        while len(done) <= number:
            sleep(0.01)
        if number == 4:
            before = descriptors()
    gc.collect()
    give_up = time.monotonic() + 5
    while descriptors() > before and time.monotonic() < give_up:
        sleep(0.01)
    assert descriptors() <= before, (descriptors(), before)


def forked_child_does_not_share_what_its_parent_waits_with():
    if NAME != "gevent":
        return
    assert one(connect(), "select 1") == 1
    jobs = [spawn(one, connect(), "select %s from pg_sleep(0.5)", n) for n in range(3)]
    sleep(0.1)
    over = [job.dead for job in jobs]
    child = framework.os.fork()
    if child == 0:

        def work(number):
            return one(connect(), "select %s from pg_sleep(0.1)", number)

        for _ in range(10):
            own = [spawn(work, number) for number in range(5)]
            if join(own) != list(range(5)):
                os._exit(1)
        os._exit(2 if [job.dead for job in jobs] != over else 0)
    assert join(jobs) == [0, 1, 2]
    for _ in range(3):
        assert join([spawn(one, connect(), "select 7")]) == [7]
    with Timeout(10):
        assert framework.os.waitpid(child, 0) == (child, 0)


def child_of_a_plain_fork_and_its_parent_wait_on():
    def work():
        conn = connect()
        return [one(conn, "select %s from pg_sleep(0.02)", number) for number in range(15)]

    jobs = [spawn(work) for _ in range(3)]
    children = []
    for _ in range(3):
        sleep(0.1)
        child = os.fork()
        if child == 0:
            own = [spawn(work) for _ in range(3)]
            os._exit(0 if join(own) == [list(range(15))] * 3 else 1)
        children.append(child)
    assert join(jobs) == [list(range(15))] * 3
    for child in children:
        assert os.waitpid(child, 0) == (child, 0)


def forked_child_that_waits_for_nothing_leaves_its_parents_waits_alone():
    if NAME != "gevent":
        return
    jobs = [spawn(one, connect(), "select %s from pg_sleep(0.3)", n) for n in range(3)]
    sleep(0.1)
    over = [job.dead for job in jobs]
    child = framework.os.fork()
    if child == 0:
        cpu = time.process_time()
        sleep(0.6)  # the answers come, and the parent lets them lie
        spins = time.process_time() - cpu > 0.3
        os._exit(1 if spins else 2 if [job.dead for job in jobs] != over else 0)
    original("time", "sleep")(0.9)
    assert join(jobs) == [0, 1, 2]
    with Timeout(10):
        assert framework.os.waitpid(child, 0) == (child, 0)


def forked_child_leaves_its_parents_deadlines_alone():
    if NAME != "gevent":
        return

    def work(conn):
        try:
            with greenwait.timeout(0.4):
                one(conn, "select pg_sleep(30)")
        except greenwait.QueryTimeout:
            return "over"

    job = spawn(work, connect())
    sleep(0.1)
    child = framework.os.fork()
    if child == 0:
        before = greenwait.stats().cancels
        sleep(1)
        os._exit(greenwait.stats().cancels - before)
    assert join([job]) == ["over"]
    with Timeout(10):
        assert framework.os.waitpid(child, 0) == (child, 0)
