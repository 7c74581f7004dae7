"""Mistakes with the callback, deadlines and names; each is told what to do."""

import datetime
import math
import subprocess
import sys
from typing import Any

import psycopg2.extensions
import pytest

import greenwait
from tests.lab.mistakes import NOT_NEGATIVE, SECONDS, Lab, Table, closed, one, tell

BY_NAME = r"options by name, as in {}\(poller='epoll'\)"


def register_the_class(lab: Lab) -> None:
    with greenwait.installed():
        before = psycopg2.extensions.get_wait_callback()
        psycopg2.extensions.set_wait_callback(lab.any.WaitCallback)
        try:
            lab.cur.execute("select 1")
        finally:
            psycopg2.extensions.set_wait_callback(before)


def with_install(lab: Lab) -> None:
    try:
        with lab.any.install():
            pass
    finally:
        greenwait.uninstall()


def decorated_generator(lab: Lab) -> None:
    @greenwait.timeout(1)
    def generator() -> Any:
        yield


def installed_generator(lab: Lab) -> None:
    @greenwait.installed()
    def generator() -> Any:
        yield


def decorated_async_generator(lab: Lab) -> None:
    @greenwait.timeout(1)
    async def generator() -> Any:
        yield


def timeout_twice(lab: Lab) -> None:
    block = greenwait.timeout(1)
    with block:
        pass
    with block:
        pass


async def async_with_timeout(lab: Lab) -> None:
    async with lab.any.timeout(1):
        pass


