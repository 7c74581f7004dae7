"""Four libraries that trace psycopg2's queries: what they have seen, in one form."""

import contextlib
import importlib
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

__all__ = ["TRACERS", "Span", "Tracer"]


class Span(NamedTuple):
    """A piece of time that was traced: a query, or one that the program has named."""

    name: str  # that the program has given it, or the query's statement
    parent: str | None  # the name of the span around it
    seconds: float
    has_failed: bool


class Tracer:
    """A library that traces; it is switched on before psycopg2 connects."""

    #: Does a job belong to the span in which it was made, as its context variables tell?
    is_by_context = True
    #: Does it tell that a query has failed?
    tells_failure = True

    def span(self, name: str) -> AbstractContextManager[Any]:
        """Trace a block."""
        raise NotImplementedError

    def bound(self, job: Callable[[], Any]) -> Callable[[], Any]:
        """Return the function, which belongs to the caller's span wherever it is called."""
        return job

    def spans(self) -> list[Span]:
        """Return what was traced."""
        raise NotImplementedError


def _module(name: str) -> Any:
    """Import one that may be missing when the types are checked."""
    return importlib.import_module(name)


class _OpenTelemetry(Tracer):
    def __init__(self) -> None:
        trace = _module("opentelemetry.trace")
        export = _module("opentelemetry.sdk.trace.export")
        in_memory = _module("opentelemetry.sdk.trace.export.in_memory_span_exporter")
        self._exporter = in_memory.InMemorySpanExporter()
        provider = _module("opentelemetry.sdk.trace").TracerProvider()
        provider.add_span_processor(export.SimpleSpanProcessor(self._exporter))
        trace.set_tracer_provider(provider)
        instrumentor = _module("opentelemetry.instrumentation.psycopg2").Psycopg2Instrumentor()
        instrumentor.instrument(skip_dep_check=True)
        self._tracer = trace.get_tracer(__name__)

    def span(self, name: str) -> AbstractContextManager[Any]:
        found: AbstractContextManager[Any] = self._tracer.start_as_current_span(name)
        return found

    def spans(self) -> list[Span]:
        finished: Any = self._exporter.get_finished_spans()
        names = {each.context.span_id: self._name(each) for each in finished}
        return [
            Span(
                self._name(each),
                each.parent and names.get(each.parent.span_id),
                (each.end_time - each.start_time) / 1e9,
                not each.status.is_ok,
            )
            for each in finished
        ]

    @staticmethod
    def _name(span: Any) -> str:
        return str(span.attributes.get("db.statement", span.name))


class _Datadog(Tracer):
    def __init__(self) -> None:
        os.environ["DD_INSTRUMENTATION_TELEMETRY_ENABLED"] = "false"
        os.environ["DD_REMOTE_CONFIGURATION_ENABLED"] = "false"
        trace = _module("ddtrace.trace")
        self._finished: list[Any] = []
        methods = {"process_trace": lambda _, spans: self._finished.extend(spans)}
        self._tracer = trace.tracer
        self._tracer.configure(trace_processors=[type("Keep", (trace.TraceFilter,), methods)()])
        _module("ddtrace").patch(psycopg=True)

    def span(self, name: str) -> AbstractContextManager[Any]:
        found: AbstractContextManager[Any] = self._tracer.trace(name)
        return found

    def spans(self) -> list[Span]:
        self._tracer.flush()
        names = {each.span_id: each.resource for each in self._finished}
        return [
            Span(each.resource, names.get(each.parent_id), each.duration, bool(each.error))
            for each in self._finished
        ]


class _Elastic(Tracer):
    def __init__(self) -> None:
        warnings.simplefilter("ignore")  # eventlet, which it imports, advises against its use
        elasticapm = _module("elasticapm")
        client = elasticapm.Client(
            service_name="greenwait",
            disable_send=True,
            metrics_interval="0s",
            central_config=False,
            cloud_provider="none",
            span_compression_enabled=False,
        )
        self._finished: list[dict[str, Any]] = []
        client.tracer.queue_func = lambda kind, data, **more: self._finished.append(data)
        elasticapm.instrument()
        client.begin_transaction("tests")
        self._capture_span = elasticapm.capture_span

    @contextlib.contextmanager
    def span(self, name: str) -> Iterator[None]:
        with self._capture_span(name):
            yield

    def spans(self) -> list[Span]:
        names = {each["id"]: self._name(each) for each in self._finished}
        return [
            Span(
                self._name(each),
                names.get(each["parent_id"]),
                each["duration"] / 1e3,
                each["outcome"] == "failure",
            )
            for each in self._finished
        ]

    @staticmethod
    def _name(span: dict[str, Any]) -> str:
        return str(span.get("context", {}).get("db", span).get("statement", span["name"]))


class _NewRelic(Tracer):
    """It keeps what it traces by greenlet, asyncio task or thread, and inherits nothing."""

    is_by_context = tells_failure = False

    def __init__(self) -> None:
        os.environ["NEW_RELIC_DEVELOPER_MODE"] = "true"
        os.environ["NEW_RELIC_LICENSE_KEY"] = "0" * 40
        os.environ["NEW_RELIC_TRANSACTION_TRACER_RECORD_SQL"] = "raw"
        self._agent = agent = _module("newrelic.agent")
        agent.initialize()
        self._roots: list[Any] = []
        stats = _module("newrelic.core.stats_engine").StatsEngine
        record = stats.record_transaction

        def keep(engine: Any, data: Any) -> None:
            self._roots.append(data.root)
            record(engine, data)

        stats.record_transaction = keep
        self._transaction = agent.BackgroundTask(agent.register_application(timeout=20), "tests")
        self._transaction.__enter__()

    def span(self, name: str) -> AbstractContextManager[Any]:
        found: AbstractContextManager[Any] = self._agent.FunctionTrace(name, group="own")
        return found

    def bound(self, job: Callable[[], Any]) -> Callable[[], Any]:
        parent = self._agent.current_trace()

        def traced() -> Any:
            with self._agent.FunctionTrace("job", group="own", parent=parent):
                return job()

        return traced

    def spans(self) -> list[Span]:
        self._transaction.__exit__(None, None, None)
        return [span for root in self._roots for span in self._below(root, None)]

    def _below(self, node: Any, parent: str | None) -> Iterator[Span]:
        name = str(getattr(node, "sql", None) or node.name).removeprefix("own/")
        yield Span(name, parent, node.duration, False)
        for child in node.children:
            yield from self._below(child, name)


#: By the names of their packages.
TRACERS: dict[str, type[Tracer]] = {
    "opentelemetry-instrumentation-psycopg2": _OpenTelemetry,
    "ddtrace": _Datadog,
    "elastic-apm": _Elastic,
    "newrelic": _NewRelic,
}
