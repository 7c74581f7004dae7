"""The web sites of examples/, each in a process of its own, and clients that ask and hang up."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.lab.bounds import bound
from tests.lab.postgres import reserved_port
from tests.lab.waiting import until

__all__ = ["EXAMPLES", "Site", "serving"]

EXAMPLES = Path(__file__).parents[2] / "examples"
_AT_ONCE = 10
_EACH = 10  # requests of a kind
_TOTAL = 400  # in all accounts
_TIMEOUT = bound(40)  # seconds for an answer


class Site:
    """A bank that listens on a port of this machine, as each of the examples makes one."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def connect(
        self, method: str, path: str, **query: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send a request; return where the answer will come from, and what to hang up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        target = f"{path}?{urlencode(query)}"
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        return reader, writer

    async def ask(self, method: str, path: str, **query: Any) -> tuple[int, Any]:
        """Return the status and the JSON of the answer, or None where it is not JSON."""
        reader, writer = await self.connect(method, path, **query)
        try:
            head, _, body = (await asyncio.wait_for(reader.read(), _TIMEOUT)).partition(b"\r\n\r\n")
        finally:
            writer.close()
        status = int(head.split()[1])
        if b"application/json" not in head:
            return status, None
        # Behind the headers it may come in chunks; there is but one object in it.
        return status, json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])

    async def hang_up(self, after: float, method: str, path: str, **query: Any) -> None:
        """Send a request, and close the connection *after* so many seconds."""
        _, writer = await self.connect(method, path, **query)
        await asyncio.sleep(after)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def open_accounts(self) -> None:
        """Open those that ``use()`` moves amounts between."""
        for name in "abcd":
            answer = await self.ask("POST", f"/accounts/{name}", balance=_TOTAL // 4)
            assert answer == (200, {"name": name, "balance": _TOTAL // 4})
        assert (await self.ask("GET", "/accounts/nobody"))[0] == 404

    async def use(self) -> None:
        """Send sixty requests, ten at a time; check every answer, and what they came to."""
        places = asyncio.Semaphore(_AT_ONCE)
        moved = Counter(dict.fromkeys("ab", _TOTAL // 4))

        async def transfer(number: int) -> None:
            source, target = "ab" if number % 3 else "ba"
            query = {"source": source, "target": target, "amount": number}
            status, found = await self.ask("POST", "/transfer", **query)
            assert status == 200, found
            moved.update({source: -number, target: number})

        async def look(number: int) -> None:
            name = "abcd"[number % 4]
            status, found = await self.ask("GET", f"/accounts/{name}")
            assert (status, found["name"]) == (200, name)

        async def report(number: int) -> None:
            answer = await self.ask("GET", "/report", seconds=0.01 * number)
            assert answer == (200, {"total": _TOTAL})

        async def slow_report(_: int) -> None:
            assert await self.ask("GET", "/report", seconds=600) == (504, {"error": "too slow"})

        async def hang_up_report(number: int) -> None:
            await self.hang_up(0.03 * number, "GET", "/report", seconds=600)

        async def hang_up_transfer(number: int) -> None:
            query = {"source": "c", "target": "d", "amount": 1}
            await self.hang_up(0.001 * number, "POST", "/transfer", **query)

        kinds = (transfer, look, report, slow_report, hang_up_report, hang_up_transfer)

        async def one(number: int) -> None:
            async with places:
                await kinds[number % len(kinds)](number // len(kinds))

        await asyncio.gather(*(one(number) for number in range(_EACH * len(kinds))))
        # More than the pool has, and they wait for the same rows.
        burst = (kind(number) for number in range(15) for kind in (transfer, report))
        await asyncio.gather(*burst)
        for name in "ab":
            answer = await self.ask("GET", f"/accounts/{name}")
            assert answer == (200, {"name": name, "balance": moved[name]})
        query = {"source": "a", "target": "b", "amount": _TOTAL}
        assert await self.ask("POST", "/transfer", **query) == (409, {"error": "not enough"})

    def in_use(self) -> int:
        """Return how many connections of its pool are lent."""
        status, found = asyncio.run(self.ask("GET", "/stats"))
        assert status == 200
        return int(found["in_use"])


@contextlib.contextmanager
def serving(command: Sequence[str], log: Path, **environment: str) -> Iterator[Site]:
    """Serve the example that ``python`` and *command* start; ``{port}`` in it becomes a port.

    What the server says goes into *log*; it is stopped after the block.
    """
    with reserved_port() as port, log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, *(each.format(port=port) for each in command)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=EXAMPLES,
            # gunicorn makes files in HOME.
            env=os.environ | environment | {"PORT": str(port), "HOME": str(log.parent)},
        )
        try:
            until(lambda: server.poll() is not None or _listens(port))
            assert server.poll() is None, log.read_text()
            yield Site(port)
            assert server.poll() is None, log.read_text()
        except AssertionError:
            print(log.read_text())
            raise
        finally:
            server.terminate()
            try:
                server.wait(bound(20))
            finally:
                server.kill()


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
