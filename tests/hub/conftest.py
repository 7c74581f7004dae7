"""Connections for jobs, as many as a test asks for."""

import pytest


@pytest.fixture
def conns(callback, connect):
    """Return a function that returns so many connections."""
    return lambda count, *args, **keywords: [connect(*args, **keywords) for _ in range(count)]
