"""The table of ``Thing``."""

from typing import Any, ClassVar

from django.db import migrations, models

_NONE: Any = 0  # Django has no types


class Migration(migrations.Migration):
    """It makes the table."""

    initial = True
    operations: ClassVar[Any] = [
        migrations.CreateModel(
            name="Thing",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100, unique=True)),
                ("number", models.IntegerField(default=_NONE)),
            ],
        )
    ]
