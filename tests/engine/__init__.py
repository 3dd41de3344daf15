"""The engine against its law (DESIGN section 4), on a small service that does as it is told."""
