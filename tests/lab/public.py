"""The modules of greenwait that programs import."""

#: All but eventlet's: eventlet warns of each fork after its import, and tests fork.
MODULES = (
    "greenwait",
    "greenwait.aio",
    "greenwait.connection",
    "greenwait.django",
    "greenwait.gevent",
    "greenwait.opentelemetry",
    "greenwait.sqlalchemy",
    "greenwait.trio",
)
