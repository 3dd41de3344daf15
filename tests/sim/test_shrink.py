"""A failure is made small and written down as a test that stands alone."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from penstock.sim.case import Case
from penstock.sim.run import house_of, simulate
from penstock.sim.shrink import pinned, regression, shrink, smaller
from penstock.sim.world import knobs_of_case
from tests.sim.mutants_flow import cancel_after_the_handover

RULE = "I5"


def breaks(case: Case) -> bool:
    """Is the rule of the planted mistake broken?"""
    return any(v.rule == RULE for v in simulate(case, house_of()).violations)


def loaded(path: Path) -> ModuleType:
    """The module in a file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_failure_becomes_a_small_test_that_fails_until_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        cancel_after_the_handover(patch)
        # (From 30 on: an earlier one that fails has no small run that fails alike.)
        case = next(c for c in (Case(seed=n, orders=25) for n in range(30, 200)) if breaks(c))
        knobs = knobs_of_case(case, house_of().catalog)
        fewer = smaller(case, knobs, breaks)
        assert fewer.orders < case.orders
        small = shrink(pinned(simulate(fewer, house_of()), knobs), breaks, tries=60)
        assert breaks(small)
        assert len(small.keep or ()) <= 8
        found = simulate(small, house_of()).violations
        detail = next(v.detail for v in found if v.rule == RULE)
        path = tmp_path / "test_kept.py"
        path.write_text(regression(small, RULE, detail))
        kept = loaded(path)
        assert small == kept.CASE
        test = next(value for name, value in vars(kept).items() if name.startswith("test_"))
        with pytest.raises(AssertionError, match=RULE):
            test()
    test()
