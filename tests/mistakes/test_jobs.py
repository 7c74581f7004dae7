"""Mistakes with jobs, hubs and locals; each is told what to do."""

import functools
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest

import greenwait
from greenwait import aio
from tests.lab.mistakes import (
    NOT_NEGATIVE,
    SECONDS,
    SYNCHRONOUS,
    Async,
    Lab,
    Table,
    async_many,
    async_one,
    in_hub,
    one,
    tell,
    uninstalled,
)


def enter_twice(lab: Lab) -> None:
    hub = greenwait.Hub()
    with hub:
        pass
    with hub:
        pass


def spawn_afterwards(lab: Lab) -> None:
    with greenwait.Hub() as hub:
        pass
    hub.spawn(one)


def in_thread(make: Callable[[Any, Any], Any]) -> Callable[[Lab], None]:
    def mistake(lab: Lab) -> None:
        failures: list[BaseException] = []

        def run(hub: Any, job: Any) -> None:
            try:
                make(hub, job)
            except BaseException as exc:
                failures.append(exc)

        with greenwait.Hub() as hub:
            thread = threading.Thread(target=run, args=(hub, hub.spawn(one)))
            thread.start()
            thread.join()
        raise failures[0]

    return mistake


async def async_with_hub(lab: Lab) -> None:
    async with lab.any.Hub():
        pass


