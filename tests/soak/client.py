"""A process that soaks one context: rounds of jobs, until the time is over.

    python -m tests.soak.client CONTEXT SETTINGS

The parent starts it; SETTINGS are in JSON. It ends with a line of JSON on standard output, or
with a traceback and exit status 1.
"""

import gc
import json
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg2

import greenwait
from greenwait._sleep import POLLERS
from tests.soak.board import Board
from tests.soak.contexts import CONTEXTS
from tests.soak.growth import Sample, growth
from tests.soak.hostile import Hostile
from tests.soak.jobs import Job, Look
from tests.soak.stacks import Watchdog
from tests.soak.storm import Storm

GRACE = 2.0  # seconds
_JOBS = 24  # in a round
_HOSTILE = 0.03  # of these
_MAX_POOL = 5
_SAMPLES = 12


class Soak:
    """One context's run, and what its jobs share."""

    def __init__(self, kind, settings):
        self.seed, self.index = settings["seed"], settings["index"]
        self.total, self.minutes = settings["total"], settings["minutes"]
        self.dsns = settings["dsns"]
        self.hostile = settings["hostile"]  # plans, and their ports
        self.board = Board(Path(settings["board"]))
        self.kind = kind
        self.rng = random.Random(f"{self.seed}-{kind}")
        self.context: Any = CONTEXTS[kind](self.rng)
        self.counts = Counter()
        self.ledger = {}  # by tag: whether it was committed; None: nobody knows
        self.failures = {}  # by tag: the error of a commit
        self.shelf = {True: [], False: []}  # connections, by whether they are sound
        self.pools, self.async_pools = {}, {}
        self.shared: Any = None
        self.watchdog = Watchdog()

    # -- What jobs use

    def new_tag(self):
        """Return the name of a transaction, which is not committed yet."""
        tag = f"{self.kind} {len(self.ledger)}"
        self.ledger[tag] = False
        return tag

    def dsn(self, is_sound, rng):
        """Return one of the ways to the server."""
        return rng.choice(self.dsns["sound" if is_sound else "mortal"])

    def connect(self, is_sound, rng):
        """Return a new connection, made in one of both ways."""
        dsn = self.dsn(is_sound, rng)
        shakes = self.board.shakes
        if rng.random() < 0.5:
            conn = greenwait.connect(dsn)
        else:
            conn = psycopg2.connect(dsn, connection_factory=greenwait.Connection)
        conn.shakes = shakes  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        return conn

    def pool(self, is_sound):
        return self.pools[is_sound]

    def async_pool(self, is_sound):
        return self.async_pools[is_sound]

    # -- Rounds

    def begin(self):
        """Make what rounds share, and is missing or lost."""
        while self.shared is None or self.shared.closed:
            shakes = self.board.shakes
            try:
                self.shared = self.connect(True, self.rng)
                self.shared.autocommit = True
            except psycopg2.OperationalError:
                if shakes % 2 == 0 and self.board.shakes == shakes:
                    raise
        for is_sound in (True, False):
            if is_sound not in self.pools:
                dsn = self.dsns["sound" if is_sound else "mortal"][0]
                self.pools[is_sound] = greenwait.Pool(dsn, max_size=_MAX_POOL, timeout=60)
                if self.context.has_native:
                    self.async_pools[is_sound] = self.context.create_pool(
                        dsn, max_size=_MAX_POOL, timeout=60
                    )

    def play(self):
        """Play a round, and look at all that it has left."""
        jobs = []
        for _ in range(_JOBS):
            jobs.append(self.new_job(random.Random(self.rng.random())))
        self.context.play(jobs)
        self.judge(jobs)
        looks = [
            Look(self, self.rng, is_sound, conn)
            for is_sound, kept in self.shelf.items()
            for conn in [*kept, *([self.shared] if is_sound else [])]
        ]
        self.context.play(looks)
        self.judge(looks)
        for kept in self.shelf.values():
            kept[:] = [conn for conn in kept if not conn.closed][: _JOBS // 2]
        self.check_pools()
        self.counts["rounds"] += 1

    def check_pools(self):
        """Is every place free?"""
        for pool in (*self.pools.values(), *self.async_pools.values()):
            stats = pool.stats()
            assert stats.in_use == stats.waiting == 0, stats
            assert stats.size <= _MAX_POOL, stats

    def new_job(self, rng):
        if rng.random() < _HOSTILE:
            return Hostile(self, rng, GRACE)
        if self.context.has_native and rng.random() < 0.3:
            from tests.soak.native import NativeJob

            return NativeJob(self, rng)
        return Job(self, rng)

    def judge(self, jobs):
        self.counts["jobs"] += len(jobs)
        for job in jobs:
            problem = job.judge()
            if problem is not None:
                raise AssertionError(problem)

    def end(self):
        """Close all, so that nothing is under way."""
        for kept in self.shelf.values():
            for conn in kept:
                conn.close()
            kept.clear()
        self.shared.close()
        for pool in self.pools.values():
            pool.close()
        for pool in self.async_pools.values():
            self.context.close_pool(pool)
        self.pools.clear()
        self.async_pools.clear()

    def sample(self, samples):
        """Take one, when what was given up has ended, or after a few seconds."""
        self.end()
        self.context.pause(1.1)  # gevent's and asyncio's loops let go of what nobody needs
        give_up = time.monotonic() + 5
        while True:
            gc.collect()
            found = Sample.take()
            if not samples or found.descriptors <= samples[0].descriptors:
                break
            if time.monotonic() > give_up:
                break
            self.context.pause(0.1)
        samples.append(found)

    # -- All of it

    def run(self):
        """Soak; return what is to be known of it."""
        self.context.install(
            cancel_grace=GRACE,
            poller=self.rng.choice(POLLERS),
            spin=self.rng.choice([0.0, "auto"]),
        )
        end = time.monotonic() + self.minutes * 60
        pause = max(4.0, self.minutes * 60 / _SAMPLES)
        samples, next_sample = [], 0.0
        storm = Storm(self) if self.kind in ("asyncio", "uvloop", "trio") else None
        while time.monotonic() < end or (storm and not storm.is_over):
            self.begin()
            self.play()
            if storm and not storm.is_over and storm.is_due(end):
                storm.play()
            if time.monotonic() > next_sample:
                self.sample(samples)
                next_sample = time.monotonic() + pause
            self.board.beat(self.index)
            self.watchdog.renew()
        if self.shared is not None and not self.shared.closed:
            self.sample(samples)
        grown = growth(samples)
        if grown:
            raise AssertionError("it has grown. " + "; ".join([*grown, str(samples)]))
        self.check_losses()
        self.context.call(self.check_ledger)
        return {"counts": self.counts, "first": str(samples[0]), "last": str(samples[-1])}

    def check_losses(self):
        lost = self.counts["sound connections lost to the grace"]
        strikes = self.counts["interrupted"] + self.counts["cancelled by a deadline"]
        assert lost <= 3 + strikes * 0.02, f"{lost} of {strikes} interrupts cost the connection"

    def check_ledger(self):
        """Was all that was committed, and nothing that was not?"""
        conn = psycopg2.connect(self.dsns["sound"][0])
        with conn, conn.cursor() as cur:
            cur.execute("select tag from ledger where tag like %s", (f"{self.kind} %",))
            there = {tag for (tag,) in cur}
        conn.close()
        for tag, is_committed in self.ledger.items():
            failure = self.failures.get(tag, "")
            assert is_committed in (None, tag in there), f"{tag}: {is_committed}\n{failure}"
        self.counts["committed"] = len(there)
        self.counts["commits in doubt"] = sum(each is None for each in self.ledger.values())


def main():
    """Soak, and say how it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's
    kind, settings = sys.argv[1], json.loads(sys.argv[2])
    soak = Soak(kind, settings)
    found = soak.run()
    soak.watchdog.renew()
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
