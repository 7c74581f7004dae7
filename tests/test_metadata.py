"""What a package says of itself, and what a build leaves out of it."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.lab.bounds import bound

tomllib = pytest.importorskip("tomllib")  # as of Python 3.11

ROOT = Path(__file__).parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(PYPROJECT)["project"]
ADDRESS = "https://example.org/greenwait"


def test_links_follow_from_one_setting():
    lines = [
        line.removeprefix("# ").replace("REPOSITORY", ADDRESS)
        for line in PYPROJECT.splitlines()
        if line.startswith("# urls.") and "REPOSITORY" in line
    ]
    assert tomllib.loads("\n".join(lines))["urls"] == {
        "Repository": ADDRESS,
        "Issues": f"{ADDRESS}/issues",
        "Changelog": f"{ADDRESS}/blob/main/CHANGELOG.md",
    }


def test_there_is_no_link_before_the_address_is_known():
    if "REPOSITORY" in PYPROJECT:
        assert "urls" not in PROJECT


def test_every_python_that_wheels_are_built_for_is_a_classifier():
    (minors,) = re.findall(r'build = "cp3\{([\d,]+)\}', PYPROJECT)
    named = re.findall(r"Python :: 3\.(\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE)
    assert named == minors.split(",")


def test_frameworks_of_the_adapters_are_classifiers():
    named = {each.split(" :: ")[1] for each in PROJECT["classifiers"] if "Framework" in each}
    assert named == {
        "AsyncIO",
        "Django",
        "Trio",
    }  # no other has a classifier


def test_issue_form_asks_for_what_greenwait_says_of_itself():
    assert "python -m greenwait" in (ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text()


def test_hooks_and_updates_of_the_actions_are_there():
    assert "id: ruff" in (ROOT / ".pre-commit-config.yaml").read_text()
    assert "github-actions" in (ROOT / ".github/dependabot.yml").read_text()


# -- A build by the commands of setup.py, of an extension that takes no time

BUILD = """
import sys
import Cython.Build
from distutils.core import run_setup
from setuptools import Extension
Cython.Build.cythonize = lambda extensions, **options: []
command = run_setup("setup.py", [], stop_after="init").get_command_obj("build_ext")
command.distribution.ext_modules = [Extension("probe", [sys.argv[1] + "/probe.c"])]
command.build_lib, command.build_temp = sys.argv[1:3]
command.ensure_finalized()
command.inplace = "inplace" in sys.argv
command.copy_extensions_to_source = lambda: None
command.run()
"""
PROBE = """
#include <Python.h>
static int symbol(int number) { return number + 1; }
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "probe", NULL, sizeof(symbol(1))};
PyMODINIT_FUNC PyInit_probe(void) { return PyModule_Create(&module); }
"""


def built(folder, *options, **settings):
    """Return an extension that setup.py has made."""
    (folder / "probe.c").write_text(PROBE)
    environment = {name: value for name, value in os.environ.items() if name != "CFLAGS"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUILD, folder, folder / "temp", *options],
        cwd=ROOT,
        env=environment | settings,
        capture_output=True,
        text=True,
        timeout=bound(50),
    )
    assert done.returncode == 0, done.stderr
    (extension,) = folder.rglob("*.so")
    return extension.read_bytes()


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is stripped")
needs_cython = pytest.mark.skipif(not find_spec("Cython"), reason="needs Cython, of the dev group")
SYMBOLS = b".symtab"


@needs_linux
@needs_cython
def test_extension_to_be_installed_has_neither_symbols_nor_debug_information(tmp_path):
    extension = built(tmp_path)
    assert SYMBOLS not in extension
    assert b".debug_info" not in extension


@needs_linux
@needs_cython
def test_extension_built_in_place_keeps_its_symbols(tmp_path):
    assert SYMBOLS in built(tmp_path, "inplace")


@needs_linux
@needs_cython
def test_who_sets_the_compiler_s_flags_gets_debug_information(tmp_path):
    extension = built(tmp_path, CFLAGS="-g -O1")
    assert SYMBOLS in extension
    assert b".debug_info" in extension
