"""psycopg 3, which Django prefers where it is installed, and which never calls greenwait."""

import pytest

pytest.importorskip("psycopg")


def test_django_takes_psycopg2(run_django):
    code = """
from django.db.backends.postgresql import base, psycopg_any
assert not base.is_psycopg3 and not psycopg_any.is_psycopg3
assert base.Database.__name__ == "psycopg2"
assert type(connection.cursor().connection) is greenwait.Connection
import psycopg  # for whoever else wants it
assert psycopg.__version__ >= "3"
print("well")
"""
    assert run_django(code).strip() == "well"


def test_psycopg_that_is_imported_already_stays(run_python):
    code = """
import sys, psycopg
import greenwait.django
from django.db.backends.postgresql import psycopg_any
assert not psycopg_any.is_psycopg3
assert sys.modules["psycopg"] is psycopg
print("well")
"""
    assert run_python(code).strip() == "well"


@pytest.mark.parametrize("module", ["base", "psycopg_any"])
def test_backend_that_has_imported_it_already_is_told_of(run_python, module):
    code = f"""
import django.db.backends.postgresql.{module}
from django.core.exceptions import ImproperlyConfigured
try:
    import greenwait.django
except ImproperlyConfigured as exc:
    print(exc)
"""
    assert run_python(code).startswith("greenwait.django needs psycopg2, and Django has already")


def test_contrib_postgres_needs_the_import_in_the_settings(run_python):
    code = """
import sys
from tests.lab.django_site import configure
from django.core.exceptions import ImproperlyConfigured
configure(sys.argv[1], INSTALLED_APPS=["django.contrib.postgres"])
from django.db import connection
try:
    connection.ensure_connection()
except ImproperlyConfigured as exc:
    assert "Write 'import greenwait.django' at the top of your settings" in str(exc), exc
else:
    raise AssertionError
print("well")
"""
    assert run_python(code).strip() == "well"
    assert run_python("import greenwait.django" + code.replace("raise AssertionError", "pass"))


def test_stock_backend_on_psycopg_3_is_warned_of(run_python):
    code = """
import warnings
import django.db.backends.postgresql.base
import greenwait
with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always")
    greenwait.install()
    greenwait.install()
assert [w.category for w in found] == [RuntimeWarning], found
print(found[0].message)
"""
    assert "runs on psycopg 3, which never calls greenwait" in run_python(code)


def test_without_django_the_package_is_importable(run_python):
    code = """
import sys
sys.modules["django"] = None
import greenwait
try:
    import greenwait.django
except ModuleNotFoundError as exc:
    assert exc.name.startswith("django")
    print("well")
"""
    assert run_python(code).strip() == "well"
