"""Is there a psycopg2 that greenwait can work with?

Imported first by every module that needs psycopg2, so that a missing or an
old one is reported once, in words that say what to install.
"""

__all__ = ["OLDEST", "version_info"]

OLDEST = (2, 9)

_HOW_TO_INSTALL = (
    "install it with \"pip install 'greenwait[binary]'\" (psycopg2-binary, no compiler needed) "
    "or \"pip install 'greenwait[psycopg2]'\" (built from source, with the system's libpq)"
)

try:
    import psycopg2
except ModuleNotFoundError as exc:
    if exc.name != "psycopg2":
        raise
    raise ImportError(f"greenwait needs psycopg2: {_HOW_TO_INSTALL}", name="psycopg2") from exc


def version_info(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a psycopg2 version: ``"2.9.13 (dt dec pq3)"`` is (2, 9, 13)."""
    release = version.split()[0]
    return tuple(int(part) for part in release.split(".") if part.isdigit())


if version_info(psycopg2.__version__) < OLDEST:
    raise ImportError(
        f"greenwait needs psycopg2 >= 2.9, and this is {psycopg2.__version__.split()[0]}: "
        f"{_HOW_TO_INSTALL}",
        name="psycopg2",
    )
