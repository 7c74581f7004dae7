"""What the programs save."""

from typing import Any

from django.db import models


class Thing(models.Model):
    """A row."""

    objects: Any
    name = models.CharField(max_length=100, unique=True)
    number = models.IntegerField(default=0)
