"""The rules that hold for every flow, in the order of their ids."""

from __future__ import annotations

from penstock.sim.audit import (
    rules_bounds,
    rules_cause,
    rules_dead,
    rules_handling,
    rules_log,
    rules_outbox,
    rules_store,
)
from penstock.sim.audit.books import Rule

RULES: tuple[Rule, ...] = tuple(
    sorted(
        (
            *rules_log.RULES, *rules_cause.RULES, *rules_store.RULES, *rules_outbox.RULES,
            *rules_dead.RULES, *rules_handling.RULES, *rules_bounds.RULES,
        ),
        key=lambda rule: int(rule.id[1:]),
    )
)  # fmt: skip
