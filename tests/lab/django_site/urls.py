"""Views, as sites have them: synchronous ones, and what ``greenwait.django.view`` makes of them."""

from typing import Any

from asgiref.sync import iscoroutinefunction
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views import View

import greenwait.aio
import greenwait.django
from tests.lab.django_site.models import Thing


def names() -> list[str]:
    """Return the names that are saved."""
    return sorted(Thing.objects.values_list("name", flat=True))


def backend() -> int:
    """Return the PID of the connection's session."""
    with connection.cursor() as cur:
        cur.execute("select pg_backend_pid()")
        return int(cur.fetchone()[0])


def synchronous(request: HttpRequest, name: str) -> HttpResponse:
    """Save a row, and list all; ``?fails`` raises an exception, ``?seconds=`` waits."""
    Thing.objects.create(name=name)
    with connection.cursor() as cur:
        cur.execute("select pg_sleep(%s)", [request.GET.get("seconds", "0")])
    if "fails" in request.GET:
        raise ValueError("it fails")
    found = {"names": names(), "backend": backend(), "atomic": connection.in_atomic_block}
    return JsonResponse(found)


green = greenwait.django.view(synchronous)


@transaction.non_atomic_requests
@greenwait.django.view
def not_atomic(request: HttpRequest, name: str) -> HttpResponse:
    """Do it outside of ``ATOMIC_REQUESTS``."""
    return synchronous(request, name)


@greenwait.django.view
@transaction.non_atomic_requests
def not_atomic_inside(request: HttpRequest, name: str) -> HttpResponse:
    """Do it outside of ``ATOMIC_REQUESTS``, too."""
    return synchronous(request, name)


@transaction.non_atomic_requests
async def awaits(request: HttpRequest, name: str) -> HttpResponse:
    """Await ``run()`` by itself."""
    return await greenwait.aio.run(synchronous, request, name)


class OfClass(View):
    """A view of a class."""

    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        """Do it."""
        return synchronous(request, name)


of_class: Any = greenwait.django.view(OfClass.as_view())
assert iscoroutinefunction(green)
assert iscoroutinefunction(of_class)

urlpatterns = [
    path("synchronous/<name>", synchronous),
    path("green/<name>", green),
    path("not-atomic/<name>", not_atomic),
    path("not-atomic-inside/<name>", not_atomic_inside),
    path("awaits/<name>", awaits),
    path("of-class/<name>", of_class),
]
