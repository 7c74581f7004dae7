"""Connections that are interrupted when the answer is there."""

import pytest

from tests.lab.struck import KINDS


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def struck(request, callback, connect):
    """A connection that can be struck, in no transaction."""
    conn = connect(connection_factory=request.param)
    conn.cursor().execute("select 1")
    conn.rollback()
    return conn
