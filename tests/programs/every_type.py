"""A program: whatever Python code can get hold of, in each compiled type, is used in every way.

``python every_type.py DSN half-made|finished|cleared [TYPE]`` prints what it is about to do, so
that the last line names what has ended the process. ``test_every_type.py`` runs it.
"""

import asyncio
import contextlib
import copy
import ctypes
import faulthandler
import gc
import importlib
import itertools
import pickle
import pkgutil
import signal
import sys
import threading
import time
import warnings
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Any

import gevent
import psycopg2
import trio

import greenwait
import greenwait.aio
import greenwait.gevent
import greenwait.trio

NOT_TOLD = {"__init_subclass__", "__subclasshook__", "__class__", "__dir__"}  # of the type alone
TP_CLEAR = 51  # Include/typeslots.h
PUBLIC = ("greenwait", "greenwait.aio", "greenwait.connection")
event_loop = asyncio.new_event_loop()
SECONDS = 20  # for all that one instance is asked


def say(*words):
    print(*words, flush=True)


def import_all():
    for found in pkgutil.walk_packages(greenwait.__path__, "greenwait.", lambda _: None):
        if found.name != "greenwait.__main__":
            with contextlib.suppress(ImportError):
                importlib.import_module(found.name)


def subclasses(cls):
    for each in type.__subclasses__(cls):
        yield each
        yield from subclasses(each)


def compiled_types():
    """Return the types of greenwait's extension modules, those without a name there too."""
    compiled = {
        name
        for name, module in sys.modules.items()
        if name.startswith("greenwait.")
        and (getattr(module, "__file__", None) or "").endswith(tuple(EXTENSION_SUFFIXES))
    }
    found = {cls for cls in subclasses(object) if cls.__module__ in compiled}
    for name in compiled:  # the public ones say that they are of another module
        found |= {
            each
            for each in vars(sys.modules[name]).values()
            if isinstance(each, type)
            and each.__module__ in PUBLIC
            and not issubclass(each, BaseException)
        }
    return sorted(found, key=lambda cls: (cls.__module__, cls.__qualname__))


def name_of(cls):
    return f"{cls.__module__}.{cls.__qualname__}"


ARGUMENTS = [
    (),
    (None,),
    (0,),
    (lambda *_: None,),
    (None, None),
    (lambda *_: None, (), {}),
    (None, None, None),
    (None, "name", lambda *_: None),
    (ValueError("of a test"),),
]


def quietly(action, *args, **kwargs):
    """Return what it returns; what it raises is all the same."""
    try:
        return action(*args, **kwargs)
    except BaseException:
        return None


def use(instance, cls):
    """Ask it for everything."""
    for name in dir(cls):
        if name in NOT_TOLD:
            continue
        say(name_of(cls), "attribute", name)
        found = quietly(getattr, instance, name)
        if not callable(found):
            quietly(setattr, instance, name, None)
            quietly(delattr, instance, name)
            continue
        for args in (*ARGUMENTS, (instance,)):
            say(name_of(cls), "method", name, *(type(each).__name__ for each in args))
            quietly(close, quietly(found, *args))
        if name == "add_done_callback":
            quietly(found, print, context=None)
    operations: tuple[Any, ...] = (
        repr, str, hash, bool, len, iter, next, list, callable, copy.copy, copy.deepcopy,
        pickle.dumps, gc.get_referents, sys.getsizeof, float, lambda it: it(), lambda it: it[0],
        lambda it: it + it, lambda it: it == it, lambda it: it < it, lambda it: it @ it,
        enter_and_leave, run_as_coroutine, lambda it: pickle.dumps(it, 0),
        lambda it: event_loop.run_until_complete(wait_for(it)),
    )  # fmt: skip
    for number, action in enumerate(operations):
        say(name_of(cls), "operation", number)
        quietly(close, quietly(action, instance))


def close(found):
    """Have a coroutine that is not awaited say nothing."""
    if hasattr(found, "send"):
        found.close()


def enter_and_leave(instance):
    with instance:
        pass
    with instance:
        raise ValueError("of a test")


def run_as_coroutine(instance):
    async def main():
        await instance

    try:
        main().send(None)
    finally:
        with contextlib.suppress(BaseException):
            main().close()


async def wait_for(instance):
    await asyncio.wait_for(instance, 1)


def half_made(cls):
    """Yield instances that nobody has made on purpose."""

    sub: Any = object
    with contextlib.suppress(TypeError):  # it has no subclasses
        sub = type("Sub", (cls,), {})
    makers: list[Any] = [
        cls,
        lambda *args: cls.__new__(cls, *args),
        lambda *args: object.__new__(cls, *args),
        lambda *args: cls.__reduce_ex__(cls(*args), 4),
    ]
    if sub is not object:
        makers += [sub, lambda *args: cls.__new__(sub, *args)]
    makers += [lambda *args, base=base: base.__new__(cls, *args) for base in cls.__mro__[1:]]
    for number, make in enumerate(makers):
        for args in ARGUMENTS:
            say(name_of(cls), "maker", number, *(type(each).__name__ for each in args))
            instance = quietly(make, *args)
            if isinstance(instance, cls):
                yield instance


