"""Django's classes, with types of what is used of them: Django itself has none."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["VERSION", "DjangoCreation", "DjangoWrapper"]

#: Django's, such as (5, 2, 1, "final", 0).
VERSION: tuple[Any, ...] = import_module("django").VERSION

if TYPE_CHECKING:

    class DjangoCreation:
        """The base class of ``DatabaseCreation``."""

        connection: Any

        def _destroy_test_db(self, test_database_name: str, verbosity: int) -> Any: ...
        def _clone_test_db(self, suffix: str, verbosity: int, keepdb: bool = False) -> Any: ...

    class DjangoWrapper:
        """The base class of ``DatabaseWrapper``."""

        alias: str
        connection: Any
        in_atomic_block: bool
        settings_dict: dict[str, Any]
        wrap_database_errors: Any

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def get_connection_params(self) -> dict[str, Any]: ...
        def get_new_connection(self, conn_params: dict[str, Any]) -> Any: ...
        def validate_thread_sharing(self) -> None: ...
        def savepoint(self) -> Any: ...
        def savepoint_commit(self, sid: str) -> None: ...
        def is_usable(self) -> bool: ...
        def close(self) -> None: ...
        def _close(self) -> None: ...
else:
    _FOLDER = "django.db.backends.postgresql"
    DjangoCreation = import_module(f"{_FOLDER}.creation").DatabaseCreation
    DjangoWrapper = import_module(f"{_FOLDER}.base").DatabaseWrapper
