"""Every metric and every route is documented; every documented one exists."""

from __future__ import annotations

import re

import pytest

from penstock.flows.orders.routes import ROUTES
from penstock.limits import (
    BODY_BYTES_MAX,
    BULK_BYTES_MAX,
    HEAD_BYTES_MAX,
    HEAD_SECONDS_MAX,
    IDEMPOTENCY_KEY_CHARS_MAX,
)
from penstock.metrics import METRICS, Metric
from penstock.web.requests import BODY_SECONDS_MAX, BULK_SECONDS_MAX
from penstock.web.routes import OWN_ROUTES
from tests.tidy.tree import ROOT

REFERENCE = ROOT / "docs" / "reference"


def rows(name: str) -> list[list[str]]:
    """The cells of every table row of a page of the reference."""
    lines = (REFERENCE / name).read_text(encoding="utf-8").splitlines()
    return [[c.strip().strip("`") for c in x.strip("|").split("|")] for x in lines if x[:1] == "|"]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_is_documented_as_it_is(metric: Metric) -> None:
    labels = ", ".join(metric.labels) or "–"
    assert [metric.name, metric.kind, metric.unit, labels, metric.meaning] in rows("metrics.md")


def test_no_other_metric_is_documented() -> None:
    text = (REFERENCE / "metrics.md").read_text(encoding="utf-8")
    known = {metric.name for metric in METRICS}
    assert set(re.findall(r"penstock_\w+", text)) <= known


def test_names_keep_the_conventions() -> None:
    for metric in METRICS:
        assert metric.name.startswith("penstock_")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.meaning.endswith(".")


def test_the_routes_documented_are_those_there_are() -> None:
    there = {(r.method, r.path, r.summary) for r in (*ROUTES, *OWN_ROUTES)}
    told = {tuple(row[:3]) for row in rows("api.md") if row[0] in ("GET", "POST", "PUT")}
    assert told == there


def test_the_bounds_documented_are_those_there_are() -> None:
    text = (REFERENCE / "api.md").read_text(encoding="utf-8")
    assert f"{BODY_BYTES_MAX >> 10} KiB ({BULK_BYTES_MAX >> 20} MiB for bulk)" in text
    assert f"{BODY_SECONDS_MAX:g} seconds ({BULK_SECONDS_MAX:g} for bulk)" in text
    assert f"1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable" in text
    assert f"headers have more than {HEAD_BYTES_MAX >> 10} KiB" in text
    assert f"or the headers within {HEAD_SECONDS_MAX:g} |" in text
