"""Views, by both clients and as an ASGI application."""

import django
import pytest

VIEWS = ["synchronous", "green", "not-atomic", "not-atomic-inside", "awaits", "of-class"]
ATOMIC = {"synchronous", "green", "of-class"}
POOL = {"OPTIONS": {"pool": {"max_size": 4}}}


@pytest.fixture(params=[{}, POOL], ids=["no pool", "pool"])
def settings(request):
    return request.param


CLIENTS = """
import asyncio
from django.test import AsyncClient, Client

def by_client(path):
    return Client().get(path)

def by_async_client(path):
    return asyncio.run(AsyncClient().get(path))
"""


@pytest.mark.parametrize("client", ["by_client", "by_async_client"])
@pytest.mark.parametrize("is_atomic", [False, True], ids=["", "ATOMIC_REQUESTS"])
def test_views_by_a_test_client(run_django, settings, client, is_atomic):
    code = f"""
for view in {VIEWS}:
    is_atomic = {is_atomic} and view in {ATOMIC}
    Thing.objects.all().delete()
    response = {client}("/" + view + "/a")
    assert response.status_code == 200, response
    found = response.json()
    assert (found["names"], found["atomic"]) == (["a"], is_atomic), (view, found)
    try:
        {client}("/" + view + "/b?fails")
    except ValueError:
        pass
    else:
        raise AssertionError
    expected = ["a"] if is_atomic else ["a", "b"]
    assert sorted(Thing.objects.values_list("name", flat=True)) == expected, view
print("well")
"""
    settings = settings | {"ATOMIC_REQUESTS": is_atomic}
    assert run_django(CLIENTS + code, settings).strip() == "well"


@pytest.mark.parametrize("client", ["Client", "AsyncClient"])
def test_clients_within_a_test_case(run_django, settings, client):
    """The view sees the test's rows, and the test the view's."""
    wait = "await " if client == "AsyncClient" else ""
    code = f"""
from django.test import TestCase
from tests.lab.django_site.cases import run_cases
class Case(TestCase):
    {"async " if wait else ""}def test_views(self):
        client = {"self.async_client" if wait else "self.client"}
        for number, view in enumerate({VIEWS}):
            before = {wait}{
        "greenwait.aio.run(list, Thing.objects.all())" if wait else "list(Thing.objects.all())"
    }
            response = {wait}client.get("/" + view + "/" + str(number))
            assert len(response.json()["names"]) == len(before) + 1 == number + 1
run_cases(Case)
"""
    assert "OK" in run_django(code, settings)


ASGI = """
import asyncio
from django.core.asgi import get_asgi_application
application = get_asgi_application()

async def request(path, query="", disconnects=None):
    sent = []
    asked = 0
    async def receive():
        nonlocal asked
        asked += 1
        if asked == 1:
            return {"type": "http.request", "body": b""}
        await (disconnects or asyncio.Event()).wait()
        return {"type": "http.disconnect"}
    async def send(message):
        sent.append(message)
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode(),
             "headers": [], "asgi": {"version": "3.0"}}
    await application(scope, receive, send)
    return sent[0]["status"] if sent else None
"""


def test_requests_of_an_asgi_application_run_at_once(run_django, settings):
    code = """
import time
async def main():
    began = time.monotonic()
    statuses = await asyncio.gather(
        *(request(f"/green/{n}", "seconds=0.5") for n in range(4)),
        *(request(f"/awaits/{n + 4}", "seconds=0.5") for n in range(0)),
    )
    assert statuses == [200] * 4, statuses
    assert time.monotonic() - began < 1.5, time.monotonic() - began
asyncio.run(main())
assert Thing.objects.count() == 4
print("well")
"""
    assert run_django(ASGI + code, settings).strip() == "well"


@pytest.mark.skipif(django.VERSION < (5,), reason="Django 4.2 does not notice it")
def test_client_that_disconnects_ends_the_query_and_the_transaction(run_django):
    """Django cancels the request; the pooled connection is kept."""
    code = """
def running():
    with connection.cursor() as cur:
        cur.execute("select count(*) from pg_stat_activity where datname = current_database()"
                    " and query like 'select pg_sleep%%' and state = 'active'")
        return cur.fetchone()[0]

async def main():
    disconnects = asyncio.Event()
    task = asyncio.create_task(request("/green/a", "seconds=60", disconnects))
    while not await greenwait.aio.run(running):
        await asyncio.sleep(0.01)
    disconnects.set()
    assert await task is None
    assert await greenwait.aio.run(running) == 0
asyncio.run(main())
assert Thing.objects.count() == 0
stats = connection.pool_stats()
assert (stats.in_use, stats.discarded) == (1, 0), stats
print("well")
"""
    settings = POOL | {"ATOMIC_REQUESTS": True}
    assert run_django(ASGI + code, settings).strip() == "well"


def test_asynchronous_view_is_refused(run_django):
    code = """
import greenwait.django
async def view(request):
    pass
for wrong in (view, None):
    try:
        greenwait.django.view(wrong)
    except TypeError as exc:
        print(exc)
"""
    assert run_django(code).splitlines() == [
        "this view is asynchronous: await greenwait.aio.run() in it",
        "a view is a function, not 'NoneType'",
    ]


def test_attributes_of_the_view_are_kept(run_django):
    code = """
import greenwait.django
from django.views.decorators.csrf import csrf_exempt
@greenwait.django.view
@csrf_exempt
def view(request):
    "A view."
assert view.csrf_exempt and view.__name__ == "view" and view.__doc__ == "A view."
print("well")
"""
    assert run_django(code).strip() == "well"