MISTAKES: Table = {
    # Options
    "WaitCallback(seconds=3)": (TypeError, "no option 'seconds'; it accepts: poller, timeout, spin",
        lambda lab: lab.any.WaitCallback(seconds=3)),
    "WaitCallback(pollers=3)": (TypeError, "no option 'pollers'; it accepts: poller, timeout",
        lambda lab: lab.any.WaitCallback(pollers=3)),
    "WaitCallback(conn)": (TypeError, "keyword options only; register an instance",
        lambda lab: lab.any.WaitCallback(lab.conn)),
    "set_wait_callback(WaitCallback)": (TypeError, "keyword options only; register an instance",
        register_the_class),
    "WaitCallback(poller='kqueue')": (ValueError, "not available here; this system has",
        lambda lab: lab.any.WaitCallback(poller="kqueue")),
    "WaitCallback(poller=1)": (TypeError, "poller must be one of",
        lambda lab: lab.any.WaitCallback(poller=1)),
    "WaitCallback(poller=None)": (TypeError, "poller must be one of",
        lambda lab: lab.any.WaitCallback(poller=None)),
    "WaitCallback(timeout='1s')": (TypeError, "timeout " + SECONDS + ", or None, not 'str'",
        lambda lab: lab.any.WaitCallback(timeout="1s")),
    "WaitCallback(timeout=-1)": (ValueError, "timeout=-1: " + NOT_NEGATIVE,
        lambda lab: lab.any.WaitCallback(timeout=-1)),
    "WaitCallback(timeout=nan)": (ValueError, "timeout=nan: " + NOT_NEGATIVE,
        lambda lab: lab.any.WaitCallback(timeout=math.nan)),
    "WaitCallback(timeout=True)": (TypeError, SECONDS,
        lambda lab: lab.any.WaitCallback(timeout=True)),
    "WaitCallback(timeout=10**400)": (ValueError, "timeout is far too large",
        lambda lab: lab.any.WaitCallback(timeout=10**400)),
    "WaitCallback(spin='always')": (TypeError, 'spin .*or "auto"',
        lambda lab: lab.any.WaitCallback(spin="always")),
    "WaitCallback(spin=None)": (TypeError, 'spin .*or "auto"',
        lambda lab: lab.any.WaitCallback(spin=None)),
    "WaitCallback(spin=-1)": (ValueError, 'spin=-1: .*or "auto"',
        lambda lab: lab.any.WaitCallback(spin=-1)),
    "WaitCallback(slow=-0.5)": (ValueError, "slow=-0.5: " + NOT_NEGATIVE,
        lambda lab: lab.any.WaitCallback(slow=-0.5)),
    "WaitCallback(slow='1')": (TypeError, "slow " + SECONDS,
        lambda lab: lab.any.WaitCallback(slow="1")),
    "WaitCallback(cancel_grace=None)": (TypeError, "cancel_grace " + SECONDS,
        lambda lab: lab.any.WaitCallback(cancel_grace=None)),
    "WaitCallback(cancel_grace=inf)": (ValueError, "cancel_grace=inf",
        lambda lab: lab.any.WaitCallback(cancel_grace=math.inf)),
    "WaitCallback(on_event_loop='ignore')": (ValueError, "it is None, 'warn' or 'raise'",
        lambda lab: lab.any.WaitCallback(on_event_loop="ignore")),
    "WaitCallback(on_event_loop=[])": (ValueError, "it is None, 'warn' or 'raise'",
        lambda lab: lab.any.WaitCallback(on_event_loop=[])),
    # Waiting
    "WaitCallback()()": (TypeError, r"one argument, the connection \(0 given\)",
        lambda lab: lab.any.WaitCallback()()),
    "WaitCallback()(conn, 1)": (TypeError, r"one argument, the connection \(2 given\)",
        lambda lab: lab.any.WaitCallback()(lab.conn, 1)),
    "wait()": (TypeError, r"wait\(\) takes exactly one argument", lambda lab: lab.any.wait()),
    "wait(None)": (TypeError, "fileno", lambda lab: lab.any.wait(None)),
    "wait(dsn)": (TypeError, "waits for a psycopg2 connection, .* not 'str'",
        lambda lab: lab.any.wait(lab.dsn)),
    "wait(cursor)": (TypeError, "for a cursor, pass its .connection",
        lambda lab: lab.any.wait(lab.cur)),
    "wait(closed)": (psycopg2.InterfaceError, "connection already closed",
        lambda lab: lab.any.wait(closed(lab))),
    # Registering
    "install('epoll')": (TypeError, BY_NAME.format("install"),
        lambda lab: lab.any.install("epoll")),
    "install(WaitCallback())": (TypeError, r"registered by psycopg2.extensions.set_wait_callback",
        lambda lab: lab.any.install(greenwait.WaitCallback())),
    "@install": (TypeError, r"write @greenwait.installed\(\) to decorate",
        lambda lab: lab.any.install(one)),
    "@installed": (TypeError, r"write @greenwait.installed\(\) to decorate",
        lambda lab: lab.any.installed(one)),
    "with install()": (TypeError, r"write 'with greenwait.installed\(\):'", with_install),
    "installed('epoll')": (TypeError, BY_NAME.format("installed"),
        lambda lab: lab.any.installed("epoll")),
    "installed(timeout='5')": (TypeError, "timeout " + SECONDS,
        lambda lab: lab.any.installed(timeout="5")),
    "installed()(1)": (TypeError, r"installed\(\) decorates functions, not 'int'",
        lambda lab: lab.any.installed()(1)),
    "installed() of a generator": (TypeError, "write a with block there", installed_generator),
    "install(timeouts=1)": (TypeError, "no option 'timeouts'",
        lambda lab: lab.any.install(timeouts=1)),
    "uninstall() of nothing": (RuntimeError, r"greenwait.install\(\) was not called",
        lambda lab: (lab.any.uninstall(), lab.any.uninstall())),
    # Deadlines
    "timeout()": (TypeError, r"takes the seconds.*timeout\(5\)", lambda lab: lab.any.timeout()),
    "timeout(seconds=5)": (TypeError, r"without their name.*timeout\(5\)",
        lambda lab: lab.any.timeout(seconds=5)),
    "timeout(1, 2)": (TypeError, "and nothing else", lambda lab: lab.any.timeout(1, 2)),
    "timeout('5')": (TypeError, "seconds " + SECONDS, lambda lab: lab.any.timeout("5")),
    "timeout(timedelta)": (TypeError, "seconds " + SECONDS + ", or None, not 'timedelta'",
        lambda lab: lab.any.timeout(datetime.timedelta(seconds=1))),
    "timeout(-1)": (ValueError, "seconds=-1: " + NOT_NEGATIVE, lambda lab: greenwait.timeout(-1)),
    "timeout(nan)": (ValueError, NOT_NEGATIVE, lambda lab: greenwait.timeout(math.nan)),
    "timeout(inf)": (ValueError, NOT_NEGATIVE, lambda lab: greenwait.timeout(math.inf)),
    "@timeout": (TypeError, r"write @greenwait.timeout\(5\)", lambda lab: lab.any.timeout(one)),
    "timeout(1)(2)": (TypeError, r"timeout\(\) decorates functions, not 'int'.*write a with block",
        lambda lab: lab.any.timeout(1)(2)),
    "timeout() of a generator": (TypeError, "write a with block there", decorated_generator),
    "timeout() of an async generator": (TypeError, "write a with block there",
        decorated_async_generator),
    "a timeout() block twice": (RuntimeError, "for one with block; make another", timeout_twice),
    "async with timeout(1)": (TypeError, "entered by 'with', in asynchronous code, too",
        async_with_timeout),
    # Names
    "greenwait.gevents": (AttributeError, "no attribute 'gevents'", lambda lab: lab.any.gevents),
    "greenwait.ConnectionPool": (AttributeError, "it is greenwait.Pool",
        lambda lab: lab.any.ConnectionPool),
    "greenwait.AsyncConnection": (AttributeError, "greenwait.aio.AsyncConnection",
        lambda lab: lab.any.AsyncConnection),
    "greenwait.create_pool": (AttributeError, r"greenwait.aio.create_pool\(\) in asyncio",
        lambda lab: lab.any.create_pool),
    "greenwait.patch_psycopg": (AttributeError, "it is in greenwait.gevent",
        lambda lab: lab.any.patch_psycopg),
    "greenwait.sleep": (AttributeError, r"hub.sleep\(1\)", lambda lab: lab.any.sleep),
    "greenwait.spawn": (AttributeError, r"hub.spawn\(function\)", lambda lab: lab.any.spawn),
    "greenwait.run": (AttributeError, r"greenwait.aio.run\(\)", lambda lab: lab.any.run),
    "greenwait.PoolError": (AttributeError, "raises greenwait.PoolTimeout",
        lambda lab: lab.any.PoolError),
    "aio.Pool": (AttributeError, r"it is greenwait.aio.create_pool\(\)", lambda lab: lab.aio.Pool),
    "aio.gather": (AttributeError, r"it is asyncio.gather\(\)", lambda lab: lab.aio.gather),
    "aio.install": (AttributeError, r"it is greenwait.install\(\)", lambda lab: lab.aio.install),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake(server: Any, mistake: str) -> None:
    tell(server, MISTAKES, mistake)


@pytest.mark.parametrize("argument", ["doctor", "--version"])
def test_unknown_argument_of_the_program(argument: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "greenwait", argument], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert f"unrecognized arguments: {argument}" in done.stderr
    assert done.stdout == ""
