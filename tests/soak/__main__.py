"""Starts the servers, a proxy and a process for each context; strikes, waits, and adds up."""

import argparse
import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.lab.fault_proxy import FaultProxy
from tests.lab.hostile_server import HostileServer
from tests.lab.postgres import Server
from tests.soak.board import Board
from tests.soak.contexts import CONTEXTS
from tests.soak.hostile import plans
from tests.soak.operations import ACCOUNTS, AMOUNT
from tests.soak.trouble import Restarts, Striker, Watcher

_ROOT = Path(__file__).parent.parent.parent
_SILENT = 180.0  # seconds without a sign of life, after which a process is made to say where it is
_STOPPED = 40.0  # seconds after which the server must be through with what was abandoned


class Client:
    """The process of one context."""

    def __init__(self, kind, settings):
        self.kind, self.index = kind, settings["index"]
        self._beats, self._heard = -1, time.monotonic()
        self.process: Any = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.soak.client", kind, json.dumps(settings)],
            cwd=_ROOT,
            # What malloc keeps for each thread depends on chance, and is no leak.
            env=os.environ | {"MALLOC_ARENA_MAX": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )

    def has_ended(self, board):
        """Look after it. It must not fail, nor be silent."""
        status = self.process.poll()
        if status is not None:
            assert status == 0, f"{self.kind} has failed, exit status {status}"
            return True
        beats = board.beats(self.index)
        if beats != self._beats:
            self._beats, self._heard = beats, time.monotonic()
        if time.monotonic() > self._heard + _SILENT:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait(20)
            raise AssertionError(f"{self.kind} was silent for {_SILENT:g} s")
        return False

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def _dsns(server, proxy, kind):
    """The connection strings of both kinds, the pools' first."""
    sound = {"application_name": f"sound {kind}", "connect_timeout": 30}
    mortal = {"application_name": f"mortal {kind}", "connect_timeout": 5}
    return {
        "sound": [server.dsn(transport, **sound) for transport in server.transports],
        "mortal": [
            proxy.dsn(**mortal),
            proxy.dsn(**mortal),
            server.dsn("unix", **mortal),
            *([proxy.dsn(sslmode="require", **mortal)] if "tls" in server.transports else []),
        ],
    }


def _prepare(watcher, kinds):
    watcher.ask(
        "create table accounts (number int primary key, amount int not null);"
        "create table ledger (tag text primary key);"
        f"insert into accounts select g, {AMOUNT} from generate_series(0, %s) g; select 1",
        kinds * ACCOUNTS - 1,
    )
    return kinds * ACCOUNTS * AMOUNT


def _check_server(watcher, total):
    """Is it through with all of it, and does it add up?"""
    give_up = time.monotonic() + _STOPPED
    query = "select state, query from pg_stat_activity where application_name ~ '^(sound|mortal) '"
    while left := watcher.ask(query):
        assert time.monotonic() < give_up, f"left on the server: {left}"
        time.sleep(0.2)
    ((found,),) = watcher.ask("select sum(amount) from accounts")
    assert found == total, f"the accounts add up to {found}, not {total}"


def soak(seed, minutes, kinds):
    """Run all; return what was done, in all and in each."""
    end = time.monotonic() + minutes * 60
    counts = Counter()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server())
        hostile = stack.enter_context(HostileServer())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        board = Board.create(directory / "board")
        watcher = Watcher(server.dsn("unix"))
        stack.callback(watcher.close)
        total = _prepare(watcher, len(kinds))
        clients, strikers = [], []
        for index, kind in enumerate(kinds):
            proxy = stack.enter_context(FaultProxy(server))
            settings = {
                "index": index,
                "seed": seed,
                "minutes": minutes,
                "total": total,
                "board": str(directory / "board"),
                "dsns": _dsns(server, proxy, kind),
                "hostile": [
                    (plan, hostile.port(**plan))
                    for plan in plans(f"{seed}-{kind}", random.Random(f"{seed}-{kind}-plans"))
                ],
            }
            rng = random.Random(f"{seed}-{kind}-faults")
            strikers.append(Striker(kind, proxy, rng, counts))
            clients.append(Client(kind, settings))
            stack.callback(clients[-1].end)
        rng = random.Random(f"{seed}-restarts")
        restarts = Restarts(server, board, watcher, rng, counts, end)
        running = list(clients)
        while running:
            running = [client for client in running if not client.has_ended(board)]
            for striker in strikers:
                striker.go_on(watcher)
            restarts.go_on()
            assert hostile.is_running, "the hostile server has ended"
            time.sleep(0.02)
        found = {client.kind: json.loads(client.process.stdout.read()) for client in clients}
        for striker in strikers:
            striker.proxy.clear()
        _check_server(watcher, total)
    return counts, found


def _minutes(text):
    minutes = float(text)
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"{text} minutes: it must be more than 0, and finite")
    return minutes


def main():
    """Soak."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=_minutes, default=3.0, help="default: %(default)g")
    parser.add_argument("--seed", default="", help="that of a run before")
    parser.add_argument("--only", choices=CONTEXTS, help="one context")
    options = parser.parse_args()
    seed = options.seed or str(random.SystemRandom().randrange(1_000_000))
    print(f"soak: SEED={seed}, {options.minutes:g} minutes", flush=True)
    try:
        counts, found = soak(
            seed, options.minutes, [options.only] if options.only else list(CONTEXTS)
        )
    except BaseException:
        print(f"soak: it has failed with SEED={seed}", flush=True)
        raise
    for kind, each in found.items():
        done = ", ".join(f"{what} {count}" for what, count in sorted(each["counts"].items()))
        print(f"\n{kind}: {done}\n  {each['first']}\n  {each['last']}")
    print("\nstruck: " + ", ".join(f"{what} {count}" for what, count in sorted(counts.items())))
    print(f"soak: all is well, SEED={seed}")


if __name__ == "__main__":
    main()
