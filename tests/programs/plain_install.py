"""Our plain install() in a program that gevent or eventlet has patched: DSN FRAMEWORK."""

import importlib
import sys
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    if sys.argv[2] == "gevent":
        from gevent import monkey

        monkey.patch_all()
    else:
        import eventlet

        eventlet.monkey_patch()
import greenwait

for _ in range(2):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        greenwait.install()
    print([str(each.message) for each in caught])
adapter = importlib.import_module(f"greenwait.{sys.argv[2]}")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    adapter.patch_psycopg()
print([each for each in caught if each.category is RuntimeWarning])
