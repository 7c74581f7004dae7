"""The file of a trace: valid however the program ends, of one process, of bounded memory."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg2
import psycopg2.extras
import psycopg2.pool
import pytest

import greenwait
from greenwait import _timeline
from tests.lab.bounds import bound
from tests.lab.marks import needs_flat_memory
from tests.lab.programs import run_code

START = """
import sys, os, signal, psycopg2, greenwait
dsn, file = sys.argv[1:]
"""
QUERY = """
conn = psycopg2.connect(dsn)
cur = conn.cursor()
cur.execute("select 1 as mine")
"""


def names(path):
    events = json.loads(path.read_text(encoding="utf-8"))
    return [each["name"] for each in events if each["ph"] != "M"]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "trace.json"


@pytest.fixture
def conn(server, callback):
    connection = psycopg2.connect(server.dsn("unix"))
    yield connection
    connection.close()


ENDS = {
    "block": "with greenwait.installed(), greenwait.trace(file):\n    exec(QUERY)",
    "exception": (
        "try:\n    with greenwait.installed(), greenwait.trace(file):\n        exec(QUERY)\n"
        "        1 / 0\nexcept ZeroDivisionError: pass"
    ),
    "end": "greenwait.install(trace=file)\nexec(QUERY)",
    "sys.exit": "greenwait.install(trace=file)\nexec(QUERY)\nsys.exit()",
    "uninstall": "greenwait.install(trace=file)\nexec(QUERY)\ngreenwait.uninstall()\nos._exit(0)",
    "installed": "with greenwait.installed(trace=file):\n    exec(QUERY)\nos._exit(0)",
    "decorator": (
        "greenwait.install()\n@greenwait.trace(file)\ndef ask():\n    exec(QUERY, globals())\nask()"
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_is_valid_when_the_program_has_ended(server, file, end):
    run_code(f"{START}QUERY = {QUERY!r}\n{ENDS[end]}", server.dsn("unix"), str(file))
    assert names(file) == ["connect", "begin", "select 1 as mine"]


def test_environment_names_the_file(server, file, monkeypatch):
    monkeypatch.setenv("GREENWAIT_TRACE", str(file))
    run_code(f"{START}greenwait.install()\n{QUERY}", server.dsn("unix"), str(file))
    assert names(file) == ["connect", "begin", "select 1 as mine"]


def test_a_second_process_of_the_environment_has_a_file_of_its_own(server, file, monkeypatch):
    monkeypatch.setenv("GREENWAIT_TRACE", str(file))
    code = f"{START}greenwait.install()\n{QUERY}"
    both = f"{code}\nimport subprocess\nsubprocess.run([sys.executable, '-c', {code!r}, dsn, file])"
    run_code(both, server.dsn("unix"), str(file))
    (other,) = (path for path in file.parent.iterdir() if path != file)
    assert names(file) == names(other) == ["connect", "begin", "select 1 as mine"]


def test_a_forked_child_does_not_write_to_it(server, file):
    code = f"""{START}
greenwait.install(trace=file)
{QUERY}
pid = os.fork()
if pid == 0:
    other = psycopg2.connect(dsn)
    other.cursor().execute("select 2 as child")
    os._exit(0)
os.waitpid(pid, 0)
cur.execute("select 3")
"""
    run_code(code, server.dsn("unix"), str(file))
    assert names(file) == ["connect", "begin", "select 1 as mine", "select 3"]


def test_a_killed_program_leaves_what_can_be_read(server, file):
    code = f"""{START}
greenwait.install(trace=file)
{QUERY}
cur.execute("select pg_sleep(1.1)")
cur.execute("select 2")
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, server.dsn("unix"), str(file)], check=False)
    assert done.returncode == -signal.SIGKILL
    timeline = _timeline.load(file)
    assert not timeline.is_complete
    found = [bar.name for row in timeline.rows for bar in row.bars]
    assert "select 1 as mine" in found


