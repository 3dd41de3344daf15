"""Penstock's tests; run them with ``./test``."""
