"""Every planted mistake is seen, by the rule named for it, within 200 seeds; nothing else is."""

from __future__ import annotations

import pytest

from penstock.sim.case import Case
from penstock.sim.run import house_of, simulate
from tests.sim import mutants_flow, mutants_journal
from tests.sim.mutants import MUTANTS, Mutant

SEEDS_MAX = 200
ORDERS = 25
assert all((mutants_flow, mutants_journal)), "their mutants are in the table by being imported"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_mutant_is_killed_by_its_rule(
    mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant.plant(monkeypatch)
    house, others = house_of(), set[str]()
    for seed in range(SEEDS_MAX):
        found = simulate(Case(seed=seed, orders=ORDERS, slow=mutant.slow), house).violations
        others |= {v.rule for v in found}
        if any(v.rule == mutant.rule for v in found):
            return
    raise AssertionError(f"{mutant.about}: not seen by {mutant.rule}, only by {sorted(others)}")
