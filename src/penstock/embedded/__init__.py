"""The one package that owns the embedded SQLite files: their schema, their append, their locks.

A file belongs to one producing service and holds the topics it produces beside its documents,
marks, waiting rows, outbox and positions, so that a batch commits all of them at once.
"""
