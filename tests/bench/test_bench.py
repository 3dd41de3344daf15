"""The bench prints its figures in a stable shape; nothing here is timed."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from penstock.cli.bench import bench

FIELDS = {"name", "value", "unit", "reference", "ratio", "floor", "about"}
SMALL = ("--rounds", "1", "--size", "400", "--requests", "640", "-o", "json")
FIGURES = {
    "flows": {
        "bare_loop": None, "reference_flow": 0.5, "product_flow": 0.35, "product_orders": None
    },
    "append": {"log_append": 0.45},
    "marks": {"mark_at_1e6": 0.8},
    "door": {"durable_post": 0.7},
    "sandboxed": {"sandboxed_orders": None},
    "simulator": {"simulated_records": None},
}


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_a_figure_stands_beside_its_reference_and_floor(name: str) -> None:
    done = CliRunner().invoke(bench, [name, *SMALL], catch_exceptions=False)
    found = json.loads(done.stdout)
    assert {figure["name"]: figure["floor"] for figure in found} == FIGURES[name]
    for figure in found:
        assert figure.keys() >= FIELDS
        assert figure["value"] > 0
        if figure["floor"] is not None:
            assert figure["ratio"] == pytest.approx(
                figure["value"] / figure["reference"], abs=0.01
            )
