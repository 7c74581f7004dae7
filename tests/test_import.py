"""Importing greenwait: what it exports, and what it says where psycopg2 is missing or old."""

import importlib
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import greenwait
from greenwait._psycopg import psycopg2 as names
from tests.lab.bounds import bound


def import_greenwait(tmp_path, fake_psycopg2=None):
    """Import greenwait in a new process that has no psycopg2, or the given one; return stderr."""
    script = "import sys; sys.path.insert(0, sys.argv[1])\n"
    if fake_psycopg2 is None:
        script += "sys.modules['psycopg2'] = None\n"
    else:
        (tmp_path / "psycopg2").mkdir()
        (tmp_path / "psycopg2" / "__init__.py").write_text(fake_psycopg2)
    done = subprocess.run(
        [sys.executable, "-c", script + "import greenwait", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=bound(40),
    )
    assert done.returncode == 1
    return done.stderr


def test_without_psycopg2_the_error_names_both_ways_to_install_it(tmp_path):
    error = import_greenwait(tmp_path)
    assert "ImportError: greenwait needs psycopg2" in error
    assert "pip install 'greenwait[binary]'" in error
    assert "pip install 'greenwait[psycopg2]'" in error


def test_old_psycopg2_is_an_import_error_that_says_so(tmp_path):
    error = import_greenwait(tmp_path, "__version__ = '2.8.6 (dt dec pq3 ext lo64)'")
    assert "ImportError: greenwait needs psycopg2 >= 2.9, and this is 2.8.6" in error


def test_broken_psycopg2_speaks_for_itself(tmp_path):
    error = import_greenwait(tmp_path, "import libpq_that_is_missing")
    assert "No module named 'libpq_that_is_missing'" in error
    assert "pip install" not in error


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("2.9.13 (dt dec pq3 ext lo64)", (2, 9, 13)),
        ("2.9 (dt dec pq3 ext lo64)", (2, 9)),
        ("2.10.0rc1 (dt)", (2, 10)),
        ("3.0", (3, 0)),
    ],
)
def test_version_info(version, expected):
    assert names.version_info(version) == expected


def test_all_names_exist_and_are_public():
    assert sorted(greenwait.__all__) == greenwait.__all__
    assert [name for name in greenwait.__all__ if not hasattr(greenwait, name)] == []


PACKAGE = Path(greenwait.__file__).parent
FOR_PYTHON = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py*")
    if path.suffix in (".py", ".pyi") and path.stem not in ("__init__", "__main__", "eventlet")
)


@pytest.mark.parametrize("module", FOR_PYTHON)
def test_modules_say_what_they_export(module):
    assert isinstance(importlib.import_module(module).__all__, list)


def test_version_is_that_of_the_metadata():
    assert re.fullmatch(r"\d+\.\d+\.\d+", greenwait.__version__)
    assert version("greenwait") == greenwait.__version__


def test_import_registers_nothing(run_python):
    script = "import greenwait, psycopg2.extensions as e; print(e.get_wait_callback())"
    assert run_python(script) == "None\n"
