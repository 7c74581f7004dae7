"""A newcomer who runs what the README and the docs print, in order, on each CPython here."""