@needs_flat_memory
def test_memory_does_not_grow_and_everything_is_in_the_file(server, file):
    """Fifty lines, executed again and again."""
    lines = [f"cur.execute('select {number}')" for number in range(50)]
    code = f"""{START}
import resource
greenwait.install()
{QUERY}
conn.rollback()
conn.autocommit = True
code = compile({chr(10).join(lines)!r}, "lines.py", "exec")
def memory():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()
with greenwait.trace(file):
    for _ in range(20):
        exec(code)
    before = memory()
    for _ in range(300):
        exec(code)
    print(memory() - before)
"""
    grown = int(run_code(code, server.dsn("unix"), str(file), timeout=60))
    assert grown < 1_000_000
    assert len(names(file)) == 320 * 50
    assert file.stat().st_size > 1_500_000


def test_events_are_dropped_and_counted_where_the_disk_does_not_keep_up(server, tmp_path):
    """A pipe that nobody reads: one thread waits to write the first part, the other goes on."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code = f"""{START}
import fcntl, threading, json
greenwait.install()
reading = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
fcntl.fcntl(reading, 1031, 4096)  # F_SETPIPE_SZ
def ask(until):
    conn = psycopg2.connect(dsn)
    conn.autocommit = True
    cur = conn.cursor()
    while not until.is_set():
        cur.execute("select 1")
over = threading.Event()
read = bytearray()
def drain():
    os.set_blocking(reading, True)
    while part := os.read(reading, 65536):
        read.extend(part)
drainer = threading.Thread(target=drain)
with greenwait.trace(file):
    threads = [threading.Thread(target=ask, args=(over,)) for _ in range(2)]
    for thread in threads: thread.start()
    over.wait(1.5)
    over.set()
    drainer.start()
    for thread in threads: thread.join()
drainer.join()
events = json.loads(read)
print(sum(each["ph"] != "M" for each in events), *events[-1]["args"].values())
"""
    found, events, dropped = map(int, run_code(code, server.dsn("unix"), str(pipe)).split())
    assert found == events > 0
    assert dropped > 0


# -- Names of files


@pytest.mark.parametrize("make", [greenwait.trace, lambda name: greenwait.installed(trace=name)])
def test_wrong_names_are_refused_at_once(make, tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder"):
        make(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        make(tmp_path / "not there" / "trace.json")
    with pytest.raises(TypeError, match="named by a str or a path, not 'int'"):
        make(3)
    with pytest.raises(ValueError, match="must not be empty"):
        make("")


def test_install_with_a_wrong_name_registers_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        greenwait.install(trace=tmp_path / "not there" / "trace.json")
    with pytest.raises(RuntimeError, match="nothing to uninstall"):
        greenwait.uninstall()


def test_a_wrong_name_in_the_environment_is_told(monkeypatch, tmp_path):
    env = os.environ | {"GREENWAIT_TRACE": str(tmp_path / "not there" / "trace.json")}
    done = subprocess.run(
        [sys.executable, "-c", "import greenwait"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=bound(30),
    )
    assert "FileNotFoundError: GREENWAIT_TRACE=" in done.stderr


def test_there_is_one_trace_at_a_time(file):
    with greenwait.trace(file):
        with pytest.raises(RuntimeError, match="one at a time"), greenwait.trace(file):
            pass
        with pytest.raises(RuntimeError, match="one at a time"):
            greenwait.install(trace=file)
    with pytest.raises(RuntimeError, match="nothing to uninstall"):
        greenwait.uninstall()


# -- What is in it


def test_a_statement_that_is_not_written_in_the_call_is_known_of_greenwaits_cursors(server, file):
    greenwait.install()
    try:
        with (
            greenwait.trace(file),
            greenwait.connect(server.dsn("unix")) as conn,
            conn.cursor() as cur,
        ):
            statement = "select   %s /* computed */"
            cur.execute(statement, (1,))
    finally:
        greenwait.uninstall()
    assert names(file) == ["connect", "begin", "select 1 /* computed */", "commit"]


def test_of_psycopg2s_own_cursors_it_is_the_method(conn, file):
    with greenwait.trace(file):
        statement = "select 1"
        cur = conn.cursor()
        cur.execute(statement)
        with conn:
            cur.execute("select\n 2")
        conn.commit()
        cur.execute("begin; select '\\\"' || '" + "long " * 30 + "'")
        conn.rollback()
    found = names(file)
    assert found[:4] == ["begin", "execute()", "select 2", "commit"]
    assert found[4] == "begin"
    assert found[-1] == "rollback"


def events_of(path):
    return [each for each in json.loads(path.read_text(encoding="utf-8")) if each["ph"] == "X"]


def test_the_line_is_the_programs_and_not_psycopg2s(server, callback, file):
    with greenwait.trace(file):
        pool = psycopg2.pool.SimpleConnectionPool(1, 1, server.dsn("unix"))
        conn = pool.getconn()
        cur = conn.cursor(cursor_factory=psycopg2.extras.DictCursor)
        cur.execute("select 1 as mine")
        psycopg2.extras.execute_values(cur, "select * from (values %s) v", [(1,)])
        pool.putconn(conn)
        pool.closeall()
    assert names(file) == ["connect", "begin", "select 1 as mine", "execute_values()", "rollback"]
    for each in events_of(file):
        assert each["args"]["line"].startswith(__file__)


def test_line_of_the_program_may_wait_for_more_than_one_thing(conn, file):
    """psycopg2's own code executes a query there, and rolls back."""
    with greenwait.trace(file):
        for _ in range(2):
            psycopg2.extras.HstoreAdapter.get_oids(conn)
    assert names(file) == ["begin", "get_oids()", "rollback"] * 2


