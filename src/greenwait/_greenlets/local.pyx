"""``local()``: attributes of the job, call, greenlet or thread that sets them.

A *scope* is one of these. A job and a call end their own when their function is over: the
greenlet in which it ran goes on with the next one, and a copy of its context may be kept. A
framework tells of the end of its greenlets. A thread's scope is in its dict, which is freed with
it. Any other greenlet's is in the greenlet's dict; it is ended when the greenlet is freed, or
found dead when the next one makes a scope.

A local keeps no scope alive, nor a scope a local: the attributes are the local's, by the number
of the scope.
"""

cimport cython
from cpython.exc cimport PyErr_SetObject, PyErr_WriteUnraisable
from cpython.object cimport PyObject
from cpython.pystate cimport PyThreadState_GetDict

from greenwait._synchronous cimport check_synchronous
from greenwait._ranks cimport higher
from greenwait._system.finalizing cimport Py_IsFinalizing
from greenwait._system.sealed_type cimport seal_type
from greenwait._system.switching cimport current_greenlet
from greenwait._system.threads cimport forks

from weakref import ref

from greenlet import greenlet

__all__ = ["call_in_scope", "local", "scope", "tell_ends"]

cdef extern from *:
    """
    /* The thread's dict, or NULL: PyThreadState_GetDict() would make one for a thread that ends. */
    static PyObject *
    thread_dict_if_any(void)
    {
        return PyThreadState_Get()->dict;
    }
    """
    PyObject* thread_dict_if_any()

cdef object new_reference = ref
cdef object generic_getattribute = object.__getattribute__
cdef object missing = object()

# The key in the dict of a thread, and of a greenlet; no attribute has such a name.
cdef str scope_key = "greenwait's scope"

# A function that is called at the end of a scope may set attributes again; so often.
cdef enum:
    ROUNDS = 4

cdef Py_ssize_t FIRST_PURGE = 16

cdef unsigned long long scopes_made = 0


@cython.auto_pickle(False)
@cython.final
cdef class Scope:
    """A job, call, greenlet or thread that has attributes."""

    def __cinit__(self):
        global scopes_made
        scopes_made += 1
        self.number = scopes_made
        self.forks = forks
        self.locals = []
        self.next_purge = FIRST_PURGE

    def __del__(self):
        if not Py_IsFinalizing() and self.locals:
            failure = self.end()
            if failure is not None:
                raise failure  # to sys.unraisablehook()

    cdef dict attributes_of(self, local one):
        """Return those that it has in a local, to be changed."""
        cdef dict attributes = one.by_scope.get(self.number)
        if attributes is None:
            if len(self.locals) >= self.next_purge:
                self.purge()
            self.locals.append(new_reference(one))
            attributes = one.by_scope[self.number] = {}
        return attributes

    cdef int purge(self) except -1:
        """Forget locals that are gone."""
        self.locals = [reference for reference in self.locals if reference() is not None]
        self.next_purge = max(FIRST_PURGE, 2 * len(self.locals))
        return 0

    cdef object end(self, int rounds=ROUNDS):
        """Drop all of its attributes; return an interrupt that came meanwhile, or None.

        In a forked child, those of the parent are kept: to free them could end what the parent has
        at the server. *rounds*: how often functions are called, which may set others.
        """
        cdef local one
        failure = None
        while self.locals and self.forks == forks:
            references, self.locals = self.locals, []
            for reference in references:
                one = reference()
                if one is not None:
                    failure = either(failure, one.drop(self.number, rounds > 0))
            rounds -= 1
        return failure


@cython.auto_pickle(False)
cdef class Scoped:
    """The base class of what has a scope of its own, in a worker's greenlet."""

    cdef object end_scope(self):
        """End its scope, if it has one; return an interrupt that came meanwhile, or None."""
        if self.scope is None:
            return None
        failure = self.scope.end()
        self.scope = None
        return failure


# -- Workers
#
# The greenlet of a job or a call, of many after each other where it is used again: a new one costs
# more than many a query. It is a plain one, since greenlet checks the class of greenlets some ten
# times in a switch, which takes five times as long for a subclass. What is ours of it is its dict.

@cython.auto_pickle(False)
@cython.final
cdef class Worker(dict):
    """The dict of a worker's greenlet, which has its job or call."""


cdef object plain_greenlet = greenlet
cdef Py_ssize_t dict_offset = greenlet.__dictoffset__
if dict_offset <= 0:  # pragma: no cover
    raise ImportError("greenwait does not know where this greenlet keeps its __dict__")


