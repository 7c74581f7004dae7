"""Names are looked up, with import and patching in any order: DSN ORDER CASE.

ORDER is one of those of tests/adapters/test_patching.py, and CASE a function of this module.
"""

import gc
import importlib
import os
import sys
import threading
import time
import warnings
from typing import Any

import psycopg2

from tests.lab.postgres import reserved_port

_, _, order, case = sys.argv
name = order.partition(",")[0]
has_threads = not order.endswith("threads are not patched")
warnings.simplefilter("ignore")
framework: Any = importlib.import_module(name)


def import_ours() -> Any:
    return importlib.import_module(f"greenwait.{name}")


def patch():
    if name == "gevent":
        importlib.import_module("gevent.monkey").patch_all(thread=has_threads)
    elif has_threads:
        framework.monkey_patch()
    else:
        framework.monkey_patch(os=True, select=True, socket=True, time=True)


if "before" in order:
    adapter = import_ours()
    patch()
else:
    patch()
    adapter = import_ours()

import greenwait
from greenwait._connections import lookup as lookups

adapter.patch_psycopg()


# -- A thousand leave no thread, no descriptor and no hub


def threads():
    return len(os.listdir("/proc/self/task"))


def use(first):
    give_up = time.monotonic() + 5
    while threads() > first and time.monotonic() < give_up:
        framework.sleep(0.001)
    gc.collect()
    hubs = sum(type(each).__name__ in ("Hub", "loop") for each in gc.get_objects())
    return threads(), len(os.listdir("/proc/self/fd")), hubs


def connect_in_vain(port, count):
    for _ in range(count):
        try:
            greenwait.connect(f"host=localhost port={port} user=x dbname=x")
        except psycopg2.OperationalError as exc:
            assert "refused" in str(exc), exc
        else:
            raise AssertionError


def thousand():
    with reserved_port() as port:
        first = threads()
        connect_in_vain(port, 10)
        before = use(first)
        connect_in_vain(port, 1000)
        after = use(first)
        print("flat", after == before or (before, after))


# -- Others run meanwhile


def beside_others():
    asked, turns = [], []

    def getaddrinfo(*args, **keywords):
        asked.append(threading.get_native_id())
        while len(turns) < 5:
            pass
        return real(*args, **keywords)

    def count():
        while True:
            turns.append(1)
            framework.sleep(0.001)

    internals: Any = lookups
    real, internals._getaddrinfo = internals._getaddrinfo, getaddrinfo
    framework.spawn(count)
    lookup = lookups.Lookup("localhost")
    greenwait.wait(lookup)
    assert lookup.addresses
    assert asked != [threading.get_native_id()], (asked, lookup.error)
    print("well")


{"thousand": thousand, "beside others": beside_others}[case]()