def live_instances(types):
    return [each for each in gc.get_objects() if type(each) in types]


def some_work(dsn, types):
    """Yield each instance that there was while all contexts were at work, when that is over."""
    kept = {}

    def harvest():
        for each in live_instances(types):
            kept[id(each)] = each

    def query(seconds=0.01):
        conn = greenwait.connect(dsn)
        conn.cursor().execute("select pg_sleep(%s)", (seconds,))
        harvest()
        conn.close()

    pool = greenwait.Pool(dsn, max_size=1)
    harvest()

    def borrow():
        with pool.connection() as conn, greenwait.timeout(20):
            conn.cursor().execute("select pg_sleep(0.01)")
            harvest()

    def fail():
        raise ValueError("of a test")

    with greenwait.Hub() as hub:
        jobs = [hub.spawn(query), hub.spawn(borrow), hub.spawn(borrow), hub.spawn(query, 30)]
        hub.sleep(0.05)
        harvest()
        jobs[-1].cancel()
        failed = hub.spawn(fail)
        quietly(failed.result)
    greenwait.gather(query, borrow)
    rows = greenwait.map(lambda _: query(), range(5), concurrency=2)
    next(rows)
    harvest()
    rows.close()
    # A QueryTimeout; on a busy machine the server may not answer in time either.
    with contextlib.suppress(psycopg2.OperationalError), greenwait.timeout(0.05):
        query(30)
    block = greenwait.timeout(3)
    block.__enter__()  # and is not left

    async def tasks():
        conn = await greenwait.aio.connect(dsn)
        cur = conn.cursor()
        await cur.execute("select 1")
        calls: list[Any] = [conn.commit(), conn.commit(), conn.commit(), conn.commit()]
        calls[0].close()
        await calls[1]
        quietly(calls[2].throw, ValueError)
        waiting: Any = cur.execute("select pg_sleep(0.1)")
        suspension = waiting.send(None)
        harvest()
        suspension.cancel()
        await asyncio.sleep(0.3)
        await asyncio.gather(greenwait.aio.run(borrow), greenwait.aio.run(query))
        task = asyncio.ensure_future(greenwait.aio.run(query, 30))
        await asyncio.sleep(0.1)
        harvest()
        task.cancel()
        await asyncio.wait([task])

        def wait_for_others():
            greenwait.aio.await_(asyncio.sleep(0.01))
            harvest()

        await greenwait.aio.run(wait_for_others)
        harvest()
        abandoned = asyncio.ensure_future(greenwait.aio.run(query, 1))
        await asyncio.sleep(0.05)
        harvest()
        kept[id(abandoned)] = calls

    loop = asyncio.new_event_loop()
    loop.run_until_complete(tasks())
    loop.close()  # with a call under way

    def leave_a_hub():
        hub = greenwait.Hub()
        hub.__enter__()
        job = hub.spawn(query, 30)
        hub.sleep(0.05)
        harvest()
        del job

    def in_gevent():
        greenwait.gevent.patch_psycopg()
        jobs: list[Any] = [gevent.spawn(query), gevent.spawn(borrow), gevent.spawn(borrow)]
        gevent.joinall(jobs)
        harvest()
        gevent.get_hub().destroy()
        greenwait.uninstall()

    for function in (leave_a_hub, in_gevent):
        thread = threading.Thread(target=function)
        thread.start()
        thread.join()
    trio.run(greenwait.trio.run, query)
    pool.close()
    harvest()
    return list(kept.values())


def main(dsn, what, only=""):
    faulthandler.enable()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda _: None
    import_all()
    gc.freeze()  # what the imports have left need not be looked through again and again
    types = [cls for cls in compiled_types() if only in name_of(cls)]
    if what == "types":
        for cls in types:
            say(name_of(cls))
        return
    if what == "half-made":
        for cls in types:
            say(name_of(cls))
            for instance in itertools.islice(half_made(cls), 6):
                faulthandler.dump_traceback_later(SECONDS, exit=True)
                use(instance, cls)
                del instance
            gc.collect()
        return
    greenwait.install()
    instances = some_work(dsn, set(types))
    time.sleep(1.1)  # then a hub and an event loop look through their descriptors
    for kind in types:
        of_kind = [each for each in instances if type(each) is kind]
        say(name_of(kind), "instances:", len(of_kind))
        for instance in of_kind[:2] + of_kind[-2:]:
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            if what == "cleared":
                clear = ctypes.pythonapi.PyType_GetSlot
                clear.restype = ctypes.c_void_p
                clear.argtypes = [ctypes.py_object, ctypes.c_int]
                found = clear(kind, TP_CLEAR)
                if found:
                    say(name_of(kind), "tp_clear")
                    ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object)(found)(instance)
            use(instance, kind)
    del instances, instance
    gc.collect()


if __name__ == "__main__":
    main(*sys.argv[1:])
    say("done")
