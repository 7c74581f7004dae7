"""``manage.py`` and its commands, as with Django's own backend."""

import os
import subprocess
import sys

import pytest

from tests.lab.bounds import bound
from tests.lab.postgres import find_binaries
from tests.lab.programs import ROOT


@pytest.fixture
def manage(database):
    """Return a function that runs a command of manage.py, and returns what it printed."""

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "django", *arguments],
            capture_output=True,
            text=True,
            timeout=bound(60),
            cwd=ROOT,
            env=os.environ
            | {
                "DJANGO_SETTINGS_MODULE": "tests.lab.django_site.settings",
                "GREENWAIT_SITE_DSN": database,
                "PATH": os.pathsep.join([str(find_binaries()), os.environ["PATH"]]),
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            },
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_check(manage):
    assert "no issues" in manage("check", "--database", "default", "--fail-level", "WARNING")


def test_migrations(manage):
    assert "No changes detected" in manage("makemigrations", "--check", "--dry-run")
    assert "[X] 0001_initial" in manage("showmigrations")
    assert 'CREATE TABLE "django_site_thing"' in manage("sqlmigrate", "django_site", "0001")
    assert "OK" in manage("migrate", "django_site", "zero")
    assert "OK" in manage("migrate")


def test_dbshell(manage):
    assert manage("dbshell", "--", "-Atc", "select 41 + 1").strip() == "42"


def test_inspectdb(manage):
    assert "class DjangoSiteThing(models.Model):" in manage("inspectdb")


def test_dumpdata_loaddata_and_flush(manage, tmp_path):
    path = tmp_path / "things.json"
    path.write_text('[{"model": "django_site.thing", "pk": 7, "fields": {"name": "a"}}]')
    manage("loaddata", str(path))
    assert '"name": "a"' in manage("dumpdata", "django_site")
    manage("sqlflush")
    manage("flush", "--noinput")
    assert manage("dumpdata", "django_site").strip() == "[]"


def test_test(manage):
    arguments = ("test", "--noinput", "tests.lab.django_site.site_tests")
    assert "OK" in manage(*arguments)


def test_test_in_several_processes(manage):
    arguments = ("test", "--noinput", "tests.lab.django_site.site_tests")
    assert "OK" in manage(*arguments, "--parallel", "2")
