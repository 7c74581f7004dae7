"""The public ``__module__`` of exported objects: the module that users import them from."""

from collections.abc import Iterable

__all__ = ["publish"]

def publish(module: str, objects: Iterable[object]) -> None:
    """Make *module* the ``__module__`` of classes and functions: in tracebacks, pickles, help().

    :param module: the module's name.
    :param objects: its exports; those that are neither classes nor functions are left alone.
    """
