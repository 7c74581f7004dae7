"""A child that is forked makes its own epoll set."""

import os
import sys

import psycopg2
from psycopg2.extensions import set_wait_callback

import greenwait
from tests.lab.queries import one

set_wait_callback(greenwait.EpollWaitCallback)


def epolls():
    links = (
        (n, os.readlink(f"/proc/self/fd/{n}"))
        for n in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{n}")
    )
    return [n for n, to in links if "eventpoll" in to]


parent = psycopg2.connect(sys.argv[1])
one(parent, "select 1")
mine = epolls()[0]


def registrations():
    with open(f"/proc/self/fdinfo/{mine}") as info:
        return sorted(line.split()[1] for line in info if line.startswith("tfd:"))


before = registrations()
for _ in range(3):
    child_ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        child = psycopg2.connect(sys.argv[1])
        assert one(child, "select 2 from pg_sleep(0.05)") == 2
        assert len(epolls()) == 1, epolls()
        os.write(child_ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    os.read(child_ready[0], 1)
    assert registrations() == before, "the child's are in the parent's set"
    assert one(parent, "select 1 from pg_sleep(0.1)") == 1
    os.write(done[1], b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    for end in child_ready + done:
        os.close(end)
print("ok")
