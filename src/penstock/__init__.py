"""Penstock runs an event-driven order pipeline and keeps it healthy."""

__version__ = "0.1.0"
