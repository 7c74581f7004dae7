"""Can a greenlet call this: is it a function, and a synchronous one?"""

from functools import partial
from types import BuiltinFunctionType, CoroutineType, FunctionType, MethodType

__all__ = ["check_synchronous"]

cdef extern from *:
    """
    static int is_async_function(PyObject* function) {
        PyCodeObject* code = (PyCodeObject*)PyFunction_GetCode(function);
        return (code->co_flags & (CO_COROUTINE | CO_ASYNC_GENERATOR)) != 0;
    }
    """
    bint is_async_function(object function) noexcept

cdef type function_type = FunctionType
cdef type method_type = MethodType
cdef type partial_type = partial
cdef tuple NEVER_ASYNC = (type, BuiltinFunctionType)


cpdef int check_synchronous(str caller, object given) except -1:
    """Raise TypeError unless *given* can be called, and need not be awaited.

    :param caller: who is to call it, for the message.
    """
    function = given
    if not callable(function):
        raise TypeError(f"{caller} takes a function, not {type(given).__name__!r}{advice(given)}")
    while True:
        if type(function) is partial_type:
            function = function.func
        elif type(function) is method_type:
            function = function.__func__
        elif type(function) is not function_type and not isinstance(function, NEVER_ASYNC):
            method = getattr(type(function), "__call__", None)
            if type(method) is not function_type:
                return 0
            function = method
        else:
            break
    if type(function) is function_type and is_async_function(function):
        raise TypeError(
            f"{caller} takes a synchronous function, and {name_of(given)} is an async one, which "
            "nothing would await: await it in asyncio, or have a synchronous function pass its "
            "coroutine to greenwait.aio.await_()"
        )
    return 0


cdef str name_of(object function):
    return f"{getattr(function, '__qualname__', None) or repr(function)}()"


cdef str advice(object given):
    if isinstance(given, (list, tuple, set)):
        return ": pass its functions one by one, as in gather(*functions)"
    if isinstance(given, CoroutineType):
        return ": pass the function that makes it, if that is synchronous, or await it in asyncio"
    return ""
