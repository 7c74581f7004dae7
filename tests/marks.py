"""Marks of tests that make no sense everywhere."""

import pytest

from greenwait._libpq import FAST_PATHS

__all__ = ["needs_refusal"]

#: An interrupt that meets a success is to cost nothing.
needs_refusal = pytest.mark.skipif(
    FAST_PATHS["interrupt"] != "on",
    reason="without libpq's functions an interrupt that meets a success costs the connection",
)
