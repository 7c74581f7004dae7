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


WARNED = """
import sys, warnings
import greenwait
def warned(*steps):
    \"\"\"Return the warnings of the steps.\"\"\"
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for step in steps:
            exec(step, globals())
    assert {w.category for w in found} <= {RuntimeWarning}, found
    return [w for w in found if "Django" in str(w.message)]
"""
INSTALL, UNINSTALL = "greenwait.install()", "greenwait.uninstall()"
BACKEND = "import django.db.backends.postgresql.base"
CONTRIB = "import django.db.backends.postgresql.psycopg_any"


@pytest.mark.parametrize("backend", [BACKEND, CONTRIB])
@pytest.mark.parametrize("comes", ["before", "after", "between"])
def test_stock_backend_on_psycopg_3_is_warned_of_once(run_python, backend, comes):
    steps = {"before": [backend, INSTALL], "after": [INSTALL, backend]}.get(
        comes, [INSTALL, UNINSTALL, INSTALL, backend]
    )
    code = f"""
found = warned(*{steps!r})
assert len(found) == 1, found
assert warned(*{[INSTALL, UNINSTALL, UNINSTALL, INSTALL, backend]!r}) == []
assert "greenwait" not in found[0].filename, found
print(found[0].message)
"""
    assert "runs on psycopg 3, which never calls greenwait" in run_python(WARNED + code)


@pytest.mark.parametrize(
    "steps",
    [
        [INSTALL, "import greenwait.django", BACKEND],
        ["import greenwait.django", INSTALL, BACKEND],
        [INSTALL, "sys.modules['psycopg'] = None", BACKEND],
        [INSTALL, UNINSTALL, BACKEND],
        [INSTALL, "import django.db.backends.sqlite3.base, psycopg"],
        [BACKEND],
    ],
    ids=["ours", "ours first", "none", "uninstalled", "another backend", "not installed"],
)
def test_what_uses_no_greenwait_or_no_psycopg_3_is_not_warned_of(run_python, steps):
    assert run_python(f"{WARNED}assert warned(*{steps!r}) == []") == ""


def test_django_on_psycopg_3_goes_on_where_the_warning_is_an_error(run_python):
    code = f"""
greenwait.install()
try:
    {BACKEND}
except RuntimeWarning:
    {BACKEND}
    print("well")
"""
    assert run_python(WARNED + code).strip() == "well"


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
