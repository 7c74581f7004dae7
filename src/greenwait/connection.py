"""Connections that greenlets and threads can share, and that know when they commit."""

from greenwait._connections.connection import Connection, Cursor, guarded
from greenwait._system.identity import publish

__all__ = ["Connection", "Cursor", "guarded"]

publish(__name__, [guarded])  # the others are greenwait's
