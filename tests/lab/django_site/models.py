"""What the programs save."""

from typing import Any

from django.db import models

_NONE: Any = 0  # Django has no types


class Thing(models.Model):
    """A row."""

    objects: Any
    name = models.CharField(max_length=100, unique=True)
    number = models.IntegerField(default=_NONE)
