from collections.abc import Callable, Generator, Iterable
from types import GenericAlias, TracebackType
from typing import Any, ClassVar, Generic, NoReturn, ParamSpec, TypeVar, final

__all__ = [
    "Hub",
    "Job",
    "SharedHub",
    "each_in_shared_hub",
    "hub_here",
    "in_shared_hub",
    "join",
    "raise_first",
]

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

@final
class Job(Generic[_Result]):
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    def done(self) -> bool: ...
    def result(self, timeout: float | None = ...) -> _Result: ...
    def cancel(self) -> bool: ...

@final
class Hub:
    instead: ClassVar[str]
    def __enter__(self) -> Hub: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def spawn(
        self,
        function: Callable[_Parameters, _Result],
        /,
        *args: _Parameters.args,
        **kwargs: _Parameters.kwargs,
    ) -> Job[_Result]: ...
    def sleep(self, seconds: float, /) -> None: ...

@final
class SharedHub:
    def __enter__(self) -> Hub: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

def join(
    hub: Hub, jobs: Iterable[Job[Any]], failure: BaseException | None = ...
) -> BaseException | None: ...
def hub_here() -> Hub | None: ...
def in_shared_hub(function: Callable[[Hub], _Result], /) -> _Result: ...
def each_in_shared_hub(function: Callable[[Hub], Iterable[_Result]], /) -> Generator[_Result]: ...
def raise_first(failures: Iterable[BaseException]) -> NoReturn: ...
