"""The rules that hold for every flow, in the order of their ids, and the platform's own reader."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.sim.audit import (
    rules_bounds,
    rules_cause,
    rules_dead,
    rules_handling,
    rules_journal,
    rules_log,
    rules_outbox,
    rules_store,
)
from penstock.sim.audit.books import Rule

REQUESTS = frozenset({"deadletter.retry_requested", "deadletter.discard_requested"})
LEAVING = frozenset({"dead.retried", "dead.discarded"})


def with_journal(
    reads: Mapping[str, Mapping[str, frozenset[str]]],
) -> dict[str, Mapping[str, frozenset[str]]]:
    """What services read, and what the platform's service ``journal`` reads: how every dead letter
    left, and its own wakes."""
    dead = {f"{service}.dead": LEAVING for service in (*reads, "journal")}
    own = {**dead, "journal.answers": frozenset({"wake"}), "journal": REQUESTS}
    return {**reads, "journal": own}


RULES: tuple[Rule, ...] = tuple(
    sorted(
        (
            *rules_log.RULES, *rules_cause.RULES, *rules_store.RULES, *rules_outbox.RULES,
            *rules_dead.RULES, *rules_handling.RULES, *rules_bounds.RULES,
            *rules_journal.RULES,
        ),
        key=lambda rule: int(rule.id[1:]),
    )
)  # fmt: skip