cdef object new_worker(object function, object parent, WorkerKind kind):
    """Return a greenlet that is a worker."""
    made = plain_greenlet(function, parent)
    make_worker(made, kind)
    return made


cdef Worker make_worker(object one, WorkerKind kind):
    """Make a new greenlet a worker; return its dict."""
    cdef Worker worker = Worker.__new__(Worker)
    worker.kind = kind
    one.__dict__ = worker
    return worker


@cython.auto_pickle(False)
@cython.final
cdef class local:
    """local(*, on_end=None)
--

    Attributes of the job, call, greenlet or thread that sets them, and of no other.

    :param on_end: a function that is called with the dict of these attributes when the job, call,
        greenlet or thread ends; None: they are just dropped.
    :raises TypeError: *on_end* is not callable.

    The job of a hub, of ``gather()`` or ``map()``, the call of ``aio.run()`` or ``trio.run()``, or
    else the greenlet, of gevent and eventlet for instance, or else the thread. It ends when its
    function returns, raises or is cancelled, whoever keeps a copy of its context variables; the
    next job of the same greenlet begins without attributes, and so does a forked child.

    *on_end* runs in the job or call itself, before its result is there; in a greenlet of its own
    after one of gevent's; in a thread that ends. It should not wait for the server: close a
    connection, do not commit. An Exception that it raises goes to ``sys.unraisablehook()``; an
    interrupt is raised by the job or call. It is not called at interpreter exit. A greenlet of no
    framework ends when it is freed, or soon after it is dead.

    It may be used in any thread.
    """

    def __cinit__(self, *args, on_end=None, **unknown):
        if args or unknown:
            raise TypeError(
                "local() takes on_end only, by its name: attributes are set afterwards, "
                "each job, call, greenlet or thread its own"
            )
        if on_end is not None:
            if not callable(on_end):
                raise TypeError(
                    f"on_end must be a function or None, not {type(on_end).__name__!r}"
                )
            check_synchronous("on_end", on_end)
        self.by_scope = {}
        self.on_end = on_end

    def __getattribute__(self, name):
        cdef Scope found = scope_here(False)
        cdef dict attributes = None
        if found is not None:
            attributes = self.by_scope.get(found.number)
        if attributes is not None:
            value = attributes.get(name, missing)
            if value is not missing:
                return value
        return generic_getattribute(self, name)

    def __setattr__(self, name, value):
        scope_here(True).attributes_of(self)[name] = value

    def __delattr__(self, name):
        cdef Scope found = scope_here(False)
        cdef dict attributes = None
        if found is not None:
            attributes = self.by_scope.get(found.number)
        if attributes is None or name not in attributes:
            raise AttributeError(f"this greenwait.local has no attribute {name!r} here")
        del attributes[name]

    cdef object drop(self, object number, bint calls_back):
        """Drop the attributes of a scope; return an interrupt that came meanwhile, or None."""
        cdef dict attributes = self.by_scope.pop(number, None)
        if not attributes or self.on_end is None or not calls_back:
            return None
        try:
            self.on_end(attributes)
        except Exception as exc:
            PyErr_SetObject(type(exc), exc)
            PyErr_WriteUnraisable(self.on_end)
        except BaseException as exc:
            return exc
        return None


def scope() -> int:
    """Return the identity of the job, call, greenlet or thread that runs, an integer.

    :returns: a number that no other one has or had: jobs which run one after another in the same
        greenlet have different ones, and a forked child has another one than its parent.

    It is what SQLAlchemy's ``scoped_session(..., scopefunc=greenwait.scope)`` needs.
    """
    return scope_here(True).number


cdef object either(object first, object second):
    """Return the one of two exceptions that is to be raised; each may be None."""
    return second if first is None else first if second is None else higher(first, second)


cdef Scope scope_here(bint makes_one):
    """Return the scope of the job, call, greenlet or thread that runs; None: it has none yet."""
    cdef Scoped scoped
    cdef Scope found
    here = current_greenlet()
    cdef Worker worker = worker_of(here)
    if worker is not None:
        scoped = worker.execution
        if scoped is None:  # a __del__ runs between two jobs
            return thread_scope(makes_one)
        found = scoped.scope
        if makes_one and (found is None or found.forks != forks):
            found = scoped.scope = Scope.__new__(Scope)
    elif here.parent is None:
        return thread_scope(makes_one)
    else:
        found = here.__dict__.get(scope_key)
        if makes_one and (found is None or found.forks != forks):
            found = new_greenlet_scope(here)
    return None if found is None or found.forks != forks else found


