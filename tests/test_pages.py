"""Every block of the README and the docs is run, and prints what the page says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg2.extensions
import pytest

from tests.explorer import table as stopping_table
from tests.lab.bounds import bound
from tests.lab.pages import ROOT, commands, cut, is_late, side
from tests.lab.programs import without_log

DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md", *DOCS]
MAKEFILE = (ROOT / "Makefile").read_text()
PYPROJECT = (ROOT / "pyproject.toml").read_text()


def blocks(*languages):
    """Return each block in one of *languages*, and the output that follows it."""
    return [
        pytest.param(block.text, block.output, id=f"{page.parent.name}-{page.stem}-{number}")
        for page in PAGES
        for number, block in enumerate(cut(page))
        if block.language in languages
    ]


COMMANDS = {line for block in blocks("console") for line in commands(str(block.values[0]))}
LINKS = [
    (page.parent, link)
    for page in PAGES
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
]
ANCHORS = [
    (page.parent / link if link else page, anchor)
    for page in PAGES
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text())
]


OPTIONAL = re.compile(
    r"^(?:import|from) (dataset|opentelemetry\.(?:instrumentation|sdk)|pandas|peewee)\b",
    re.MULTILINE,
)


@pytest.fixture
def run(server, tmp_path):
    """Return a function that runs Python code against the server, and returns what it printed.

    Files that the code writes are the test's.
    """
    where = psycopg2.extensions.parse_dsn(server.dsn("tcp"))
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD"}
    settings = {names[key]: value for key, value in where.items() if key in names}

    def run(code):
        # Eventlet advises against its use, and so does the page.
        options = ("-W", "error", "-W", "ignore::Warning:greenwait.eventlet")
        done = subprocess.run(
            [sys.executable, *options, "-c", code],
            # What the pages say is said of the default.
            env=os.environ | settings | {"GREENWAIT_NO_LIBPQ": ""},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=bound(40),
        )
        assert without_log(done.stderr) == ""
        return done.stdout

    return run


def assert_prints(run, code, output):
    for _ in range(5):  # of the times that it tells, on a busy machine the best ones count
        printed = run(code)
        if not is_late(printed, output):
            break
    assert printed == output


@pytest.mark.parametrize(("snippet", "output"), blocks("python"))
def test_snippet_prints_what_the_page_says(snippet, output, run):
    for library in OPTIONAL.findall(snippet):
        pytest.importorskip(library)  # `make orms` and `make tracing` install them
    assert_prints(run, snippet, output)


@pytest.mark.parametrize(("diff", "output"), blocks("diff"))
def test_what_a_diff_makes_prints_what_the_page_says(diff, output, run):
    compile(side(diff, "-"), "before", "exec")  # what that needs is not installed
    assert_prints(run, side(diff, "+"), output)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_every_block_is_of_a_kind_that_is_checked(page):
    languages = {block.language for block in cut(page)}
    # Those in braces are Sphinx's, which checks them. Output stands behind what prints it.
    assert languages <= {"python", "diff", "console", "{eval-rst}", "{include}", "{toctree}"}


def test_pages_have_snippets():
    assert len(blocks("python")) >= 34
    assert len(blocks("diff")) >= 5


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_command_of_a_page_is_there(command):
    first, *rest = command.split()
    if first == "make":
        assert re.search(rf"^{rest[0]}:.*##", MAKEFILE, re.MULTILINE)
    elif first == "pip":
        assert rest[0] == "install"
        for name in rest[1:]:
            extra = re.fullmatch(r"'greenwait\[(\w+)\]'", name)
            # `make newcomer` installs it, and what of ours needs it is tried with the same.
            assert (f"\n{extra[1]} = [" if extra else f'    "{name}') in PYPROJECT
    elif rest[0] == "-m":
        assert (ROOT / "src" / rest[1] / "__main__.py").exists()
    else:
        assert first == "python"
        script = (ROOT / rest[0]).read_text()
        assert all(f'"{word}"' in script for word in rest[1:] if word.startswith("--"))


@pytest.mark.parametrize(
    "target", re.findall(r"`make ([a-z-]+)`", "".join(map(Path.read_text, PAGES)))
)
def test_target_that_a_page_names_is_there(target):
    assert re.search(rf"^{target}:.*##", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize(("directory", "link"), LINKS)
def test_file_a_page_links_to_exists(directory, link):
    assert (directory / link).exists()


@pytest.mark.parametrize(("page", "anchor"), ANCHORS)
def test_heading_a_page_links_to_exists(page, anchor):
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert anchor in anchors


@pytest.mark.parametrize("page", DOCS, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_page_is_found_from_the_first_one(page):
    first = ROOT / "docs" / ("api.md" if page.parent.name == "api" else "index.md")
    assert page == first or f"({page.relative_to(first.parent)})" in first.read_text()


def test_table_of_events_is_what_the_explorer_has_found():
    page = (ROOT / "docs" / "when-a-query-must-stop.md").read_text()
    assert stopping_table.table() in page
