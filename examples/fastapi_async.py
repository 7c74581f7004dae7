"""A bank in FastAPI, on SQLAlchemy's async engine: its tasks wait in psycopg2.

export DATABASE_URL="postgresql+greenwait_async:///postgres"
uvicorn --app-dir examples fastapi_async:app
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import greenwait

DEADLINE = float(os.environ.get("DEADLINE", "2"))  # seconds for a report

greenwait.install()
engine = create_async_engine(
    os.environ.get("DATABASE_URL", "postgresql+greenwait_async:///postgres"),
    pool_size=20,
    max_overflow=0,
)
Session = async_sessionmaker(engine)


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "accounts"
    name: Mapped[str] = mapped_column(primary_key=True)
    balance: Mapped[int]


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as conn:
        await conn.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


@app.post("/accounts/{name}")
async def open_account(name: str, balance: int) -> dict[str, Any]:
    async with Session.begin() as session:
        session.add(Account(name=name, balance=balance))
    return {"name": name, "balance": balance}


@app.get("/accounts/{name}")
async def account(name: str) -> Response:
    async with Session() as session:
        found = await session.get(Account, name)
    if found is None:
        return JSONResponse({"error": "not found"}, 404)
    return JSONResponse({"name": found.name, "balance": found.balance})


@app.post("/transfer")
async def transfer(source: str, target: str, amount: int) -> Response:
    """Move an amount, all of it or nothing, while others move theirs."""
    query = select(Account).where(Account.name.in_([source, target]))
    async with Session.begin() as session:  # one transaction
        locked = await session.scalars(query.order_by(Account.name).with_for_update())
        accounts = {each.name: each for each in locked}
        if accounts[source].balance < amount:
            return JSONResponse({"error": "not enough"}, 409)
        accounts[source].balance -= amount
        accounts[target].balance += amount
        left = accounts[source].balance
    return JSONResponse({"balance": left})


async def until_hung_up(request: Request, work: Callable[[], Awaitable[Response]]) -> Response:
    """Return what *work* returns, which is cancelled when the client hangs up."""
    response = Response(status_code=499)  # nobody gets it
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(watch)
        response = await work()
        group.cancel_scope.cancel()
    return response


@app.get("/report")
async def report(request: Request, seconds: float) -> Response:
    """Ask what takes so many seconds; at the deadline, it is cancelled on the server."""

    async def total() -> Response:
        query = select(func.sum(Account.balance)).select_from(Account, func.pg_sleep(seconds))
        async with Session() as session:
            try:
                found = await asyncio.wait_for(session.scalar(query), DEADLINE)
            except asyncio.TimeoutError:
                return JSONResponse({"error": "too slow"}, 504)
        return JSONResponse({"total": found or 0})

    return await until_hung_up(request, total)


@app.get("/stats")
async def stats() -> dict[str, Any]:
    pool: Any = engine.pool
    return {"in_use": pool.checkedout()}
