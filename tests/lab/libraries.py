"""Libraries that query by psycopg2, used as their own pages say, all in one form.

Each is a ``Library`` with a table ``names`` in the database. Nothing of it knows greenwait, but for
the URL of an engine and the two recipes, which are those of docs/orms.md.
"""

import contextlib
import gc
import io
import re
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any
from weakref import WeakSet

import sqlalchemy
from psycopg2.extensions import parse_dsn

__all__ = ["LIBRARIES", "Library", "Pandas"]

_PAGE = Path(__file__).parents[2] / "docs" / "orms.md"
_SLEEP = "select cast({} as int) as answer from pg_sleep({})"
_Block = contextlib.AbstractContextManager[Any]


class Library:
    """What the tests do with each."""

    def __init__(self, dsn: str) -> None:
        raise NotImplementedError

    def sleep(self, seconds: float, answer: int = 0) -> int:
        """Return the answer, after a query that takes so many seconds."""
        raise NotImplementedError

    def transaction(self) -> _Block:
        """Return a block that commits, or rolls back on an exception."""
        raise NotImplementedError

    def add(self, block: Any, name: str) -> None:
        """Insert a row, in the block."""
        raise NotImplementedError

    def names(self, block: Any) -> set[str]:
        """Return those in the table, as the block sees it."""
        raise NotImplementedError

    def lent(self) -> int:
        """Return how many connections are in use."""
        raise NotImplementedError


