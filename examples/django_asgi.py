"""A bank in Django, on one event loop: its views run the ORM at once, without threads.

export DSN="dbname=postgres"
python examples/django_asgi.py  # once: makes the table
uvicorn --app-dir examples django_asgi:application
"""

import os

import django
from django.conf import settings
from psycopg2.extensions import parse_dsn

import greenwait.aio
import greenwait.django

DEADLINE = float(os.environ.get("DEADLINE", "2"))  # seconds for a report

greenwait.install()
where = parse_dsn(os.environ.get("DSN", "dbname=postgres"))
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "greenwait.django",
            "NAME": where.pop("dbname"),
            "OPTIONS": {**where, "pool": {"max_size": 20}},
        }
    },
    SECRET_KEY=os.environ.get("SECRET_KEY", "an example's"),
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from django.core.asgi import get_asgi_application
from django.db import OperationalError, connection, models, transaction
from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import path


class Account(models.Model):
    name = models.TextField(primary_key=True)
    balance = models.IntegerField()

    class Meta:
        app_label = "bank"


@greenwait.django.view
def account(request: HttpRequest, name: str) -> JsonResponse:
    if request.method == "POST":
        found = Account.objects.create(name=name, balance=int(request.GET["balance"]))
    else:
        found = get_object_or_404(Account, name=name)
    return JsonResponse({"name": found.name, "balance": found.balance})


@greenwait.django.view
def transfer(request: HttpRequest) -> JsonResponse:
    """Move an amount, all of it or nothing, while others move theirs."""
    names, amount = (request.GET["source"], request.GET["target"]), int(request.GET["amount"])
    with transaction.atomic():
        locked = Account.objects.select_for_update().filter(name__in=names).order_by("name")
        source, target = map({each.name: each for each in locked}.__getitem__, names)
        if source.balance < amount:
            return JsonResponse({"error": "not enough"}, status=409)
        source.balance -= amount
        target.balance += amount
        source.save()
        target.save()
    return JsonResponse({"balance": source.balance})


def total(seconds: float) -> int:
    """Return the sum of all accounts, after a query that takes so many seconds."""
    with greenwait.timeout(DEADLINE), connection.cursor() as cur:
        cur.execute("select sum(balance) from bank_account, pg_sleep(%s)", [seconds])
        return int(cur.fetchone()[0] or 0)


async def report(request: HttpRequest) -> JsonResponse:
    """Await synchronous code; when the client hangs up, its query is cancelled on the server."""
    try:
        found = await greenwait.aio.run(total, float(request.GET["seconds"]))
    except OperationalError:  # its cause is greenwait.QueryTimeout
        return JsonResponse({"error": "too slow"}, status=504)
    return JsonResponse({"total": found})


async def stats(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"in_use": connection.pool_stats().in_use})


urlpatterns = [
    path("accounts/<name>", account),
    path("transfer", transfer),
    path("report", report),
    path("stats", stats),
]
application = get_asgi_application()

if __name__ == "__main__":
    with connection.schema_editor() as editor:
        editor.create_model(Account)
