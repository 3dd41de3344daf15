"""A library for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.ground import Servers
from tests.moving.library import Library


@pytest.fixture
def destination(kafka: str, dsn: str, prefix: str) -> Iterator[Servers]:
    """Servers where nothing is yet."""
    found = Servers(dsn, kafka, prefix, [])
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def library(tmp_path: Path, destination: Servers) -> Library:
    """Nothing has moved yet."""
    return Library(tmp_path, destination)
