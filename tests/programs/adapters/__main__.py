"""Patch or don't, then call the function that is named, with the arguments that are left."""

import importlib
import sys
import warnings

_, _, framework, case, *arguments = sys.argv
name, _, is_patched = framework.partition(", ")
if name == "eventlet":
    warnings.simplefilter("ignore")  # it warns of itself
    import eventlet

    if is_patched:
        eventlet.monkey_patch()
elif is_patched:
    from gevent import monkey

    monkey.patch_all()
module, _, function = case.partition(".")
getattr(importlib.import_module(f"tests.programs.adapters.{module}"), function)(*arguments)
