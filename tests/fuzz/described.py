"""The API as its document describes it, for generating requests."""

from __future__ import annotations

import os
from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case, GenerationMode

from penstock.catalog.load import load_catalog
from penstock.flows.orders import FLOW
from penstock.web.openapi import openapi
from tests.fuzz.standing import GROUND

CASES = int(os.environ.get("FUZZ_CASES", "0"))  # instead of CI's number, and others each time
SCHEMA = schemathesis.openapi.from_dict(openapi(FLOW, load_catalog()))
SCHEMA.app = GROUND


def profile(cases: int, **more: Any) -> settings:
    """So many cases, the same ones in every run; or as many as asked for, and others each time."""
    return settings(
        max_examples=CASES or cases, derandomize=not CASES, database=None, deadline=None,
        suppress_health_check=list(HealthCheck), **more,
    )  # fmt: skip


def is_positive(case: Case) -> bool:
    """Whether the case means to fit the document."""
    return case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE


def sane(case: Case) -> None:
    """Integers as the door wants them, where the case means to be valid."""
    if is_positive(case):
        case.body = whole(case.body)


def whole(value: Any) -> Any:
    """The value with 3.0 as 3: JSON Schema takes both for an integer, the door one of them."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: whole(inner) for name, inner in value.items()}
    return [whole(inner) for inner in value] if isinstance(value, list) else value
