"""`make newcomer` tells of each block that does something else than its page says."""

import re
import sys
from pathlib import Path

import pytest

from tests.newcomer.home import Home
from tests.newcomer.reader import Reader

PRINTS = "```python\nprint('a')\n```\n\n```text\n{}\n```\n"


@pytest.fixture
def deviations(server, tmp_path):
    """Return a function that returns the deviations of a page with that text."""
    home = Home(tmp_path / "home", tmp_path, tmp_path)
    reader = Reader(Path(sys.prefix), home, server.dsn(), tmp_path)

    def read(text):
        page = tmp_path / "page.md"
        page.write_text(text)
        return [str(deviation) for deviation in reader.read(page)]

    return read


@pytest.mark.parametrize(
    "text",
    [
        PRINTS.format("a"),
        "```console\n$ python -c 'print(1)'    # a comment\n```\n\n```text\n1\n```\n",
        "```diff\n-import absent\n+import os\n```\n",
        "```console\n$ make test\n```\n",
        "A UserWarning.\n\n```python\nimport warnings\nwarnings.warn('')\n```\n",
    ],
    ids=["program", "console", "diff", "not-run", "announced-warning"],
)
def test_page_that_says_what_happens_has_no_deviation(text, deviations):
    assert deviations(text) == []


@pytest.mark.parametrize(
    ("text", "came"),
    [
        (PRINTS.format("b"), "expected:\n    b\n  came:\n    a\n"),
        ("```python\nimport absent\n```\n", "No module named 'absent'"),
        ("```python\nimport warnings\nwarnings.warn('')\n```\n", "UserWarning"),
        ("```console\n$ exit 3\n```\n", "(status 3)"),
        ("```console\n$ echo a\n```\n\n```text\nb\n```\n", "came:\n    a"),
    ],
    ids=["output", "missing-library", "warning", "status", "console-output"],
)
def test_deviation_is_told_with_its_line(text, came, deviations):
    (told,) = deviations("\n" + text)
    assert re.match(r"\S*page\.md:3: ", told)
    assert came in told


def test_program_that_hangs_is_ended(deviations, monkeypatch):
    monkeypatch.setattr("tests.newcomer.reader._PROGRAM", 0.5)
    (told,) = deviations("```python\nimport time\ntime.sleep(3600)\n```\n")
    assert "(killed, since it took too long)" in told


def test_programs_have_an_empty_home_and_nothing_of_the_environment(deviations, monkeypatch):
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "mine")
    program = "import os\nprint(os.listdir(os.environ['HOME']), *sorted(os.environ))"
    (told,) = deviations(f"```python\n{program}\n```\n")
    assert re.search(r"\[\] HOME LANG (PIP_\w+ )*PATH PG", " ".join(told.split()))
    assert "DJANGO" not in told
