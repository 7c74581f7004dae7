"""Settings, for ``manage.py``: the database is in GREENWAIT_SITE_DSN."""

import os

import greenwait
from tests.lab.django_site import databases

greenwait.install()

DATABASES = databases(os.environ["GREENWAIT_SITE_DSN"])
INSTALLED_APPS = ["tests.lab.django_site"]
SECRET_KEY = "not one"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
