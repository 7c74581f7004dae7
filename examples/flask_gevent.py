"""A bank in Flask, in greenlets of gevent: psycopg2 waits in gevent's loop.

    export DSN="dbname=postgres"
    gunicorn --chdir examples --worker-class gevent flask_gevent:app

or, on gevent's own server, at the port in PORT: ``python examples/flask_gevent.py``
"""

from gevent import monkey

monkey.patch_all()  # gunicorn has done it already

import os

from flask import Flask, request
from gevent.pywsgi import WSGIServer

import greenwait
from greenwait.gevent import patch_psycopg

DEADLINE = float(os.environ.get("DEADLINE", "2"))  # seconds for a report

patch_psycopg()
pool = greenwait.Pool(os.environ.get("DSN", "dbname=postgres"), max_size=20)
app = Flask(__name__)
with pool.connection() as conn, conn.cursor() as cur:
    cur.execute("create table if not exists accounts (name text primary key, balance int)")

Answer = dict[str, object] | tuple[dict[str, object], int]


@app.post("/accounts/<name>")
def open_account(name: str) -> Answer:
    balance = int(request.args["balance"])
    with pool.connection() as conn, conn.cursor() as cur:
        cur.execute("insert into accounts values (%s, %s)", (name, balance))
    return {"name": name, "balance": balance}


@app.get("/accounts/<name>")
def account(name: str) -> Answer:
    with pool.connection() as conn, conn.cursor() as cur:
        cur.execute("select balance from accounts where name = %s", (name,))
        found = cur.fetchone()
    return {"name": name, "balance": found[0]} if found else ({"error": "not found"}, 404)


@app.post("/transfer")
def transfer() -> Answer:
    """Move an amount, all of it or nothing, while others move theirs."""
    source, target = request.args["source"], request.args["target"]
    amount = int(request.args["amount"])
    with pool.connection() as conn, conn.cursor() as cur:  # one transaction
        names = (source, target)
        cur.execute(
            "select name, balance from accounts where name in %s order by name for update", (names,)
        )
        balance = dict(cur.fetchall())[source]
        if balance < amount:
            return {"error": "not enough"}, 409
        change = "update accounts set balance = balance + %s where name = %s"
        cur.execute(change, (-amount, source))
        cur.execute(change, (amount, target))
    return {"balance": balance - amount}


@app.get("/report")
def report() -> Answer:
    """Ask what takes so many seconds; at the deadline, it is cancelled on the server."""
    with greenwait.timeout(DEADLINE), pool.connection() as conn, conn.cursor() as cur:
        cur.execute(
            "select sum(balance) from accounts, pg_sleep(%s)", (float(request.args["seconds"]),)
        )
        return {"total": int(cur.fetchall()[0][0] or 0)}


@app.errorhandler(greenwait.QueryTimeout)
def too_slow(error: greenwait.QueryTimeout) -> Answer:
    return {"error": "too slow"}, 504


@app.get("/stats")
def stats() -> Answer:
    return {"in_use": pool.stats().in_use}


if __name__ == "__main__":
    WSGIServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), app).serve_forever()
