"""What Django's backend can do besides, on both: what one shows, the other does."""

import contextlib

import psycopg2
import pytest

from tests.lab.marks import needs_copy

STOCK = "django.db.backends.postgresql"
OURS = "greenwait.django"
POOL = {"OPTIONS": {"pool": {"max_size": 4}}}


@pytest.fixture(params=[STOCK, OURS], ids=["Django's", "greenwait's"])
def run_on(request, run_django, monkeypatch):
    """Run on either backend; the program finds out which one it is by ``is_ours``."""
    monkeypatch.setenv("GREENWAIT_TEST_ENGINE", request.param)

    def run(code, database_settings=None, **settings):
        code = f"is_ours = {request.param == OURS}\n{code}\nprint('well')"
        assert run_django(code, database_settings, **settings).strip() == "well"

    return run


REQUESTS = """
import psycopg2
from django.core.signals import request_finished, request_started

def request():
    \"\"\"Return the PID of the session in which a request's query ran.\"\"\"
    request_started.send(None)
    with connection.cursor() as cur:
        cur.execute("select pg_backend_pid()")
        pid = cur.fetchone()[0]
    request_finished.send(None)
    return pid

def kill(pid):
    other = psycopg2.connect(sys.argv[1])
    other.cursor().execute("select pg_terminate_backend(%s, 5000)", [pid])
    other.close()
"""


@pytest.mark.parametrize(("age", "expected"), [(0, 3), (None, 1), (600, 1)])
def test_conn_max_age(run_on, age, expected):
    code = f"assert len({{request(), request(), request()}}) == {expected}"
    run_on(REQUESTS + code, {"CONN_MAX_AGE": age})


def test_health_checks(run_on):
    code = """
killed = request()
kill(killed)
assert request() != killed
"""
    run_on(REQUESTS + code, {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True})


def test_without_health_checks_the_loss_is_seen_once(run_on):
    code = """
import django.db
killed = request()
kill(killed)
try:
    request()
except django.db.OperationalError:
    request_finished.send(None)
else:
    raise AssertionError
assert request() != killed
"""
    run_on(REQUESTS + code, {"CONN_MAX_AGE": None})


def test_server_side_cursor(run_on):
    code = """
Thing.objects.bulk_create([Thing(name=str(n), number=n) for n in range(50)])
def cursors():
    with connection.cursor() as cur:
        cur.execute("select count(*) from pg_cursors where name like '%django_curs%'")
        return cur.fetchone()[0]
def work():
    assert cursors() == 0
    for is_atomic in (True, False):  # WITH HOLD where it is not
        with transaction.atomic() if is_atomic else contextlib.nullcontext():
            things = Thing.objects.order_by("number").iterator(chunk_size=7)
            assert next(things).number == 0
            assert cursors() == 1
            assert [thing.number for thing in things] == list(range(1, 50))
    del things
    return 1
import contextlib
assert work()
if is_ours:
    assert greenwait.gather(work, work) == [1, 1]
"""
    run_on(code)


def test_disable_server_side_cursors(run_on):
    code = """
Thing.objects.create(name="a")
things = Thing.objects.iterator(chunk_size=1)
next(things)
with connection.cursor() as cur:
    cur.execute("select count(*) from pg_cursors")
    assert cur.fetchone() == (0,)
"""
    run_on(code, {"DISABLE_SERVER_SIDE_CURSORS": True})


def test_isolation_level(run_on):
    code = """
def level():
    with transaction.atomic(), connection.cursor() as cur:
        cur.execute("show transaction_isolation")
        return cur.fetchone()[0]
assert level() == "serializable"
if is_ours:
    assert greenwait.gather(level, level) == ["serializable"] * 2
"""
    options = {"isolation_level": psycopg2.extensions.ISOLATION_LEVEL_SERIALIZABLE}
    run_on(code, {"OPTIONS": options})


@pytest.fixture
def role(server):
    with contextlib.closing(psycopg2.connect(server.dsn(server.transports[0]))) as conn:
        conn.autocommit = True
        conn.cursor().execute("create role django_role superuser")
        yield "django_role"
        conn.cursor().execute("drop role django_role")


def test_assume_role_and_time_zone(run_on, role):
    code = """
def shown():
    with connection.cursor() as cur:
        cur.execute("select current_user, current_setting('timezone')")
        return cur.fetchone()
expected = ("django_role", "Asia/Tokyo")
assert shown() == expected, shown()
connection.close()
assert shown() == expected
if is_ours:
    assert greenwait.gather(shown, shown) == [expected] * 2
"""
    settings = {"TIME_ZONE": "Asia/Tokyo"}
    run_on(code, settings | {"OPTIONS": {"assume_role": role}})


