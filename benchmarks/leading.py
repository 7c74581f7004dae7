"""What the report leads with: that in which the ways to wait differ, measured in the same run.

Each function measures one part of it, and returns what ``compare.py --json`` says of it.
"""

import math
import os
import random
import sys
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from rich.table import Table

from benchmarks import behaviour, concurrency
from benchmarks.callbacks import BLOCKING, FEW, GREENWAIT, contestants
from benchmarks.figures import step
from benchmarks.machine import Cores, Pinning
from benchmarks.measure import Sample, Spread, measure
from benchmarks.workloads import Workload, workloads
from tests.lab.postgres import Server

CONNECTIONS = 32

_SPIN = "spin-auto"
# Of those on two cores psycogreen would take half a minute.
_BESIDE_A_THREAD: tuple[tuple[Pinning, Collection[str]], ...] = (
    ("free", (BLOCKING, "wait_select", GREENWAIT)),
    ("same", FEW),
)
_CLIENTS = ("hub", "aio", "aio-uvloop", "psycogreen", "asyncpg", "asyncpg-uvloop")
#: Whose CPU time is compared with whose.
PEERS = (("hub", "psycogreen"), ("hub", "asyncpg"), ("aio", "asyncpg"))
_ROUNDS = {"busy": (6, 20), "clients": (9, 30), "spin": (40, 200)}  # quick, and else
_QUICK_SECONDS = (
    15.0  # for 200,000 rows or a spin, on a busy machine; more at most for three rounds
)
_QUICK_PORTION = 4  # of the queries in a round of the clients, one in so many


class Leading:
    """Measures the parts, briefly or as long as the rest."""

    def __init__(self, server: Server, rng: random.Random, *, is_quick: bool) -> None:
        self._server = server
        self._rng = rng
        self._is_quick = is_quick
        self._workloads = {each.name: each for each in workloads(server.transports)}
        can_pin = hasattr(os, "sched_setaffinity")
        self._has_two_cores = can_pin and len(os.sched_getaffinity(0)) > 1
        # Before any of them pins this process.
        names: tuple[Pinning, ...] = ("same", "apart") if self._has_two_cores else ()
        self._cores = {name: Cores(name) for name in ("free", *names)}

    def _rounds(self, what: str) -> int:
        quick, full = _ROUNDS[what]
        return quick if self._is_quick else full

    def behaviour(self) -> dict[str, Any]:
        """Try the callbacks where something goes wrong."""
        with step("behaviour: Ctrl-C, deadlines, a frozen server and more, each tried") as told:
            return behaviour.document(behaviour.try_all(self._server, told))

    def busy(self) -> list[dict[str, Any]]:
        """Receive 200,000 rows beside a busy thread, with the cores left free, and on one."""
        workload = self._workloads["rows-200k-busy"]
        return [
            self._measured(workload, "200,000 rows beside a busy thread", names, pinning, "busy")
            for pinning, names in _BESIDE_A_THREAD
            if pinning in self._cores
        ]

    def spin(self) -> dict[str, Any] | None:
        """Query with ``spin="auto"``, which needs a core for each side; None: there is one."""
        if "apart" not in self._cores:
            print('left out: spin="auto", which needs two cores to pin to', file=sys.stderr)
            return None
        names = (BLOCKING, "wait_select", GREENWAIT, _SPIN)
        shortest = next(iter(self._workloads.values()))
        return self._measured(shortest, 'select 1, spin="auto"', names, "apart", "spin")

    def many_at_once(self) -> tuple[dict[str, Any] | None, list[Table]]:
        """Run ``select 1`` on many connections at once; None: no client is installed.

        The tables are as concurrency.py prints them.
        """
        clients = concurrency.clients_of("select-1", _CLIENTS)
        rounds, portion = self._rounds("clients"), _QUICK_PORTION if self._is_quick else 1
        if not clients:
            return None, []
        title = f"many at once: {len(clients)} clients, {CONNECTIONS} connections each"
        with step(title) as told:
            found, tables = concurrency.compare(
                "select-1",
                clients,
                [CONNECTIONS],
                rounds,
                self._server.dsn("unix"),
                portion=portion,
                told=told,
            )
        found["peers"] = [
            {"client": name, "to": to, "ratio": _cpu_ratio(found["clients"], name, to)}
            for name, to in PEERS
            if name in found["clients"] and to in found["clients"]
        ]
        return found | {"connections": CONNECTIONS, "rounds": rounds}, tables

    def _measured(
        self, workload: Workload, title: str, names: Collection[str], pinning: Pinning, what: str
    ) -> dict[str, Any]:
        entries = contestants(names)
        dsn, cores = self._server.dsn(workload.transport), self._cores[pinning]
        with step(f"{title}; {cores.title}") as told:
            found = measure(
                workload,
                entries,
                dsn,
                self._rounds(what),
                self._rng,
                most_seconds=_QUICK_SECONDS if self._is_quick else math.inf,
                cores=cores,
                told=told,
            )
        return found | {"title": title, "cores": cores.title}


def _cpu_ratio(clients: dict[str, Any], name: str, to: str) -> dict[str, float]:
    """Return the CPU time of a client, as a multiple of another's in the same round."""
    own, other = ([Sample(**each) for each in clients[key]["samples"]] for key in (name, to))
    pairs = zip(own, other, strict=True)
    return asdict(Spread.of([one.cpu_seconds / two.cpu_seconds for one, two in pairs]))
