"""The application in process, once for all of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.fuzz.standing import Standing, standing

# The fuzzer is built for Linux on x86-64; elsewhere the corpus goes through the targets alone.
collect_ignore = [] if find_spec("atheris") else ["test_guided.py"]


@pytest.fixture(scope="session")
def stand() -> Iterator[Standing]:
    """The application with its services."""
    with standing() as made:
        yield made
        flaws = made.flaws()
        assert not flaws, "\n".join(flaws)
