"""The image, built once for all tests of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.image import Image, require
from tests.servers import absent_is_skipped


@pytest.fixture(scope="session")
def image(run_folder: Path) -> Image:
    """The image as its Dockerfile makes it."""
    with absent_is_skipped():
        require()
        made = Image(run_folder.with_name("image"))
    return made
