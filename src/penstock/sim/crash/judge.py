"""The auditor, asked about one home in which everything must have come to rest."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path
from typing import Any

from penstock.assemble import contracts_folder
from penstock.catalog.model import Catalog
from penstock.contracts.snapshot import OWN_FOLDER
from penstock.flow import Flow
from penstock.sim.audit import platform
from penstock.sim.audit.books import Books
from penstock.sim.audit.cluster import Where, books_of_cluster
from penstock.sim.audit.files import Reads, books_of, snapshots
from penstock.sim.audit.report import audit
from penstock.sim.crash.outcome import Violation


class Judge:
    """Asks the platform's rules and the flow's own, of one catalog."""

    def __init__(self, flow: Flow, catalog: Catalog, path: Path | None = None) -> None:
        own = importlib.import_module(flow.audit) if flow.audit else None
        self._rules = (*platform.RULES, *(own.RULES if own else ()))
        self._reads: Reads = platform.with_journal(own.READS if own else {
            s.name: {topic: frozenset(types) for topic, types in s.reads.items()}
            for s in flow.services
        })  # fmt: skip
        self._catalog = catalog
        self._contracts = snapshots((contracts_folder(catalog, path), OWN_FOLDER))

    def judge(
        self, home: Path, journal: Path, where: Where | None = None
    ) -> tuple[Counter[str], list[Violation]]:
        """What each rule examined, and what it found wrong, in a home or in the cluster that it
        lies on. Raises ``Unfit``."""
        report = audit(self._books(home, journal, where), self._rules)
        found = [
            Violation(rule=v.rule, key=v.key, detail=v.detail, records=v.records)
            for v in report.violations
        ]
        return Counter({rule.id: rule.examined for rule in report.rules}), found

    def _books(self, home: Path, journal: Path, where: Where | None) -> Books:
        ages = {t.name: t.retention_seconds for t in self._catalog.topics.values()}
        given: dict[str, Any] = {
            "reads": self._reads, "journal": journal, "contracts": self._contracts,
            "retention": {name: age for name, age in ages.items() if age is not None},
            "buffers": {g.name: g.buffer_seconds for g in self._catalog.gateways.values()},
            "continues": [
                s.name for s in self._catalog.services.values() if s.after_park == "continue"
            ],
        }  # fmt: skip
        return books_of(home, **given) if where is None else books_of_cluster(where, home, **given)
