"""How is a client of ``clients.py`` started, and told what to do?"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import Sample

__all__ = ["ClientProcess"]


class ClientProcess:
    """A client, connected and waiting for work."""

    def __init__(self, name: str, connections: int, dsn: str) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-W", "ignore"),
                str(Path(__file__).with_name("clients.py")),
                *(name, str(connections), dsn),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._name = name
        self._connections = connections

    def run(self, queries: int) -> Sample:
        """Run so many on each connection; return what one of them took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{queries}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the client {self._name} has ended: {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        total = queries * self._connections
        return Sample(total, found["seconds"] / total, found["cpu_seconds"] / total)

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