def _import(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # records' docopt has invalid escape sequences
        return import_module(name)


def _recipe(name: str) -> Any:
    """Return the class that the page has for a library, without what follows it."""
    for block in re.findall(r"^```python\n(.*?)^```$", _PAGE.read_text(), re.DOTALL | re.MULTILINE):
        if f"class Database({name}." in block:
            found: dict[str, Any] = {}
            exec(block.partition("\ndb = ")[0], found)
            return found["Database"]
    raise LookupError(name)


def _url(dsn: str) -> str:
    where = parse_dsn(dsn)
    url = sqlalchemy.URL.create(
        "postgresql+greenwait",
        where.get("user"),
        where.get("password"),
        database=where["dbname"],
        query={"host": where["host"], "port": where["port"]},
    )
    return url.render_as_string(hide_password=False)


def _lent(engine: sqlalchemy.Engine) -> int:
    gc.collect()  # a result of records has a connection until it is freed
    pool = engine.pool
    assert isinstance(pool, sqlalchemy.QueuePool)
    return pool.checkedout()


class Pandas(Library):
    """``read_sql()`` and ``to_sql()``, on an engine and on a connection of it."""

    def __init__(self, dsn: str) -> None:
        self.pandas = _import("pandas")
        self.engine = sqlalchemy.create_engine(_url(dsn), pool_size=20)
        with self.engine.begin() as conn:
            conn.execute(sqlalchemy.text("drop table if exists names"))
            conn.execute(sqlalchemy.text("create table names (name text)"))

    def sleep(self, seconds: float, answer: int = 0) -> int:
        query = sqlalchemy.text(_SLEEP.format(":answer", ":seconds"))
        parameters = {"answer": answer, "seconds": seconds}
        return int(self.pandas.read_sql(query, self.engine, params=parameters)["answer"].sum())

    def transaction(self) -> _Block:
        return self.engine.begin()

    def add(self, block: Any, name: str, method: Any = None) -> None:
        frame = self.pandas.DataFrame({"name": [name]})
        frame.to_sql("names", block, index=False, if_exists="append", method=method)

    def names(self, block: Any) -> set[str]:
        return set(self.pandas.read_sql("names", block)["name"])

    def lent(self) -> int:
        return _lent(self.engine)

    @staticmethod
    def copy(table: Any, conn: Any, keys: list[str], rows: Any) -> None:
        """Insert by COPY: a ``method`` for ``to_sql()``."""
        with conn.connection.cursor() as cur:
            text = io.StringIO("".join("\t".join(row) + "\n" for row in rows))
            cur.copy_expert(f"copy {table.name} ({', '.join(keys)}) from stdin", text)


class Records(Library):
    """``query()`` of a Database, and its ``transaction()``."""

    def __init__(self, dsn: str) -> None:
        self.db = _import("records").Database(_url(dsn), pool_size=20)
        with self.db.transaction() as block:
            block.query("drop table if exists names")
            block.query("create table names (name text)")

    def sleep(self, seconds: float, answer: int = 0) -> int:
        query = _SLEEP.format(":answer", ":seconds")
        return int(self.db.query(query, answer=answer, seconds=seconds).one()["answer"])

    def transaction(self) -> _Block:
        block: _Block = self.db.transaction()
        return block

    def add(self, block: Any, name: str) -> None:
        block.query("insert into names values (:name)", name=name)

    def names(self, block: Any) -> set[str]:
        return {row.name for row in block.query("select name from names")}

    def lent(self) -> int:
        return _lent(self.db.get_engine())


class Dataset(Library):
    """Tables and queries, and ``with db``."""

    def __init__(self, dsn: str) -> None:
        self.db = self.connect(_url(dsn), engine_kwargs={"pool_size": 20})
        with self.db:
            self.db.query("drop table if exists names")
            self.db.create_table("names", primary_id="name", primary_type=self.db.types.text)
            self.db["names"].insert({"name": "it makes the table at the first insert"})
            self.db["names"].delete()

    def connect(self, url: str, **options: Any) -> Any:
        return _import("dataset").connect(url, **options)

    def sleep(self, seconds: float, answer: int = 0) -> int:
        query = _SLEEP.format(":answer", ":seconds")
        (row,) = self.db.query(query, answer=answer, seconds=seconds)
        return int(row["answer"])

    def transaction(self) -> _Block:
        block: _Block = self.db
        return block

    def add(self, block: Any, name: str) -> None:
        self.db["names"].insert({"name": name})

    def names(self, block: Any) -> set[str]:
        return {row["name"] for row in self.db["names"].all()}

    def lent(self) -> int:
        return _lent(self.db.engine)


class DatasetInBlocks(Dataset):
    """The same, with all queries in ``with db``."""

    def sleep(self, seconds: float, answer: int = 0) -> int:
        with self.db:
            return super().sleep(seconds, answer)


class OwnDataset(Dataset):
    """The same, by the recipe."""

    def connect(self, url: str, **options: Any) -> Any:
        return _recipe("dataset")(url, **options)


class Peewee(Library):
    """Models, and ``with db``."""

    def __init__(self, dsn: str) -> None:
        self.peewee = _import("peewee")
        self.db = self.database(dsn)
        peewee: Any = self.peewee

        class Name(peewee.Model):
            name = peewee.TextField(primary_key=True)

            class Meta:
                database = self.db
                table_name = "names"

        self.table: Any = Name
        self.opened: WeakSet[Any] = WeakSet()
        with self.db:
            self.db.drop_tables([Name])
            self.db.create_tables([Name])

    def database(self, dsn: str) -> Any:
        where = parse_dsn(dsn)
        return self.peewee.PostgresqlDatabase(where.pop("dbname"), **where)

    def sleep(self, seconds: float, answer: int = 0) -> int:
        with self.db.connection_context():
            self.opened.add(self.db.connection())
            query = _SLEEP.format("%s", "%s")
            return int(self.db.execute_sql(query, (answer, seconds)).fetchall()[0][0])

    def transaction(self) -> _Block:
        block: _Block = self.db
        return block

    def add(self, block: Any, name: str) -> None:
        self.opened.add(self.db.connection())
        self.table.create(name=name)

    def names(self, block: Any) -> set[str]:
        return {each.name for each in self.table.select()}

    def lent(self) -> int:
        return sum(conn.closed == 0 for conn in self.opened)


class OwnPeewee(Peewee):
    """The same, by the recipe."""

    def database(self, dsn: str) -> Any:
        return _recipe("peewee")(dsn, max_size=20)

    def lent(self) -> int:
        return int(self.db.pool.stats().in_use)


class OwnPeeweeWithoutBlocks(OwnPeewee):
    """The same; it is the job's end that gives the connection back."""

    def sleep(self, seconds: float, answer: int = 0) -> int:
        query = _SLEEP.format("%s", "%s")
        return int(self.db.execute_sql(query, (answer, seconds)).fetchall()[0][0])

    def transaction(self) -> _Block:
        block: _Block = self.db.atomic()
        return block


class Pony(Library):
    """Entities, and ``with db_session``."""

    def __init__(self, dsn: str) -> None:
        self.orm = orm = _import("pony.orm")
        where = parse_dsn(dsn)
        self.db = db = orm.Database("postgres", database=where.pop("dbname"), **where)
        self.opened: WeakSet[Any] = WeakSet()
        entity: Any = db.Entity
        db.on_connect()(lambda db, connection: self.opened.add(connection))

        class Name(entity):
            _table_ = "names"
            name = orm.PrimaryKey(str)

        self.table = Name
        db.generate_mapping(create_tables=True)
        with orm.db_session:
            db.execute("truncate names")
        db.disconnect()

    def sleep(self, seconds: float, answer: int = 0) -> int:
        with self.orm.db_session:
            return int(self.db.select(_SLEEP.format("$answer", "$seconds"))[0])

    def transaction(self) -> _Block:
        block: _Block = self.orm.db_session
        return block

    def add(self, block: Any, name: str) -> None:
        self.table(name=name)
        self.orm.flush()

    def names(self, block: Any) -> set[str]:
        return set(self.db.select("select name from names"))

    def lent(self) -> int:
        gc.collect()  # a greenlet keeps its connection until it is freed
        return sum(conn.closed == 0 for conn in self.opened)


#: By their names.
LIBRARIES: dict[str, type[Library]] = {
    "pandas": Pandas,
    "records": Records,
    "dataset": Dataset,
    "dataset in blocks": DatasetInBlocks,
    "dataset by recipe": OwnDataset,
    "peewee": Peewee,
    "peewee by recipe": OwnPeewee,
    "peewee by recipe without blocks": OwnPeeweeWithoutBlocks,
    "pony": Pony,
}