class _Named:
    """A class that is written as its name into the program's settings."""

    def __repr__(self):
        return "__import__('psycopg2.extras').extras.DictCursor"


DICT_CURSOR = _Named()


def test_classes_in_the_options(run_on):
    code = """
with connection.cursor() as cur:
    cur.execute("select 1 as one")
    assert cur.fetchone()["one"] == 1
assert isinstance(cur.cursor, psycopg2.extras.DictCursor)
"""
    run_on("import psycopg2.extras\n" + code, {"OPTIONS": {"cursor_factory": DICT_CURSOR}})


def test_two_databases(run_on, server, database):
    """A transaction in each of them, at once, in jobs too."""
    name = "django_second"
    code = f"""
connections.databases["second"] = {{**connections.databases["default"], "NAME": {name!r}}}
connections["second"]
from django.core.management import call_command
call_command("migrate", database="second", verbosity=0)

def work(number):
    with transaction.atomic(), transaction.atomic(using="second"):
        Thing.objects.create(name=f"first {{number}}")
        Thing.objects.using("second").create(name=f"second {{number}}")
        if number == 2:
            transaction.set_rollback(True, using="second")

if is_ours:
    greenwait.gather(*[lambda n=n: work(n) for n in range(4)])
else:
    for number in range(4):
        work(number)
assert Thing.objects.count() == 4
assert sorted(Thing.objects.using("second").values_list("name", flat=True)) == [
    "second 0", "second 1", "second 3"]
"""
    with contextlib.closing(psycopg2.connect(server.dsn(server.transports[0]))) as conn:
        conn.autocommit = True
        conn.cursor().execute(f"create database {name}")
        try:
            run_on(code)
        finally:
            conn.cursor().execute(f"drop database {name} with (force)")


@needs_copy
def test_copy(run_django):
    code = """
import io
def work(number):
    with transaction.atomic(), connection.cursor() as cur:
        rows = io.StringIO(f"{number}\\t{number}\\n")
        cur.copy_expert("copy django_site_thing (name, number) from stdin", rows)
        found = io.StringIO()
        cur.copy_expert("copy (select name from django_site_thing) to stdout", found)
        return found.getvalue()
assert greenwait.gather(lambda: work(1)) == ["1\\n"]
greenwait.gather(*[lambda n=n: work(n) for n in range(2, 5)])
assert Thing.objects.count() == 4
print("well")
"""
    assert run_django(code).strip() == "well"


def test_deadline_is_the_cause_of_djangos_error(run_django):
    code = """
import django.db
def work():
    with greenwait.timeout(0.1), connection.cursor() as cur:
        cur.execute("select pg_sleep(60)")
try:
    greenwait.gather(work)
except django.db.OperationalError as exc:
    assert isinstance(exc.__cause__, greenwait.QueryTimeout)
    print("well")
"""
    assert run_django(code).strip() == "well"


# -- The pool


def test_pool_opens_its_min_size_once(run_django):
    code = """
from greenwait.django import _pools
pools = []
new_pool = _pools._new_pool
def counted(*args):
    pools.append(new_pool(*args))
    return pools[-1]
_pools._new_pool = counted
stats = connection.pool_stats()
assert stats.size == 3, stats
greenwait.gather(*[Thing.objects.count] * 30)
connection.close()
stats = connection.pool_stats()
assert stats.size <= 5 and stats.made <= 5 and stats.in_use == 0, stats
connection.close_pool()
assert connection.pool_stats() is None
assert greenwait.gather(*[Thing.objects.count] * 30) == [0] * 30
stats = connection.pool_stats()
assert 3 <= stats.made <= 5, stats
assert len(pools) == 1, pools
print("well")
"""
    settings = {"OPTIONS": {"pool": {"min_size": 3, "max_size": 5}}}
    assert run_django(code, settings).strip() == "well"


def test_pool_that_is_exhausted_raises_djangos_error(run_django):
    code = """
import django.db
Thing.objects.count()  # this thread's is in use
try:
    greenwait.gather(Thing.objects.count)
except django.db.OperationalError as exc:
    assert isinstance(exc.__cause__, greenwait.PoolTimeout)
connection.close()
assert greenwait.gather(Thing.objects.count) == [0]
print("well")
"""
    settings = {"OPTIONS": {"pool": {"max_size": 1, "timeout": 0.2}}}
    assert run_django(code, settings).strip() == "well"


