"""The figures of ``penstock bench``: each with its reference from the same run, and its floor.

Figures and references alternate, medians of the rounds are compared, ratios are written so that
more is better. A floor is what the figure must not fall below.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from msgspec import Struct

from penstock.bench import bare, harness, http, product, reference, sandboxed, simulated, storage

BARE_RECORD_BYTES = 700  # what the bare loop writes for one of its records


class Figure(Struct, frozen=True, kw_only=True):
    """One measured figure. ``reference`` is in the same unit; ``floor`` bounds ``ratio``."""

    name: str
    value: float
    unit: str
    reference: float | None = None
    ratio: float | None = None
    floor: float | None = None
    about: str = ""
    detail: dict[str, float] = {}


class Plan(Struct, frozen=True, kw_only=True):
    """How much to measure, and where."""

    folder: Path
    size: int = 40_000
    rounds: int = 3
    requests: int = 8_000
    sandboxed_size: int = 300
    say: Callable[[str], None] = lambda text: None

    def fresh(self, name: str) -> Path:
        """An empty place under the folder."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        return path


def _judged(
    name: str, value: float, unit: str, against: float, floor: float | None, about: str,
    detail: dict[str, float] | None = None,
) -> Figure:  # fmt: skip
    return Figure(
        name=name, value=round(value, 1), unit=unit, reference=round(against, 1),
        ratio=round(value / against, 3), floor=floor, about=about, detail=detail or {},
    )


def flows(plan: Plan) -> Iterator[Figure]:
    """The bare loop, the reference flow and the product's flow, in turn."""
    bares: list[float] = []
    ours: list[harness.Measured] = []
    products: list[harness.Measured] = []
    for n in range(plan.rounds):
        plan.say(f"round {n + 1} of {plan.rounds}: bare loop, reference flow, product's flow")
        bares.append(bare.run(plan.fresh("bare"), plan.size))
        ours.append(reference.run(plan.fresh("reference"), plan.size))
        products.append(product.run(plan.fresh("product"), plan.size // 2))
    base = median(bares)
    raw = storage.raw_records(plan.fresh("raw"), bare.BATCH, BARE_RECORD_BYTES)
    yield _judged(
        "bare_loop", base * 6, "records/s", raw, None,
        "the raw reference itself, beside a file's append + fdatasync of as many bytes",
    )
    yield _judged(
        "reference_flow", median(plan.size / m.seconds for m in ours), "orders/s", base, 0.5,
        "the six-record order on the engine, beside the bare loop", _detail(ours),
    )
    handled = median(sum(m.handled.values()) / m.seconds for m in products)
    yield _judged(
        "product_flow", handled, "records/s", base * 6, 0.35,
        "the product's flow in bulk, gateways in process, beside the bare loop's records",
        _detail(products),
    )
    ended = median(plan.size // 2 / m.seconds for m in products)
    yield Figure(
        name="product_orders", value=round(ended, 1), unit="orders/s", about="the same, in orders"
    )


def _detail(runs: list[harness.Measured]) -> dict[str, float]:
    """CPU a record and the largest process, of the middle run."""
    middle = sorted(runs, key=lambda m: m.seconds)[len(runs) // 2]
    handled = sum(middle.handled.values())
    return {
        "cpu_us_per_record": round(middle.cpu_seconds / handled * 1e6, 1),
        "process_mb_max": max(middle.memory_mb.values()),
        "process_mb_min": min(middle.memory_mb.values()),
    }


def appends(plan: Plan) -> Iterator[Figure]:
    """The log's append beside a raw file."""
    plan.say("log append beside a raw file")
    value, raw = storage.append(plan.fresh("append"))
    yield _judged(
        "log_append", value, "records/s", raw, 0.45,
        "100 records over 4 partitions, durable, beside a file's append + fdatasync",
    )


def marks(plan: Plan) -> Iterator[Figure]:
    """A mark among a million beside one among ten thousand."""
    plan.say("marks among a million beside ten thousand")
    value, few = storage.marks(plan.fresh("marks"))
    yield _judged(
        "mark_at_1e6", value, "marks/s", few, 0.8, "a mark at 1e6 stored ones beside one at 1e4"
    )


def door(plan: Plan) -> Iterator[Figure]:
    """Durable requests beside the same stack in memory."""
    durable, memory = [], []
    for n in range(plan.rounds):
        plan.say(f"round {n + 1} of {plan.rounds}: durable POST, and the same in memory")
        durable.append(http.measure(plan.fresh("door"), True, plan.requests))
        memory.append(http.measure(plan.fresh("door"), False, plan.requests))
    yield _judged(
        "durable_post", median(durable), "requests/s", median(memory), 0.7,
        "POST at 64 connections, durable before the reply, beside the same stack in memory",
    )


def outside(plan: Plan) -> Iterator[Figure]:
    """The whole product with its sandboxes in their own processes, through HTTP."""
    plan.say("everything in its own process, through HTTP")
    value = sandboxed.measure(plan.fresh("sandboxed"), plan.sandboxed_size)
    yield Figure(
        name="sandboxed_orders", value=round(value, 1), unit="orders/s",
        about="through HTTP with the sandboxes in their own processes, placed to ended",
    )


def simulator(plan: Plan) -> Iterator[Figure]:
    """The fast mode of `penstock sim`, audits included."""
    plan.say("simulated seeds on all cores")
    raw = simulated.bare()
    value, seeds = simulated.handled(max(2, plan.size // 200), 50)
    yield _judged(
        "simulated_records", value, "records/s", raw, None,
        "handled in simulation on all cores, faults and audits included, beside bare transactions "
        "in memory; 12,000 is the floor on two cores",
        {"seeds_per_minute": round(seeds, 1)},
    )


FIGURES: dict[str, Callable[[Plan], Iterator[Figure]]] = {
    "flows": flows, "append": appends, "marks": marks, "door": door, "sandboxed": outside,
    "simulator": simulator,
}