def call_in_scope(context, function):
    """Call the function in the context, with a scope of its own below a job."""
    cdef Scoped outer = need_worker(current_greenlet()).execution
    cdef Scope outer_scope = outer.scope
    cdef object failure = None
    outer.scope = None
    try:
        result = context.run(function)
    except BaseException as exc:
        failure = exc
    failure = either(failure, outer.end_scope())
    outer.scope = outer_scope
    if failure is not None:
        raise failure
    return result


# -- Threads, and greenlets of others

@cython.auto_pickle(False)
@cython.final
@cython.internal
cdef class ThreadScopes:
    """The scopes of a thread and of its greenlets; freed as the thread ends."""

    cdef Scope own
    cdef list greenlets  # weak references of those that have a scope, and may not tell of their end
    cdef Py_ssize_t next_sweep

    def __cinit__(self):
        self.greenlets = []
        self.next_sweep = FIRST_PURGE

    def __del__(self):
        cdef PyObject* thread_dict
        cdef ThreadScopes later
        if Py_IsFinalizing():
            return
        for reference in self.greenlets:
            one = reference()
            if one is not None:
                report(end_greenlet_scope(one))
        if self.own is not None:
            report(self.own.end())
        # What a function has set meanwhile would never be freed.
        thread_dict = thread_dict_if_any()
        later = None if thread_dict is NULL else (<dict>thread_dict).pop(scope_key, None)
        if later is not None and later is not self and later.own is not None:
            later.own.end(0)

    cdef int sweep(self) except -1:
        """End the scopes of greenlets that are dead."""
        references, self.greenlets = self.greenlets, []
        self.next_sweep = 2 * len(references)
        failure = None
        for reference in references:
            one = reference()
            if one is None:
                continue
            if not one.dead:
                self.greenlets.append(reference)
                continue
            failure = either(failure, end_greenlet_scope(one))
        self.next_sweep = max(FIRST_PURGE, 2 * len(self.greenlets))
        if failure is not None:
            raise failure
        return 0


cdef list ends = []


def tell_ends(cls, link):
    """Make the end of each greenlet of a class known.

    *link* is called as ``link(greenlet, function)``, in the greenlet, and calls the function with
    the greenlet at its end.
    """
    if (cls, link) not in ends:
        ends.append((cls, link))


cdef Scope new_greenlet_scope(object here):
    cdef ThreadScopes scopes = thread_scopes()
    cdef Scope made
    if len(scopes.greenlets) >= scopes.next_sweep:
        scopes.sweep()
    made = here.__dict__[scope_key] = Scope.__new__(Scope)
    for cls, link in ends:
        if isinstance(here, cls):
            link(here, _end_greenlet)
            return made
    scopes.greenlets.append(new_reference(here))
    return made


def _end_greenlet(one):
    failure = end_greenlet_scope(one)
    if failure is not None:
        raise failure


cdef object end_greenlet_scope(object one):
    """End a greenlet's scope; return an interrupt that came meanwhile, or None."""
    cdef Scope found = one.__dict__.pop(scope_key, None)
    return None if found is None else found.end()


cdef ThreadScopes thread_scopes():
    cdef dict thread_dict = <dict><PyObject*>PyThreadState_GetDict()
    cdef ThreadScopes found = thread_dict.get(scope_key)
    if found is None:
        found = thread_dict[scope_key] = ThreadScopes.__new__(ThreadScopes)
    return found


cdef Scope thread_scope(bint makes_one):
    cdef PyObject* thread_dict
    cdef ThreadScopes scopes
    if makes_one:
        scopes = thread_scopes()
    else:
        thread_dict = thread_dict_if_any()
        scopes = None if thread_dict is NULL else (<dict>thread_dict).get(scope_key)
        if scopes is None:
            return None
    if scopes.own is not None and scopes.own.forks == forks:
        return scopes.own
    if makes_one:
        scopes.own = Scope.__new__(Scope)
        return scopes.own
    return None


cdef void report(object failure) noexcept:
    """Give an exception, if it is one, to ``sys.unraisablehook()``."""
    if failure is not None:
        raise failure


seal_type(Worker, "a job or a call makes it")
seal_type(Scope, "it is made for what sets an attribute of a local")
seal_type(ThreadScopes, "it is made for the thread that sets an attribute of a local")
