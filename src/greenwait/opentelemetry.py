"""greenwait's figures as metrics of OpenTelemetry, by its semantic conventions for databases.

pool = greenwait.Pool("dbname=postgres")
greenwait.opentelemetry.instrument(pool)
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from threading import Lock
from types import TracebackType
from typing import Any, Protocol
from weakref import WeakKeyDictionary, ref

try:
    from opentelemetry.metrics import (
        CallbackOptions,
        Histogram,
        Meter,
        MeterProvider,
        Observation,
        get_meter_provider,
    )
except ImportError as _missing:
    if (_missing.name or "").partition(".")[0] != "opentelemetry":
        raise
    raise ImportError(
        "greenwait.opentelemetry needs opentelemetry-api: pip install 'greenwait[opentelemetry]'",
        name=_missing.name,
    ) from _missing

from psycopg2 import ProgrammingError
from psycopg2.extensions import make_dsn

from greenwait._connections.pool import Pool
from greenwait._connections.pool_stats import PoolStats
from greenwait._connections.pool_times import PoolTimes
from greenwait._connections.pool_watch import has_ended, settings, unwatch, watch
from greenwait._connections.threaded_pool import ThreadedConnectionPool
from greenwait._counts import Stats
from greenwait._elsewhere import missing_name
from greenwait._psycopg.conninfo import connection_options
from greenwait._stats import stats
from greenwait._system.identity import publish
from greenwait._types import Self
from greenwait._version import __version__

__all__ = ["Instrumentation", "instrument"]

_POOL_NAME = "db.client.connection.pool.name"
_STATE = "db.client.connection.state"
# In seconds, as the conventions recommend for the duration of an operation; for pools, nothing.
_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)


class _WatchedPool:
    """A pool that is instrumented, as long as something else refers to it."""

    def __init__(self, pool: "Pool[Any]", name: str) -> None:
        self.name = name
        self.attributes = {_POOL_NAME: name}
        self.times: PoolTimes = watch(pool)
        self.min_size = settings(pool)[2]
        self._pool = ref(pool)
        self._before: PoolStats = pool.stats()._replace(timeouts=0, failures=0, discarded=0)

    def stats(self) -> PoolStats | None:
        """Return the pool's counts; None: it is gone, or closed and not in use."""
        pool = self._pool()
        if pool is None or has_ended(pool):
            return None
        found, before = pool.stats(), self._before
        return found._replace(
            timeouts=found.timeouts - before.timeouts,
            failures=found.failures - before.failures,
            discarded=found.discarded - before.discarded,
        )

    def begin_in_child(self) -> None:
        """Leave to the parent process what was counted before the fork."""
        pool = self._pool()
        if pool is not None:
            self._before = pool.stats()

    def end(self) -> None:
        pool = self._pool()
        if pool is not None:
            unwatch(pool)


