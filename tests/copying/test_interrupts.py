"""What stops a COPY costs no connection, and a COPY FROM copies all or nothing."""

import pytest

from greenwait._psycopg.libpq import FAST_PATHS
from tests.lab.marks import needs_tls

pytestmark = pytest.mark.skipif(FAST_PATHS["COPY"] != "on", reason="it takes libpq's functions")
