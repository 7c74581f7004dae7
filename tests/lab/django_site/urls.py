"""Views, as sites have them."""

from django.urls import path

urlpatterns: list[object] = []
