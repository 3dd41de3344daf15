"""A case: everything that decides one simulated run. The same case is the same run, byte for byte.

    Case(seed)                        drawn from the seed: knobs, workload, schedule, faults
    + orders                          how many the workload places
    + keep                            only these visits of the workload (shrinking)
    + fires                           only these firings of faults, by site and visit (shrinking)
    + knobs                           these settings instead of the drawn ones (shrinking)

Dice are split by concern, so that a draw more in one does not shift the others. They are seeded
by text, which no PYTHONHASHSEED reaches.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from msgspec import Struct

ORDERS_DEFAULT = 50
Dice = Callable[[], float]  # from 0 to below 1


class Knobs(Struct, frozen=True, kw_only=True):
    """The capacities and the set-up of one run.

    ``direct`` lists the topics that their producer appends in its own commit; the others leave by
    outbox and courier. ``workers`` is members per service, ``batch`` records per turn. ``faults``
    maps each class that is on to its rate. ``retention_seconds`` 0 keeps everything.
    ``latency_ms`` is the longest call of a gateway, ``pace_ms`` the longest that a process waits
    for its turn.
    """

    partitions: int = 2
    batch: dict[str, int] = {}
    workers: dict[str, int] = {}
    direct: tuple[str, ...] = ()
    faults: dict[str, float] = {}
    retention_seconds: float = 0.0
    attempts: int = 5
    latency_ms: int = 20
    pace_ms: int = 0


class Case(Struct, frozen=True, kw_only=True):
    """One run; see the module. ``slow`` runs it on the embedded files instead of in memory."""

    seed: int
    orders: int = ORDERS_DEFAULT
    slow: bool = False
    keep: tuple[int, ...] | None = None
    fires: tuple[tuple[str, int], ...] | None = None
    knobs: Knobs | None = None


def dice(case: Case, concern: str) -> Random:
    """The dice of one concern of a case."""
    return Random(f"{case.seed}/{concern}")


def pick(roll: Dice, choices: tuple[Any, ...]) -> Any:
    """One of the choices."""
    return choices[int(roll() * len(choices))]
