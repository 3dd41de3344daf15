"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import unused_port

# Assertions of the shipped suites are shown in full, like those of the tests. The plugins import
# them, so this comes first.
pytest.register_assert_rewrite("penstock.conformance")
pytest_plugins = ["tests.servers", "tests.grounds"]

CHROMIUM = os.environ.get("CHROMIUM") or "/usr/bin/chromium"
CHROMIUM_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Child processes of tests see what this one sees, whoever started it and from where.
_ROOT = Path(__file__).resolve().parent.parent
os.environ["PYTHONPATH"] = os.pathsep.join(
    dict.fromkeys(
        p for p in (f"{_ROOT}/src", str(_ROOT), *os.environ.get("PYTHONPATH", "").split(":")) if p
    )
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty folder for ``PENSTOCK_HOME``."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def free_port() -> int:
    """A loopback port that nobody listens on."""
    return unused_port()


@pytest.fixture(scope="session")
def python() -> str:
    """The interpreter for child processes."""
    return sys.executable


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One Chromium for all browser tests of a process, driven by Playwright's sync API."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A fresh browser page without memory of any other test."""
    context = chromium.new_context()
    yield context.new_page()
    context.close()
