"""libpq's functions are those of the library that psycopg2 calls, or none."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest
from psycopg2 import _psycopg
from psycopg2.extensions import libpq_version

from greenwait._psycopg.libpq import FAST_PATHS
from tests.lab.bounds import bound
from tests.lab.marks import needs_no_libcrypto
from tests.lab.postgres import find_binaries

LARGE = "select g, repeat('x', 100) from generate_series(1, 50000) g"
QUERY = f"""
import greenwait
greenwait.install()
conn = psycopg2.connect(sys.argv[1])
cur = conn.cursor()
cur.execute("{LARGE}")
assert cur.rowcount == 50000
from greenwait._psycopg.libpq import FAST_PATHS
print(json.dumps([FAST_PATHS, greenwait.stats().results_libpq]))
"""


@pytest.fixture
def query(run_python):
    """Return a function that queries after *preparation*; returns the paths and how many used."""

    def run(preparation=""):
        # Whatever path this run is about.
        script = "import json, os, sys\nos.environ.pop('GREENWAIT_NO_LIBPQ', None)\n"
        script += textwrap.dedent(preparation)
        return json.loads(run_python(script + "\nimport psycopg2\n" + QUERY))

    return run


def _machine(library):
    return library.read_bytes()[18:20]  # elf(5): e_machine


def other_libpq():
    """Return the path of a libpq that is not psycopg2's: the server's."""
    found = sorted((find_binaries().parent / "lib").glob("libpq.so.5"))
    if not found:
        pytest.skip("the server came without a libpq of its own")
    if "musl" in (sysconfig.get_config_var("MULTIARCH") or ""):  # see tools/musl.py
        pytest.skip("the server, and its libpq, are of glibc")
    if _machine(found[0]) != _machine(Path(_psycopg.__file__)):  # see tools/aarch64.py
        pytest.skip("the server, and its libpq, are of another processor")
    return str(found[0])


def test_all_paths_are_on(query):
    paths, used = query()
    assert {paths[name] for name in ("receive", "send", "non-blocking")} == {"on"}
    assert paths["TLS"] == "on" or paths["TLS"].startswith("not needed")
    assert used == 1


@needs_no_libcrypto
@pytest.mark.parametrize(
    "preparation",
    [
        "import ctypes; ctypes.CDLL({!r})",  # as psycopg 3's is there
        "import ctypes, psycopg2; ctypes.CDLL({!r}, ctypes.RTLD_GLOBAL)",  # for all to see
    ],
)
def test_another_libpq_in_the_process_is_left_alone(query, preparation):
    paths, used = query(preparation.format(other_libpq()))
    assert paths["receive"] == "on"
    assert used == 1


@pytest.mark.parametrize("value", ["1", "yes", "true"])
def test_environment_switches_everything_off(query, value):
    paths, used = query(f"os.environ['GREENWAIT_NO_LIBPQ'] = {value!r}")
    assert paths["receive"] == "off: GREENWAIT_NO_LIBPQ is set"
    assert used == 0


@pytest.mark.parametrize("value", ["", "0"])
def test_environment_that_says_no_switches_nothing_off(query, value):
    _, used = query(f"os.environ['GREENWAIT_NO_LIBPQ'] = {value!r}")
    assert used == 1


# The libraries that lack one do not exist any more: their look-up is imitated.
WITHOUT = """
    import ctypes
    from ctypes import CDLL

    class Lacking:
        def __init__(self, *args, **keywords):
            self._library = CDLL(*args, **keywords)
        def __getattr__(self, name):
            if name == {!r}:
                raise AttributeError(name)
            return getattr(self._library, name)

    ctypes.CDLL = Lacking
"""


@pytest.mark.parametrize(
    ("function", "paths_lost", "used"),
    [
        ("PQisBusy", {"receive", "COPY", "replication"}, 0),
        ("PQflush", {"send", "COPY", "replication", "interrupt"}, 1),
        ("PQsendQuery", {"interrupt"}, 1),
        ("PQsetnonblocking", {"non-blocking"}, 1),
        ("SSL_pending", {"TLS"}, 1),
        ("PQputCopyEnd", {"COPY", "replication"}, 1),
        ("PQcancelPoll", {"cancel"}, 1),
    ],
)
def test_missing_function_switches_off_what_needs_it(query, function, paths_lost, used):
    paths, results_libpq = query(WITHOUT.format(function))
    lacking = {
        name for name, state in paths.items() if re.search(rf"there is no\b.*\b{function}\b", state)
    }
    lacking |= {
        name for name, state in paths.items() if state.startswith("not needed")
    } & paths_lost
    assert lacking == paths_lost
    assert results_libpq == used


def test_library_that_can_not_be_opened_switches_everything_off(query):
    paths, used = query("""
        import ctypes

        def fail(*args, **keywords):
            raise OSError("no such library")

        ctypes.CDLL = fail
    """)
    assert paths["receive"].startswith("off: it can't be reached through psycopg2's module")
    assert used == 0


def test_preloaded_libpq_is_not_mistaken_for_the_linked_one(server):
    """psycopg2 then calls the preloaded one; its own dependency is another."""
    script = f"import json, sys, psycopg2\n{QUERY}\nprint(psycopg2.extensions.libpq_version())"
    preloaded = f"{os.environ.get('LD_PRELOAD', '')} {other_libpq()}"
    done = subprocess.run(
        [sys.executable, "-c", script, server.dsn("unix")],
        env=os.environ | {"LD_PRELOAD": preloaded, "GREENWAIT_NO_LIBPQ": ""},
        capture_output=True,
        text=True,
        timeout=bound(50),
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 0, done.stderr
    found, called = done.stdout.splitlines()
    paths, used = json.loads(found)
    if int(called) == libpq_version():
        pytest.skip("the server's libpq is as old as psycopg2's")
    if "psycopg2_binary.libs" in _libraries():
        expected = f"off: psycopg2 calls libpq {called}, and {libpq_version()} was found instead"
    else:
        expected = "on"  # linked by the same name, so that the preloaded one is the linked one
    assert paths["receive"] == expected
    assert used == (expected == "on")


def _libraries():
    """Return the names of the files that this process has mapped."""
    return Path("/proc/self/maps").read_text()


def test_report_lists_every_fast_path():
    done = subprocess.run(
        [sys.executable, "-m", "greenwait"], capture_output=True, text=True, timeout=bound(40)
    )
    facts = dict(line.split(":", 1) for line in done.stdout.splitlines())
    for name, state in FAST_PATHS.items():
        assert facts[name].strip() == state


def test_what_takes_libpq_s_functions_is_refused_before_anything_is_sent(run_program):
    """Large objects go by SQL, and work."""
    assert run_program("without_libpq").strip() == "well"
