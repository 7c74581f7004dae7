"""A program of gevent's or eventlet's: one function of these modules, as the main greenlet.

``adapters/__main__.py DSN FRAMEWORK CASE [ARGUMENT ...]`` is run by the tests in tests/adapters; a
case is named by its module and function. Each imports from ``framework`` what it calls, which has
the same names for both frameworks.
"""
