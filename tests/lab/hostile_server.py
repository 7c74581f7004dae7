"""A hostile server: it speaks PostgreSQL's protocol up to a stage, and misbehaves there.

    python -m tests.lab.hostile_server

It is a process of its own, lest its threads and the client's contend for one GIL. A line on its
standard input is a plan, in JSON, or a part of one with a seed that decides on the rest; it
answers with the port at which every connection is treated so. The same plan is the same
behaviour, byte by byte; only when a cancel comes is up to the client.

``HostileServer`` starts it.
"""

import base64
import contextlib
import dataclasses
import hashlib
import hmac
import json
import random
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import trustme

PASSWORD = "secret"

# PostgreSQL manual, "Message Formats": the code in the first packet of a connection
_CANCEL_REQUEST = 80877102
_SSL_REQUEST = 80877103
_GSSENC_REQUEST = 80877104
_CHUNK = 64 * 1024
_LONGEST = 60.0  # seconds that a connection may take; a client that needs more hangs

# -- Messages


def message(kind: str, body: bytes = b"") -> bytes:
    return kind.encode() + struct.pack("!i", 4 + len(body)) + body


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def fields(severity: str, code: str, words: str) -> bytes:
    """Return what a notice or an error consists of."""
    return (
        b"".join(
            kind + text(value)
            for kind, value in ((b"S", severity), (b"V", severity), (b"C", code), (b"M", words))
        )
        + b"\0"
    )


def error(words: str, code: str = "XX000") -> bytes:
    return message("E", fields("ERROR", code, words))


def notice(words: str) -> bytes:
    return message("N", fields("NOTICE", "00000", words))


def notification(payload: str) -> bytes:
    return message("A", struct.pack("!i", 4711) + text("channel") + text(payload))


def authentication(code: int, body: bytes = b"") -> bytes:
    return message("R", struct.pack("!i", code) + body)


def setting(name: str, value: str) -> bytes:
    return message("S", text(name) + text(value))


def description(*names: str) -> bytes:
    """Return a RowDescription with columns of text."""
    columns = b"".join(text(name) + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0) for name in names)
    return message("T", struct.pack("!h", len(names)) + columns)


def row(*values: str) -> bytes:
    cells = b"".join(struct.pack("!i", len(value)) + value.encode() for value in values)
    return message("D", struct.pack("!h", len(values)) + cells)


def complete(tag: str) -> bytes:
    return message("C", text(tag))


def ready(status: str = "I") -> bytes:
    return message("Z", status.encode())


def copy(kind: str) -> bytes:
    """Return the answer that begins a COPY: G to the server, H to the client, W both."""
    return message(kind, struct.pack("!bhh", 0, 1, 0))


_SETTINGS = b"".join(
    setting(name, value)
    for name, value in {
        "server_version": "17.0",
        "server_encoding": "UTF8",
        "client_encoding": "UTF8",
        "DateStyle": "ISO, MDY",
        "integer_datetimes": "on",
        "standard_conforming_strings": "on",
        "TimeZone": "UTC",
    }.items()
)
_KEY = message("K", struct.pack("!ii", 4711, 815))

#: What there can be an endless number of.
ENDLESS: dict[str, Callable[[random.Random], bytes]] = {
    "notices": lambda rng: notice("n" * rng.choice([1, 20, 500])),
    "settings": lambda rng: setting(f"x{rng.randrange(20)}", "v" * rng.choice([1, 200])),
    "notifications": lambda rng: notification("p" * rng.choice([0, 20, 200])),
    "descriptions": lambda rng: description(*["c"] * rng.choice([1, 30])),
    "rows": lambda rng: row("r" * rng.choice([1, 100, 5000])),
    "described rows": lambda rng: description("c") + row("r") * 10,
    "results": lambda rng: description("c") + row("r") + complete("SELECT 1"),
    "completes": lambda rng: complete("SELECT 0"),
    "errors": lambda rng: error("again"),
    "readies": lambda rng: ready(),
    "transactions": lambda rng: ready(rng.choice(["T", "E"])),
    "empty answers": lambda rng: message("I"),
    "copies out": lambda rng: copy("H") + message("d", b"1\n") * rng.choice([0, 50]) + message("c"),
    "copy data": lambda rng: copy("H") + message("d", b"1\n") * 5000,
    "open copies out": lambda rng: copy("H"),
    "copies in": lambda rng: copy("G"),
    "copies both": lambda rng: copy("W") + message("d", b"1\n") * 10 + message("c"),
    "mixed copies": lambda rng: copy(rng.choice("GHW")) + message("c"),
    "keys": lambda rng: _KEY,
    "password requests": lambda rng: authentication(3),
    "md5 requests": lambda rng: authentication(5, rng.randbytes(4)),
    "SASL requests": lambda rng: authentication(10, text("SCRAM-SHA-256") + b"\0"),
    "welcomes": lambda rng: authentication(0),
    "noise": lambda rng: rng.randbytes(100),
    "zeros": lambda rng: bytes(100),
    "one letter": lambda rng: rng.choice([b"S", b"N", b"E", b"R"]) * 100,
    "one long message": lambda rng: b"x" * 1000,
}


