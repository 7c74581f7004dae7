"""A bank in FastAPI, on synchronous sessions of SQLAlchemy, on one event loop and without threads.

export DATABASE_URL="postgresql+greenwait:///postgres"
uvicorn --app-dir examples fastapi_sync:app
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import create_engine, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

import greenwait.aio

DEADLINE = float(os.environ.get("DEADLINE", "2"))  # seconds for a report
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

greenwait.install()
engine = create_engine(
    os.environ.get("DATABASE_URL", "postgresql+greenwait:///postgres"),
    pool_size=20,
    max_overflow=0,
)
Session = sessionmaker(engine)
app = FastAPI()


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "accounts"
    name: Mapped[str] = mapped_column(primary_key=True)
    balance: Mapped[int]


Base.metadata.create_all(engine)


def on_loop(
    function: Callable[Parameters, Result],
) -> Callable[Parameters, Awaitable[Result]]:
    """Let a synchronous function run in the event loop's thread, not in one of a thread pool."""

    @wraps(function)
    async def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return await greenwait.aio.run(partial(function, *args, **kwargs))

    return run


@app.post("/accounts/{name}")
@on_loop
def open_account(name: str, balance: int) -> dict[str, Any]:
    with Session.begin() as session:
        session.add(Account(name=name, balance=balance))
    return {"name": name, "balance": balance}


@app.get("/accounts/{name}")
@on_loop
def account(name: str) -> Response:
    with Session() as session:
        found = session.get(Account, name)
    if found is None:
        return JSONResponse({"error": "not found"}, 404)
    return JSONResponse({"name": found.name, "balance": found.balance})


@app.post("/transfer")
@on_loop
def transfer(source: str, target: str, amount: int) -> Response:
    """Move an amount, all of it or nothing, while others move theirs."""
    query = select(Account).where(Account.name.in_([source, target]))
    with Session.begin() as session:  # one transaction
        locked = session.scalars(query.order_by(Account.name).with_for_update())
        accounts = {each.name: each for each in locked}
        if accounts[source].balance < amount:
            return JSONResponse({"error": "not enough"}, 409)
        accounts[source].balance -= amount
        accounts[target].balance += amount
        left = accounts[source].balance
    return JSONResponse({"balance": left})


async def until_hung_up(request: Request, work: Callable[[], Awaitable[Response]]) -> Response:
    """Return what *work* returns, which is cancelled when the client hangs up."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        answer.cancel()

    answer = asyncio.ensure_future(work())
    watching = asyncio.ensure_future(watch())
    try:
        return await answer
    except asyncio.CancelledError:
        if not watching.done():
            raise
        return Response(status_code=499)  # nobody gets it
    finally:
        watching.cancel()


@app.get("/report")
async def report(request: Request, seconds: float) -> Response:
    """Ask what takes so many seconds; at the deadline, it is cancelled on the server."""

    @on_loop
    def total() -> Response:
        query = select(func.sum(Account.balance)).select_from(Account, func.pg_sleep(seconds))
        try:
            with greenwait.timeout(DEADLINE), Session() as session:
                return JSONResponse({"total": session.scalar(query) or 0})
        except OperationalError as exc:
            if not isinstance(exc.orig, greenwait.QueryTimeout):
                raise
            return JSONResponse({"error": "too slow"}, 504)

    return await until_hung_up(request, total)


@app.get("/stats")
async def stats() -> dict[str, Any]:
    pool: Any = engine.pool
    return {"in_use": pool.checkedout()}
