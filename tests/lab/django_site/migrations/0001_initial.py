"""The table of ``Thing``."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """It makes the table."""

    initial = True
    operations = [
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
                ("number", models.IntegerField(default=0)),
            ],
        )
    ]