def test_pool_replaces_connections_that_the_server_has_closed(run_django):
    code = """
pids = {request(), request()}
assert len(pids) == 1
kill(pids.pop())
assert request()
assert connection.pool_stats().discarded == 1
print("well")
"""
    assert run_django(REQUESTS + code, POOL).strip() == "well"


def test_pooled_connection_comes_back_without_its_transaction(run_django):
    code = """
import psycopg2.extensions as e
transaction.set_autocommit(False)
Thing.objects.create(name="a")
connection.close()
assert Thing.objects.count() == 0
assert connection.connection.info.transaction_status == e.TRANSACTION_STATUS_IDLE
connection.close()
assert connection.pool_stats().made == 1
print("well")
"""
    assert run_django(code, POOL).strip() == "well"


GREENLETS = """
import time
import gevent, greenwait.gevent
greenwait.gevent.patch_psycopg()

def with_reset(reset):
    \"\"\"Have six greenlets query, and each connection reset; return the pool's counts then.\"\"\"
    connection.close_pool()
    connection.settings_dict["OPTIONS"]["pool"]["reset"] = reset
    greenlets = [gevent.spawn(Thing.objects.count) for _ in range(6)]
    assert [greenlet.get() for greenlet in greenlets] == [0] * 6
    until = time.monotonic() + 20
    while connection.pool_stats().in_use:
        assert time.monotonic() < until, connection.pool_stats()
        gevent.sleep(0.01)
    return connection.pool_stats()
"""


def test_reset_after_a_greenlet_does_not_stop_gevents_hub(run_django):
    code = """
def reset(conn):
    conn.cursor().execute("select pg_sleep(0.5)")

def watch():
    while True:
        began = time.monotonic()
        gevent.sleep(0.01)
        stops.append(time.monotonic() - began)

stops = []
watching = gevent.spawn(watch)
stats = with_reset(reset)
watching.kill()
assert max(stops) < 0.4, max(stops)
assert (stats.made, stats.lent, stats.discarded) == (2, 6, 0), stats
print("well")
"""
    settings = {"OPTIONS": {"pool": {"max_size": 2}}}
    assert run_django(GREENLETS + code, settings).strip() == "well"


def test_reset_that_fails_after_a_greenlet_is_told_and_closes_the_connection(run_django):
    code = """
told = []
sys.unraisablehook = lambda unraisable: told.append(unraisable.exc_value)

def reset(conn):
    conn.cursor().execute("select 1")
    raise ValueError("of the hook")

stats = with_reset(reset)
assert [str(exc) for exc in told] == ["of the hook"] * 6, told
assert (stats.made, stats.discarded) == (6, 6), stats
print("well")
"""
    assert run_django(GREENLETS + code, POOL).strip() == "well"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"OPTIONS": {"pool": 3}}, "OPTIONS['pool'] is True or a dict, not 3"),
        (
            {"OPTIONS": {"pool": {"num_workers": 3}}},
            "OPTIONS['pool'] has 'num_workers', which is psycopg_pool's, and not one of",
        ),
        ({"OPTIONS": {"pool": {"size": 3}}}, "OPTIONS['pool'] has 'size', which is not one of"),
        ({"OPTIONS": {"pool": {"max_size": 0}}}, "OPTIONS['pool']: max_size=0: it must be 1"),
        ({"OPTIONS": {"pool": True}, "CONN_MAX_AGE": 60}, "leave that at 0"),
    ],
    ids=["kind", "psycopg_pool's", "unknown", "value", "CONN_MAX_AGE"],
)
def test_wrong_pool_options_are_told(run_python, database, settings, message):
    code = f"""
from tests.lab.django_site import configure
configure({database!r}, {settings!r})
from django.db import connection
from django.core.exceptions import ImproperlyConfigured
try:
    connection.ensure_connection()
except ImproperlyConfigured as exc:
    print(exc)
"""
    assert message in run_python(code)


def test_pooled_connection_that_is_closed_within_a_block_is_not_replaced_there(run_django):
    code = """
import django.db
try:
    with transaction.atomic():
        Thing.objects.create(name="a")
        connection.close()
        Thing.objects.create(name="b")
except django.db.Error:
    pass
else:
    raise AssertionError
assert Thing.objects.count() == 0
connection.close()
assert connection.pool_stats().in_use == 0
print("well")
"""
    assert run_django(code, POOL).strip() == "well"
