"""Settings, for ``manage.py``: the database is in GREENWAIT_SITE_DSN."""

import os

from tests.lab.django_site import databases

DATABASES = databases(os.environ["GREENWAIT_SITE_DSN"])
INSTALLED_APPS = ["tests.lab.django_site"]
SECRET_KEY = "not one"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
