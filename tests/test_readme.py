"""Every Python snippet of the README runs, and prints what the README says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg2.extensions
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", README, re.DOTALL)


@pytest.mark.parametrize(("snippet", "output"), SNIPPETS)
def test_snippet_prints_what_the_readme_says(snippet, output, server):
    where = psycopg2.extensions.parse_dsn(server.dsn())
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", snippet],
        env=os.environ
        | {names[key]: value for key, value in where.items() if key in names}
        | {"GREENWAIT_NO_LIBPQ": ""},  # what the README says is said of the default
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert done.stderr == ""
    assert done.stdout == output


def test_readme_has_snippets():
    assert len(SNIPPETS) >= 4


@pytest.mark.parametrize("target", re.findall(r"\$ make ([a-z-]+)", README))
def test_command_of_the_readme_is_a_target(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?:)([^)#]+)", README))
def test_file_the_readme_links_to_exists(link):
    assert (ROOT / link).exists()
