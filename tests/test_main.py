"""``python -m greenwait``: what is installed here."""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import psycopg2
import pytest

import greenwait
from greenwait.__main__ import report
from greenwait._sleep import POLLERS
from tests.lab.bounds import bound


def test_report_names_versions_and_pollers():
    done = subprocess.run(
        [sys.executable, "-m", "greenwait"], capture_output=True, text=True, timeout=bound(40)
    )
    assert done.returncode == 0
    facts = dict(line.split(":", 1) for line in done.stdout.splitlines())
    assert facts["greenwait"].strip() == greenwait.__version__
    assert platform.python_version() in facts["Python"]
    assert vars(psycopg2)["__version__"] in facts["psycopg2"]
    assert "[psycopg2" in facts["psycopg2"]
    assert "loaded" in facts["libpq"]
    assert facts["pollers"].strip() == ", ".join(POLLERS)
    assert facts["wait callback"].strip() == "None"


def test_report_names_the_registered_callback():
    with greenwait.installed(poller=POLLERS[-1]):
        assert f"greenwait.WaitCallback(poller='{POLLERS[-1]}', " in report()


def test_psycopg2_without_metadata(monkeypatch: pytest.MonkeyPatch):
    """As where a distribution's package has none."""
    monkeypatch.setattr("greenwait.__main__.version", version_of_nothing)
    assert "[build unknown: no package metadata]" in report()


def version_of_nothing(name):
    raise PackageNotFoundError(name)
