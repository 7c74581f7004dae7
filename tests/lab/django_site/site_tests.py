"""Tests of the site, which ``manage.py test`` runs in several processes."""

from django.test import TestCase, TransactionTestCase

import greenwait
from tests.lab.django_site.models import Thing


class First(TestCase):
    """Rows of a test."""

    def test_jobs(self) -> None:
        """Jobs see them."""
        Thing.objects.create(name="a")
        assert greenwait.gather(Thing.objects.count) == [1]


class Second(TestCase):
    """The same in another process."""

    def test_jobs(self) -> None:
        """Jobs see none of the other's."""
        assert greenwait.gather(Thing.objects.count) == [0]


class Third(TransactionTestCase):
    """Rows that are committed."""

    def test_jobs(self) -> None:
        """Jobs save them."""
        greenwait.gather(lambda: Thing.objects.create(name="a"))
        assert Thing.objects.count() == 1
