"""What a trace costs, in the client's instructions for a local ``select 1``."""

import pytest

from benchmarks.callgrind import count, missing
from tests.lab.marks import needs_bare_build

# Of what a query costs without it; the rest is psycopg2's, libpq's and the interpreter's. It is
# 0.028, and the layout of the heap moves it by some tens of instructions: twenty are 0.0015.
MOST = 0.035

PROGRAM = """
import gc, os, sys, psycopg2, greenwait
is_traced, dsn, file = sys.argv[1:]
greenwait.install()
conn = psycopg2.connect(dsn)
conn.autocommit = True
execute = conn.cursor().execute
def query(queries):
    for _ in range(queries):
        execute("select 1")
if is_traced == "yes":
    greenwait.trace(file).__enter__()
gc.collect()
gc.disable()
query(5)
os.getppid()
query(20)
os.getppid()
query(170)
os.getppid()
os._exit(0)
"""


@needs_bare_build
@pytest.mark.timeout(300)
@pytest.mark.skipif(bool(missing()), reason="needs valgrind and libfaketime")
def test_a_traced_query_costs_few_instructions(server, tmp_path):
    costs = {}
    for is_traced in ("no", "yes"):
        arguments = [is_traced, server.dsn("unix"), str(tmp_path / "trace.json")]
        short, long = count(PROGRAM, arguments, 3, slow_clock=False)
        costs[is_traced] = (sum(long.values()) - sum(short.values())) / 150
    assert costs["yes"] - costs["no"] < MOST * costs["no"]
