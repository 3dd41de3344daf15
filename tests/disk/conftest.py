"""A folder in memory, where there is one: nothing here has to outlive its test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = "/dev/shm"


@pytest.fixture
def desk() -> Iterator[Path]:
    """An empty folder for homes that are thrown away."""
    place = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place, prefix="penstock-test-") as folder:
        yield Path(folder)
