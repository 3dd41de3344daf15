"""The simulator's speed: records handled a second on all cores, beside bare transactions."""

from __future__ import annotations

import os
import time

import apsw

from penstock.sim.case import Case
from penstock.sim.run import simulate_all

TRANSACTIONS = 20_000


def handled(seeds: int, orders: int) -> tuple[float, float]:
    """Records handled a second, and seeds a minute, audits included; the processes are started
    before the clock."""
    found = simulate_all([Case(seed=seed, orders=orders) for seed in range(seeds + 1)])
    next(found)
    began, count = time.perf_counter(), 0
    for outcome in found:
        count += outcome.handled
    seconds = time.perf_counter() - began
    return count / seconds, seeds / seconds * 60


def bare() -> float:
    """Transactions a second that insert one row into a table in memory, times the cores."""
    db = apsw.Connection(":memory:")
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)")
    began = time.perf_counter()
    for _ in range(TRANSACTIONS):
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO t(body) VALUES(?)", (b"x" * 300,))
        db.execute("COMMIT")
    return TRANSACTIONS / (time.perf_counter() - began) * (os.cpu_count() or 1)