def test_times_are_those_of_the_clock(conn, file):
    """Below a millisecond and above a second they are written in other ways."""
    lengths = (0, 0.002, 1.01, 0)
    asked = []
    conn.autocommit = True
    with greenwait.trace(file):
        began = time.monotonic()
        conn.cursor().execute("select 0")
        for seconds in lengths:
            before = time.monotonic()
            conn.cursor().execute(f"select pg_sleep({seconds})")
            asked.append((before - began, time.monotonic() - before))
    first, *found = events_of(file)
    for each, (after, took) in zip(found, asked, strict=True):
        assert each["dur"] / 1e6 <= took < each["dur"] / 1e6 + bound(0.2)
        assert abs((each["ts"] - first["ts"]) / 1e6 - after) < bound(0.2)
    assert found[2]["dur"] > 1_010_000


def test_a_wait_that_stops_an_event_loop_is_marked(server, file):
    code = f"""{START}
import asyncio
async def main():
    conn = psycopg2.connect(dsn)
    conn.cursor().execute("select 1 as mine")
with greenwait.installed(), greenwait.trace(file):
    asyncio.run(main())
"""
    run_code(code, server.dsn("unix"), str(file))
    assert names(file).count("event loop stopped") == 3


def test_each_thread_has_a_row(server, file):
    def ask():
        with greenwait.connect(server.dsn("unix")) as conn:
            conn.cursor().execute("select 1")

    with greenwait.installed(), greenwait.trace(file):
        for number in range(3):
            thread = threading.Thread(target=ask, name=f"asks {number}")
            thread.start()
            thread.join()
        ask()
    timeline = _timeline.load(Path(file))
    assert sorted(row.name for row in timeline.rows) == [
        "MainThread",
        "asks 0",
        "asks 1",
        "asks 2",
    ]


def test_nothing_is_recorded_after_the_end(conn, file):
    with greenwait.trace(file):
        conn.cursor().execute("select 1")
    size = file.stat().st_size
    conn.cursor().execute("select 2")
    assert file.stat().st_size == size


def test_public_cancel_is_recorded(server, file):
    with (
        greenwait.installed(),
        greenwait.trace(file),
        greenwait.connect(server.dsn("unix")) as conn,
    ):
        greenwait.cancel(conn)
    assert names(file) == ["connect", "cancel"]