def _malformed(rng: random.Random) -> bytes:
    """Return a message that breaks the protocol."""
    kind = rng.choice("RSKZTDCENAHGWdcIVtns12v?\0\xff"[:24])
    body = rng.randbytes(rng.choice([0, 1, 3, 8, 40]))
    ways: list[Callable[[], bytes]] = [
        lambda: kind.encode() + struct.pack("!i", rng.choice([0, 1, 3, -1, -(2**31)])) + body,
        lambda: kind.encode() + struct.pack("!i", rng.choice([2**31 - 1, 2**30, 10**6])) + body,
        lambda: message(kind, body),
        lambda: message(kind),
        lambda: message("T", struct.pack("!h", rng.choice([-1, 32767, 2])) + body),
        lambda: description("a", "b") + row("1"),
        lambda: description("a") + row("1", "2", "3"),
        lambda: description("a") + message("D", struct.pack("!hi", 1, rng.choice([-2, 10**9]))),
        lambda: row("1"),
        lambda: message("S", b"no end"),
        lambda: message("E", b"Sno end"),
        lambda: message("E", b"\0"),
        lambda: message("N", b"Mno end"),
        lambda: message("A", struct.pack("!i", 1) + b"no end"),
        lambda: message("K", rng.randbytes(rng.choice([0, 4, 300]))),
        lambda: message("Z", rng.choice([b"", b"?", b"II"])),
        lambda: message("C", b"no end"),
        lambda: message("C", text("SELECT " + "9" * 50)),
        lambda: message(rng.choice("GHW"), rng.choice([b"", b"\0", struct.pack("!bh", 0, 32767)])),
        lambda: message("v", struct.pack("!ii", rng.choice([0, 196608, -1]), 1000)),
        lambda: authentication(rng.choice([1, 2, 4, 6, 7, 8, 9, 11, 12, 13, -1]), body),
        lambda: authentication(5),
        lambda: authentication(10, rng.choice([b"", b"\0", text("NO-SUCH"), b"no end"])),
        lambda: message("R", body),
        lambda: rng.randbytes(rng.choice([1, 5, 200])),
    ]
    return rng.choice(ways)()


# -- A plan