MISTAKES: Table = {
    "gather(async)": (TypeError, r"gather\(\) " + SYNCHRONOUS,
        lambda lab: greenwait.gather(async_one)),
    "gather(partial(async))": (TypeError, SYNCHRONOUS,
        lambda lab: greenwait.gather(functools.partial(async_one, 1))),
    "gather(async method)": (TypeError, SYNCHRONOUS,
        lambda lab: greenwait.gather(Async().method)),
    "gather(async callable)": (TypeError, SYNCHRONOUS, lambda lab: greenwait.gather(Async())),
    "gather(async generator)": (TypeError, SYNCHRONOUS, lambda lab: greenwait.gather(async_many)),
    "gather(coroutine)": (TypeError, "not 'coroutine': pass the function that makes it",
        lambda lab: lab.any.gather(async_one())),
    "gather([one, one])": (TypeError, r"not 'list': pass its functions one by one",
        lambda lab: lab.any.gather([one, one])),
    "gather(one())": (TypeError, "takes a function, not 'int'", lambda lab: lab.any.gather(one())),
    "gather(one for ...)": (TypeError, "takes a function, not 'generator'",
        lambda lab: lab.any.gather(one for _ in range(2))),
    "gather(limit=0)": (ValueError, "limit=0: it must be 1 or more",
        lambda lab: greenwait.gather(one, limit=0)),
    "gather(limit='2')": (TypeError, "limit must be a number of calls, not 'str'",
        lambda lab: lab.any.gather(one, limit="2")),
    "gather(limit=1.5)": (TypeError, "limit must be a number of calls, not 'float'",
        lambda lab: lab.any.gather(one, limit=1.5)),
    "gather() uninstalled": (RuntimeError, r"call greenwait.install\(\) first",
        uninstalled(lambda lab: greenwait.gather(one))),
    "gather() below run()": (RuntimeError, r"use asyncio.gather\(\) or a TaskGroup",
        lambda lab: aio.run(greenwait.gather, one)),
    "map(async, items)": (TypeError, r"map\(\) " + SYNCHRONOUS,
        lambda lab: list(greenwait.map(async_one, [1]))),
    "map(items, one)": (TypeError, r"map\(\) takes a function, not 'list'",
        lambda lab: list(lab.any.map([1], one))),
    "map(one, 3)": (TypeError, "not iterable", lambda lab: list(lab.any.map(one, 3))),
    "map(one, async generator)": (TypeError, "'async_generator' object is not iterable",
        lambda lab: list(lab.any.map(one, async_many()))),
    "map(concurrency=0)": (ValueError, "concurrency=0: it must be 1 or more",
        lambda lab: list(lab.any.map(one, [], concurrency=0))),
    "map(concurrency='2')": (TypeError, "concurrency must be a number of calls",
        lambda lab: list(lab.any.map(one, [], concurrency="2"))),
    "Hub(10)": (TypeError, r"Hub\(\) takes no arguments: gather\(\) has a limit",
        lambda lab: lab.any.Hub(10)),
    "Hub(limit=10)": (TypeError, r"Hub\(\) takes no arguments: gather\(\) has a limit",
        lambda lab: lab.any.Hub(limit=10)),
    "async with Hub()": (TypeError, r"write 'with greenwait.Hub\(\) as hub:'", async_with_hub),
    "a Hub twice": (RuntimeError, "for one with block; make another for the next", enter_twice),
    "a Hub within a Hub": (RuntimeError, r"use its spawn\(\), or greenwait.gather\(\)",
        in_hub(lambda hub: greenwait.Hub().__enter__())),
    "Hub uninstalled": (RuntimeError, r"call greenwait.install\(\) first",
        uninstalled(lambda lab: greenwait.Hub().__enter__())),
    "spawn() outside": (RuntimeError, "with block is over, or has not begun",
        lambda lab: greenwait.Hub().spawn(one)),
    "spawn() afterwards": (RuntimeError, "with block is over", spawn_afterwards),
    "spawn() in a thread": (RuntimeError, "a hub belongs to its thread",
        in_thread(lambda hub, job: hub.spawn(one))),
    "result() in a thread": (RuntimeError, "a hub belongs to its thread",
        in_thread(lambda hub, job: job.result())),
    "spawn(async)": (TypeError, r"spawn\(\) " + SYNCHRONOUS,
        in_hub(lambda hub: hub.spawn(async_one))),
    "spawn(one())": (TypeError, "takes a function, not 'int'", in_hub(lambda hub: hub.spawn(1))),
    "spawn(None)": (TypeError, "takes a function, not 'NoneType'",
        in_hub(lambda hub: hub.spawn(None))),
    "hub.submit(one)": (AttributeError, r"it is spawn\(\)", in_hub(lambda hub: hub.submit(one))),
    "hub.sleep('1')": (TypeError, "seconds " + SECONDS, in_hub(lambda hub: hub.sleep("1"))),
    "hub.sleep(-1)": (ValueError, NOT_NEGATIVE, in_hub(lambda hub: hub.sleep(-1))),
    "hub.sleep(nan)": (ValueError, NOT_NEGATIVE, in_hub(lambda hub: hub.sleep(math.nan))),
    "job.result('1')": (TypeError, "timeout " + SECONDS,
        in_hub(lambda hub: hub.spawn(one).result("1"))),
    "job.result(-1)": (ValueError, NOT_NEGATIVE, in_hub(lambda hub: hub.spawn(one).result(-1))),
    "job.get()": (AttributeError, r"it is result\(\)", in_hub(lambda hub: hub.spawn(one).get())),
    "job.join()": (AttributeError, r"it is result\(\), which waits",
        in_hub(lambda hub: hub.spawn(one).join())),
    "Job()": (TypeError, r"made by Hub.spawn\(\)", lambda lab: lab.any.Job()),
    "local(1)": (TypeError, "takes on_end only, by its name", lambda lab: lab.any.local(1)),
    "local(x=1)": (TypeError, "attributes are set afterwards", lambda lab: lab.any.local(x=1)),
    "local(on_end=1)": (TypeError, "on_end must be a function or None",
        lambda lab: lab.any.local(on_end=1)),
    "local(on_end=async)": (TypeError, "on_end " + SYNCHRONOUS,
        lambda lab: lab.any.local(on_end=async_one)),
    "local().x": (AttributeError, "no attribute 'x'", lambda lab: lab.any.local().x),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_mistake(server: Any, mistake: str) -> None:
    tell(server, MISTAKES, mistake)