class _Process:
    """The counts of ``stats()``, which never fall: a reset is no matter for those that look on."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self._lock = Lock()
        self._last = self._sum = Stats(*[0] * len(Stats._fields))

    def stats(self) -> Stats:
        with self._lock:
            now = stats()
            pairs = zip(now, self._last, strict=True)
            more = [new - old if new >= old else new for new, old in pairs]
            self._last = now
            self._sum = Stats._make(old + each for old, each in zip(self._sum, more, strict=True))
            return self._sum


_Callback = Callable[[CallbackOptions], Iterable[Observation]]


class _Exporter:
    """The instruments of one meter provider. It has no means to remove one: they fall silent."""

    def __init__(self, provider: MeterProvider) -> None:
        self._pools: list[_WatchedPool] = []
        self._open = 0  # instrumentations that are not closed
        self._process = _Process()
        meter = provider.get_meter("greenwait", __version__)
        self._wait_time = _histogram(meter, "wait", "The time to get a connection of the pool.")
        self._use_time = _histogram(meter, "use", "The time between taking one and its return.")
        self._create_time = _histogram(meter, "create", "The time to make a connection.")
        self._make_gauges(meter)
        self._make_counters(meter)

    def _make_gauges(self, meter: Meter) -> None:
        rows: tuple[tuple[str, str, str, Callable[[_WatchedPool, PoolStats], int]], ...] = (
            ("idle.max", "{connection}", "How many may be idle.", lambda _, now: now.max_size),
            ("idle.min", "{connection}", "How many are kept.", lambda pool, _: pool.min_size),
            ("max", "{connection}", "How many there may be.", lambda _, now: now.max_size),
            ("pending_requests", "{request}", "Who waits for one.", lambda _, now: now.waiting),
        )
        meter.create_observable_up_down_counter(
            "db.client.connection.count",
            [self._observe_count],
            "{connection}",
            "The connections in use, and the idle ones.",
        )
        for name, unit, description, value in rows:
            meter.create_observable_up_down_counter(
                f"db.client.connection.{name}", [self._of_pools(value)], unit, description
            )

    def _make_counters(self, meter: Meter) -> None:
        of_pools: tuple[tuple[str, str, str, Callable[[_WatchedPool, PoolStats], int]], ...] = (
            (
                "db.client.connection.timeouts",
                "{timeout}",
                "How often there was none in time.",
                lambda _, now: now.timeouts,
            ),
            (
                "greenwait.pool.failures",
                "{attempt}",
                "Failed attempts to make a connection.",
                lambda _, now: now.failures,
            ),
            (
                "greenwait.pool.discarded",
                "{connection}",
                "Connections that the pool has closed.",
                lambda _, now: now.discarded,
            ),
        )
        for name, unit, description, of_pool in of_pools:
            meter.create_observable_counter(name, [self._of_pools(of_pool)], unit, description)
        of_process: tuple[tuple[str, str, str, Callable[[Stats], float]], ...] = (
            ("waits", "{wait}", "Calls of the wait callback.", lambda now: now.waits),
            ("sleeps", "{sleep}", "Times a thread slept.", lambda now: now.sleeps),
            ("sleep_time", "s", "The time they took.", lambda now: now.seconds_asleep),
            ("cancels", "{request}", "Cancel requests sent.", lambda now: now.cancels),
            ("deadlines", "{deadline}", "Waits that a deadline ended.", lambda now: now.timeouts),
        )
        for name, unit, description, of_stats in of_process:
            meter.create_observable_counter(
                f"greenwait.{name}", [self._of_process(of_stats)], unit, description
            )

    # -- What a reader calls

    def _observe_count(self, options: CallbackOptions) -> Iterator[Observation]:
        self._record_times()
        for pool, now in self._living():
            yield Observation(now.in_use, {**pool.attributes, _STATE: "used"})
            yield Observation(now.idle, {**pool.attributes, _STATE: "idle"})

    def _of_pools(self, value: Callable[[_WatchedPool, PoolStats], int]) -> _Callback:
        def observe(options: CallbackOptions) -> list[Observation]:
            return [Observation(value(pool, now), pool.attributes) for pool, now in self._living()]

        return observe

    def _of_process(self, value: Callable[[Stats], float]) -> _Callback:
        def observe(options: CallbackOptions) -> list[Observation]:
            return [Observation(value(self._process.stats()))] if self._open else []

        return observe

    def _living(self) -> Iterator[tuple[_WatchedPool, PoolStats]]:
        for pool in list(self._pools):
            now = pool.stats()
            if now is not None:
                yield pool, now

    def _record_times(self) -> None:
        """Hand on what the pools have counted since; forget those that are gone."""
        for pool in list(self._pools):
            is_over = pool.stats() is None
            self._record_times_of(pool)
            if is_over:
                self._forget(pool)

    def _record_times_of(self, pool: _WatchedPool) -> None:
        histograms = (self._wait_time, self._use_time, self._create_time)
        for histogram, times in zip(histograms, pool.times.take(), strict=True):
            for seconds, count in times:
                for _ in range(count):
                    histogram.record(seconds, pool.attributes)

    # -- Pools come and go

    def add(self, pool: _WatchedPool | None) -> None:
        self._open += 1
        for other in list(self._pools):  # it may be that nobody reads
            if other.stats() is None:
                self._record_times_of(other)
                self._forget(other)
        if pool is not None:
            self._pools.append(pool)

    def remove(self, pool: _WatchedPool | None) -> None:
        self._open -= 1
        if pool is not None:
            pool.end()
            self._record_times_of(pool)
            self._forget(pool)

    def _forget(self, pool: _WatchedPool) -> None:
        with suppress(ValueError):  # it was forgotten when it was closed
            self._pools.remove(pool)

    def names(self) -> set[str]:
        return {each.name for each in list(self._pools)}

    def begin_in_child(self) -> None:
        self._process.begin()
        for pool in self._pools:
            pool.begin_in_child()


def _histogram(meter: Meter, name: str, description: str) -> Histogram:
    return meter.create_histogram(
        f"db.client.connection.{name}_time",
        "s",
        description,
        explicit_bucket_boundaries_advisory=_BUCKETS,
    )


# Of the meter provider that is everybody's, or was not set yet; and of others.
_global: list[_Exporter] = []
_exporters: "WeakKeyDictionary[MeterProvider, _Exporter]" = WeakKeyDictionary()


def _exporter_of(provider: MeterProvider | None) -> _Exporter:
    """Return the exporter, made once: a meter takes the callbacks of a name only once."""
    current = get_meter_provider()
    if provider is None:
        provider = current
    found = _exporters.get(provider)
    if found is None and provider is current and _global:
        found = _global[0]  # made while there was none: what was made then is the current one's
    if found is None:
        found = _exporters[provider] = _Exporter(provider)
    if provider is current and not _global:
        _global.append(found)
    return found


def _begin_in_child() -> None:
    for exporter in {*_global, *_exporters.values()}:
        exporter.begin_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)


def _free_name(pool: "Pool[Any]") -> str:
    """Return a name as the conventions propose it, which no other pool has."""
    name = _name_of(*settings(pool)[:2])
    taken = {name for each in {*_global, *_exporters.values()} for name in each.names()}
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}#{number}"
    return free


def _name_of(dsn: str | None, options: dict[str, Any]) -> str:
    factories = ("connection_factory", "cursor_factory", "async", "async_")
    own = {key: value for key, value in options.items() if key not in factories}
    try:
        found = connection_options(make_dsn(dsn, **own))
    except (ProgrammingError, ValueError):
        found = {}
    host = found.get("host") or found.get("hostaddr") or "localhost"
    return f"{host}:{found.get('port', '5432')}/{found.get('dbname', found.get('user', ''))}"


class _HasStats(Protocol):
    """A ``Pool``, or an ``AsyncPool``, whose module is not imported for this one."""

    def stats(self) -> PoolStats: ...


class Instrumentation:
    """What ``instrument()`` has begun, until ``close()``, or the end of its ``with`` block."""

    def __init__(self, exporter: _Exporter, pool: _WatchedPool | None) -> None:
        self._exporter: _Exporter | None = exporter
        self._pool = pool
        exporter.add(pool)

    @property
    def name(self) -> str | None:
        """The pool's name in the metrics; None: there is no pool."""
        return None if self._pool is None else self._pool.name

    def close(self) -> None:
        """Report no more: of the pool, nor, when all are closed, of the process.

        What was counted since the last export is handed on. It may be called again.
        """
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            exporter.remove(self._pool)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def instrument(
    pool: "_HasStats | ThreadedConnectionPool[Any] | None" = None,
    /,
    *,
    name: str | None = None,
    meter_provider: MeterProvider | None = None,
) -> Instrumentation:
    """Report a pool's figures, and those of the process, as metrics of OpenTelemetry.

    :param pool: a ``greenwait.Pool``, ``greenwait.aio.AsyncPool`` or
        ``greenwait.ThreadedConnectionPool``; None: the figures of the process alone.
    :param name: the pool's name in the metrics; by default it is made of host, port and
        database, and of a number if another pool has that already.
    :param meter_provider: to whom it is reported; by default to the global one, which may be
        set later.
    :returns: an ``Instrumentation``, whose ``close()`` ends that. It need not be kept.
    :raises TypeError: *pool* is not such a pool.
    :raises ValueError: the pool is instrumented already.

    The pool may be collected, and is not reported then; nor is one that is closed. It counts
    times in C, and no code of OpenTelemetry runs in it: what it has counted is handed on when the
    metrics are read, in the thread that reads them. A forked child begins at zero.
    """
    given: Any = pool
    inner: Any = getattr(given, "_pool", given)  # the other two are made of a Pool
    if inner is not None and type(inner) is not Pool:
        raise TypeError(
            "instrument() takes a greenwait.Pool, AsyncPool or ThreadedConnectionPool, "
            f"not {type(given).__name__!r}"
        )
    exporter = _exporter_of(meter_provider)
    watched = None if inner is None else _WatchedPool(inner, name or _free_name(inner))
    return Instrumentation(exporter, watched)


def __getattr__(name: str) -> Any:
    raise missing_name(__name__, name)


publish(__name__, [globals()[name] for name in __all__])
