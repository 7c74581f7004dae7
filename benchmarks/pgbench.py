"""PostgreSQL's pgbench as one more client: libpq driven by C, which looks at no row.

No client that uses libpq can use less CPU than that: it is the floor. pgbench connects anew in each
run, so that is taken from a run of one query a connection, and subtracted.
"""

import re
import resource
import shutil
import subprocess
from pathlib import Path

from benchmarks.measure import Sample
from benchmarks.statements import Statement
from tests.lab.postgres import find_binaries

HOW_TO_INSTALL = "apt-get install postgresql"
TITLE = "pgbench: libpq in C"

_TIMES = 4  # as many queries in a round as another client, which makes the start matter less
_TIMEOUT = 300.0


def find_program() -> Path | None:
    """Return pgbench: the one of the server that is started here, or the system's, or None."""
    beside = find_binaries() / "pgbench"
    if beside.is_file():
        return beside
    elsewhere = shutil.which("pgbench")
    return None if elsewhere is None else Path(elsewhere)


class Pgbench:
    """One thread of it that runs a statement on so many connections; *script* is its file."""

    kb = 0.0  # it is not Python: nothing to compare

    def __init__(
        self, program: Path, script: Path, connections: int, statement: Statement, dsn: str
    ) -> None:
        self._connections = connections
        script.write_text(f"{statement.text};\n", encoding="utf-8")
        options = ["--no-vacuum", f"--client={connections}", "--jobs=1", f"--file={script}"]
        self._command = [str(program), *options, dsn]

    def _run(self, queries: int) -> tuple[float, float]:
        """Run so many on each connection; return the CPU time, and how long each took."""
        command = [*self._command[:-1], f"--transactions={queries}", self._command[-1]]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        per_second = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
        if done.returncode or per_second is None:
            raise RuntimeError(f"pgbench:\n{done.stderr}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return cpu, 1 / float(per_second[1])

    def run(self, queries: int) -> Sample:
        """Run a round; return what one query took, *queries* being another client's on each."""
        started, _ = self._run(1)
        more = _TIMES * queries
        cpu, seconds = self._run(1 + more)
        total = more * self._connections
        return Sample(total, seconds, (cpu - started) / total)

    def end(self) -> None:
        """Do nothing: no process is left of it."""
