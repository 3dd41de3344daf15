"""Assertions of the shipped suites are shown in full, like those of the tests."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("penstock.conformance")
