"""The laboratory: what can be done to a client, and how a test sees what has come of it.

Networks and hosts: ``fault_proxy``, ``step_proxy``, ``tls_proxy``, ``hosts``, ``hostile_server``.
Servers: ``servers`` starts the one of the run, with ``postgres`` and maybe with ``pgbouncer``,
``freezers`` has its processes stand still, ``asleep`` says when one sleeps in a query.
Interrupts: ``interrupts``, ``struck``, ``random_moments``.
``programs`` runs those of tests/programs.
What has come of it: ``queries``, ``steps``, ``leaks``, ``silence``, ``waiting``.
"""

import pkgutil
import sys

if "pytest" in sys.modules:  # not so in the programs
    sys.modules["pytest"].register_assert_rewrite(
        *(f"{__name__}.{found.name}" for found in pkgutil.iter_modules(__path__))
    )
