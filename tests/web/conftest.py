"""A small library behind a live door."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.web.live import live
from tests.web.small import Library


@pytest.fixture
def library(home: Path) -> Library:
    """The small flow over an empty home."""
    folder = home / "library"
    folder.mkdir()
    return Library(folder)


@pytest.fixture
def door(library: Library) -> Iterator[httpx.Client]:
    """A client of the small flow, served."""
    with live(library.site) as client:
        yield client
