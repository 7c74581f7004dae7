"""A small Django project, for programs in processes of their own."""

import os
import sys
from typing import Any

from psycopg2.extensions import parse_dsn

#: Which backend it is: greenwait's, or Django's own for comparison.
ENGINE = os.environ.get("GREENWAIT_TEST_ENGINE", "greenwait.django")


def databases(dsn: str, **settings: Any) -> dict[str, dict[str, Any]]:
    """Return Django's ``DATABASES`` for the database that *dsn* names."""
    given = parse_dsn(dsn)
    return {
        "default": {
            "ENGINE": ENGINE,
            "NAME": given["dbname"],
            "USER": given.get("user", ""),
            "PASSWORD": given.get("password", ""),
            "HOST": given.get("host", ""),
            "PORT": given.get("port", ""),
            **settings,
        }
    }


def configure(dsn: str, database: dict[str, Any] | None = None, **settings: Any) -> None:
    """Set Django up; *database* are further settings of its database."""
    if ENGINE != "greenwait.django":
        sys.__dict__["modules"]["psycopg"] = None  # it would be preferred

    import django
    from django.conf import settings as django_settings

    django_settings.configure(
        **{
            "DATABASES": databases(dsn, **(database or {})),
            "INSTALLED_APPS": ["tests.lab.django_site"],
            "ROOT_URLCONF": "tests.lab.django_site.urls",
            "SECRET_KEY": "not one",
            "ALLOWED_HOSTS": ["*"],
            "USE_TZ": True,
            "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
            **settings,
        }
    )
    django.setup()
