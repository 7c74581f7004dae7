"""Every Python snippet of the README and the docs runs, and prints what the page says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg2.extensions
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = [
    pytest.param(snippet, output, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, (snippet, output) in enumerate(
        re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", page.read_text(), re.DOTALL)
    )
]
LINKS = [
    (page.parent, link)
    for page in PAGES
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
]


@pytest.mark.parametrize(("snippet", "output"), SNIPPETS)
def test_snippet_prints_what_the_page_says(snippet, output, server):
    where = psycopg2.extensions.parse_dsn(server.dsn("tcp"))
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", snippet],
        env=os.environ
        | {names[key]: value for key, value in where.items() if key in names}
        | {"GREENWAIT_NO_LIBPQ": ""},  # what the pages say is said of the default
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert done.stderr == ""
    assert done.stdout == output


def test_pages_have_snippets():
    assert len(SNIPPETS) >= 14


@pytest.mark.parametrize("target", re.findall(r"\$ make ([a-z-]+)", README))
def test_command_of_the_readme_is_a_target(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize(("directory", "link"), LINKS)
def test_file_a_page_links_to_exists(directory, link):
    assert (directory / link).exists()