#: Where it strikes, and what is endless there with some effect.
STAGES = {
    "accept": ["noise", "one letter", "errors", "notices"],
    "tls": ["noise", "one letter", "zeros", "errors"],
    "hello": ["password requests", "md5 requests", "SASL requests", "errors", "notices", "noise"],
    "challenge": ["notices", "SASL requests", "noise", "one long message"],
    "proof": ["notices", "welcomes", "noise", "settings"],
    "settings": ["settings", "notices", "notifications", "welcomes", "keys", "errors"],
    "key": ["keys", "settings", "notices", "notifications"],
    "ready": ["notices", "notifications", "settings", "readies", "errors", "rows"],
    "begin": list(ENDLESS),
    "query": list(ENDLESS),
    "end": ["notices", "notifications", "completes", "errors", "transactions", "copies both"],
}
_STAGE_WEIGHTS = {"query": 8, "begin": 3, "ready": 3, "hello": 2, "end": 2, "tls": 2}
WAYS = ("nothing", "truncated", "malformed", "endless")
AFTERWARDS = ("silence", "close", "reset", "go on")
ON_CANCEL = ("obey", "obey", "ignore", "silence", "close", "reset", "malformed", "endless")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What it does to each connection at one port."""

    seed: str
    stage: str
    way: str
    endless: str  # of ENDLESS
    afterwards: str
    on_cancel: str
    tls: bool  # does it offer that?
    authentication: str
    #: Seconds from one piece of what is endless to the next; 0: as fast as it is taken.
    pause: float

    @staticmethod
    def of(seed: str, **given: Any) -> "Plan":
        """Return the plan with this seed, in which what is given stands."""
        rng = random.Random(f"{seed}-plan")
        stages = list(STAGES)
        (stage,) = rng.choices(stages, [_STAGE_WEIGHTS.get(each, 1) for each in stages])
        stage = given.get("stage", stage)
        plan = Plan(
            seed=seed,
            stage=stage,
            way=rng.choice((*WAYS, "endless", "endless")),
            endless=rng.choice(STAGES[stage]),
            afterwards=rng.choice(AFTERWARDS),
            on_cancel=rng.choice(ON_CANCEL),
            tls=stage == "tls" or rng.random() < 0.2,
            authentication="scram"
            if stage in ("challenge", "proof")
            else rng.choice(["trust", "trust", "trust", "password", "md5", "scram"]),
            pause=rng.choice([0.0, 0.0, 0.0, 0.01]),
        )
        return dataclasses.replace(plan, **given)

    def pieces(self, rng: random.Random, proper: bytes) -> Iterator[bytes]:
        """Return what it sends at its stage; *proper* is what it should."""
        if self.way == "truncated":
            yield proper[: rng.randrange(len(proper))]
        elif self.way == "malformed":
            yield _malformed(rng)
        elif self.way == "endless":
            if self.endless == "one long message":
                # Not 1 GB, which libpq would take in at one go, while it comes: docs/limits.md.
                yield b"D\x01\xff\xff\xff"
            make = ENDLESS[self.endless]
            # It costs more to make them than to send them.
            some = b"".join(make(rng) for _ in range(200))
            whole = some * max(1, _CHUNK // len(some))
            while True:
                yield some if self.pause else whole


# -- The server


class _Cancelled(Exception):
    """A cancel has come, and it obeys."""


class _Session:
    """A connection."""

    def __init__(self, sock: socket.socket, port: "_Port") -> None:
        self._sock = sock
        self._plan = port.plan
        self._port = port
        self._rng = random.Random(port.plan.seed)
        self._held = b""
        self._queries = 0
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(_LONGEST)

    def run(self) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError, struct.error):
            self._talk()
        with contextlib.suppress(OSError):
            self._sock.close()

    # -- What it hears

    def _receive(self, count: int) -> bytes:
        while len(self._held) < count:
            found = self._sock.recv(65536)
            if not found:
                raise EOFError
            self._held += found
        found, self._held = self._held[:count], self._held[count:]
        return found

    def _receive_message(self) -> tuple[bytes, bytes]:
        kind, length = struct.unpack("!ci", self._receive(5))
        return kind, self._receive(length - 4)

    # -- What it says

    def _say(self, proper: bytes, stage: str = "") -> None:
        """Say what it should, or at its stage what it must not."""
        if stage != self._plan.stage:
            self._sock.sendall(proper)
            return
        try:
            if self._plan.way == "nothing" and self._plan.afterwards == "go on":
                self._stay_silent()
            for piece in self._plan.pieces(self._rng, proper):
                self._sock.sendall(piece)
                self._look_for_cancel(self._plan.pause)
            if self._plan.afterwards == "silence":
                self._stay_silent()
            elif self._plan.afterwards == "go on":
                self._sock.sendall(proper)
                return
        except _Cancelled:
            self._sock.sendall(error("cancelled", "57014") + ready())
            return
        if self._plan.afterwards == "reset":
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise EOFError

    def _look_for_cancel(self, seconds: float) -> None:
        told = self._port.is_cancelled
        is_told = told.wait(seconds) if seconds else told.is_set()
        if is_told and self._plan.on_cancel == "obey" and self._queries:
            told.clear()
            raise _Cancelled

    def _stay_silent(self) -> None:
        """Read until the client has gone."""
        end = time.monotonic() + _LONGEST
        self._sock.settimeout(0.02)
        while time.monotonic() < end:
            with contextlib.suppress(TimeoutError):
                if not self._sock.recv(65536):
                    break
            self._look_for_cancel(0)
        raise EOFError

    # -- The protocol

    def _talk(self) -> None:
        if self._plan.stage == "accept":
            self._say(b"N", "accept")
        while True:
            length, code = struct.unpack("!ii", self._receive(8))
            rest = self._receive(length - 8)
            if code == _SSL_REQUEST:
                self._negotiate_tls()
            elif code == _GSSENC_REQUEST:
                self._sock.sendall(b"N")
            elif code == _CANCEL_REQUEST:
                return self._cancel(rest)
            else:
                break
        self._authenticate()
        self._say(_SETTINGS, "settings")
        self._say(_KEY, "key")
        self._sock.sendall(ready())
        if self._plan.stage == "ready":
            self._say(notice("welcome"), "ready")
        while True:
            self._answer(*self._receive_message())

    def _negotiate_tls(self) -> None:
        if not self._plan.tls:
            self._sock.sendall(b"N")
            return
        if self._plan.stage == "tls":
            self._sock.sendall(self._rng.choice([b"S", b"", b""]))
            self._say(b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03", "tls")
        else:
            self._sock.sendall(b"S")
        self._sock = tls_context().wrap_socket(self._sock, server_side=True)

    def _authenticate(self) -> None:
        kind = self._plan.authentication
        proper = {
            "trust": b"",
            "password": authentication(3),
            "md5": authentication(5, b"salt"),
            "scram": authentication(10, text("SCRAM-SHA-256") + b"\0"),
        }[kind]
        self._say(proper or authentication(0), "hello")
        if kind == "trust":
            return
        answer = self._receive_message()[1]
        if kind == "scram":
            self._scram(answer)
        self._sock.sendall(authentication(0))

    def _scram(self, first: bytes) -> None:
        """RFC 5802; without channel binding, which it does not offer."""
        bare = first[first.index(b",,") + 2 :]
        nonce = bare[bare.index(b"r=") + 2 :] + b"server"
        salt, count = self._rng.randbytes(16), 4096
        challenge = b"r=%s,s=%s,i=%d" % (nonce, base64.b64encode(salt), count)
        if self._plan.stage == "challenge" and self._plan.way == "malformed":
            challenge = self._rng.choice(
                [
                    b"",
                    b"r=",
                    b"r=other,s=c2FsdA==,i=4096",
                    b"r=%s,i=4096" % nonce,
                    b"r=%s,s=***,i=4096" % nonce,
                    b"r=%s,s=c2FsdA==,i=0" % nonce,
                    b"r=%s,s=c2FsdA==,i=-1" % nonce,
                    b"r=%s,s=c2FsdA==,i=99999999999999999999" % nonce,
                    b"r=%s,s=,i=1" % nonce,
                    b"m=x,r=%s,s=c2FsdA==,i=1" % nonce,
                    b"e=other-error",
                    self._rng.randbytes(50),
                ]
            )
            self._sock.sendall(authentication(11, challenge))
        else:
            self._say(authentication(11, challenge), "challenge")
        proof = self._receive_message()[1]
        without_proof = proof[: proof.index(b",p=")]
        salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), salt, count)
        key = hmac.digest(salted, b"Server Key", "sha256")
        signature = hmac.digest(key, b",".join([bare, challenge, without_proof]), "sha256")
        final = b"v=" + base64.b64encode(signature)
        if self._plan.stage == "proof" and self._plan.way == "malformed":
            final = self._rng.choice(
                [b"", b"v=", b"v=" + base64.b64encode(bytes(32)), b"v=***", b"e=invalid-proof"]
            )
            self._sock.sendall(authentication(12, final))
        else:
            self._say(authentication(12, final), "proof")

    def _answer(self, kind: bytes, body: bytes) -> None:
        if kind == b"X":
            raise EOFError
        if kind == b"f":
            self._sock.sendall(error("the COPY has failed", "57014") + ready("E"))
        if kind != b"Q":
            return
        query = body.lower()
        self._port.is_cancelled.clear()
        self._queries += 1
        if query.startswith((b"commit", b"rollback")):
            self._say(complete("COMMIT") + ready(), "end")
        elif query.startswith(b"begin"):
            self._say(complete("BEGIN") + ready("T"), "begin")
        elif query.startswith(b"copy"):
            self._say(
                copy("H") + message("d", b"1\n") + message("c") + complete("COPY 1") + ready("T"),
                "query",
            )
        else:
            self._say(description("c") + row("1") + complete("SELECT 1") + ready("T"), "query")

    def _cancel(self, key: bytes) -> None:
        self._rng = random.Random(f"{self._plan.seed}-cancel")
        how = self._plan.on_cancel
        if how == "obey":
            self._port.is_cancelled.set()
        elif how == "silence":
            self._stay_silent()
        elif how == "reset":
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif how == "malformed":
            self._sock.sendall(_malformed(self._rng))
        elif how == "endless":
            while True:
                self._sock.sendall(error("again") * 1000)


class _Port:
    """Where one plan is followed."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.is_cancelled = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.number: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            sock, _ = self._listening.accept()
            threading.Thread(target=_Session(sock, self).run, daemon=True).start()


_contexts: list[ssl.SSLContext] = []


def tls_context() -> ssl.SSLContext:
    """Return the context of a server whose certificate nobody trusts."""
    if not _contexts:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
        _contexts.append(context)
    return _contexts[0]


def _main() -> None:
    tls_context()
    ports: dict[Plan, _Port] = {}
    for line in sys.stdin:
        plan = Plan.of(**json.loads(line))
        if plan not in ports:
            ports[plan] = _Port(plan)
        print(ports[plan].number, flush=True)


# -- For those who need one


class HostileServer:
    """Such a process, for the time of a ``with`` block."""

    def __enter__(self) -> "HostileServer":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.lab.hostile_server"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def port(self, seed: str, **given: Any) -> int:
        """Return the port at which the plan with this seed is followed; see ``Plan.of()``."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"seed": seed, **given}) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def dsn(port: int, **options: str) -> str:
    """Return the connection string for it."""
    options = {"sslmode": "disable", "gssencmode": "disable"} | options
    return f"host=127.0.0.1 port={port} user=u dbname=d password={PASSWORD} " + " ".join(
        f"{name}={value}" for name, value in options.items()
    )


if __name__ == "__main__":
    _main()
