"""The figures of ``penstock bench --backend kafka``: a real broker and a real database.

Beside raw loops over the same records, partitions and durability, and beside the same orders as
teams usually build them. CPU and memory are those of the clients, not of the servers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

from msgspec import Struct

from penstock.bench import kafka_flow, kafka_runs
from penstock.bench.figures import Figure
from penstock.bench.ground import Ground
from penstock.bench.kafka_runs import Lot, Side

STATEMENTS_MAX = 3


class Profile(Struct, frozen=True, kw_only=True):
    """How much to measure: records of the log and of the effect, orders of the flows."""

    records: int
    effects: int
    orders: int
    peer_orders: int
    product_orders: int
    rounds: int
    warm_records: int
    warm_times: int


SHORT = Profile(
    records=4000, effects=3000, orders=300, peer_orders=20, product_orders=50, rounds=1,
    warm_records=2000, warm_times=1,
)  # fmt: skip
FULL = Profile(
    records=200_000, effects=100_000, orders=20_000, peer_orders=400, product_orders=4000,
    rounds=3, warm_records=200_000, warm_times=5,
)  # fmt: skip


class Plan(Struct, frozen=True, kw_only=True):
    """What is measured where."""

    ground: Ground
    folder: Path
    profile: Profile
    say: Callable[[str], None] = lambda text: None

    def home(self, name: str, number: int) -> Path:
        """An empty home for a run."""
        return self.folder / f"{name}-{number}"

    def rounds(self, what: str) -> Iterator[int]:
        """The numbers of the rounds, each told; what it left is gone before the next."""
        for n in range(self.profile.rounds):
            self.say(f"round {n + 1} of {self.profile.rounds}: {what}")
            yield n
            self.ground.clear()


def _figure(
    name: str, unit: str, ours: Sequence[Side], raw: Sequence[Side], floor: float, about: str,
    **more: float,
) -> Figure:  # fmt: skip
    """Medians of both sides; the ratio is that of the rates."""
    value, against = median(s.rate for s in ours), median(s.rate for s in raw)
    return Figure(
        name=name, value=round(value, 1), unit=unit, reference=round(against, 1),
        ratio=round(value / against, 3), floor=floor, about=about,
        detail={**spent(ours), **{f"reference_{k}": v for k, v in spent(raw).items()}, **more},
    )


def spent(sides: Sequence[Side]) -> dict[str, float]:
    """CPU of a record or an order, and memory of all processes together, in the middle."""
    return {
        "cpu_us": round(median(s.cpu_us for s in sides), 1),
        "pss_mb": round(median(s.pss_mb for s in sides), 1),
    }


def log(plan: Plan) -> Iterator[Figure]:
    """Consume, decide, produce beside a raw loop."""
    careful: list[Side] = []
    careless: list[Side] = []
    ours: list[Side] = []
    sqlite: list[Side] = []
    for n in plan.rounds("raw consume(1000) loops, and a worker with its courier"):
        lot = Lot(plan.ground, plan.home("log", n), "log", plan.profile.records)
        sides = careful, careless, ours, sqlite
        for found, side in zip(sides, kafka_runs.copying(lot), strict=True):
            found.append(side)
    value, fastest = median(s.rate for s in ours), median(s.rate for s in careless)
    over_sqlite = median(s.rate for s in sqlite)
    yield _figure(
        "kafka_log", "records/s", ours, careful, 0.30,
        "consume, decide, produce, the store in memory, beside a raw consume(1000) loop that "
        "writes records of the same bytes and commits when they are durable",
        careless=round(fastest, 1), ratio_careless=round(value / fastest, 3),
        over_sqlite=round(over_sqlite, 1),
    )


def effect(plan: Plan) -> Iterator[Figure]:
    """Kafka to PostgreSQL to Kafka beside one set-based statement a batch."""
    raw: list[Side] = []
    ours: list[Side] = []
    for n in plan.rounds("a loop with one statement a batch, and worker and courier"):
        lot = Lot(plan.ground, plan.home("effect", n), "effect", plan.profile.effects)
        for found, side in zip((raw, ours), kafka_runs.tallying(lot), strict=True):
            found.append(side)
    yield _figure(
        "kafka_effect", "records/s", ours, raw, 0.4,
        "Kafka to PostgreSQL to Kafka, every effect counted once, beside a loop with one "
        "set-based statement a batch",
    )
    yield statements(max(s.statements for s in ours), "of a worker, every effect counted once")


def statements(found: float, about: str) -> Figure:
    """Statements a batch; the ratio is that of the bound to them, so that more is better."""
    return Figure(
        name="statements_a_batch", value=round(found, 3), unit="statements",
        reference=STATEMENTS_MAX, ratio=round(STATEMENTS_MAX / max(found, 1e-9), 3), floor=1.0,
        about=f"{about}; at most {STATEMENTS_MAX}",
    )


def peer(plan: Plan) -> Iterator[Figure]:
    """Whole orders beside FastStream and SQLAlchemy."""
    lacking = kafka_flow.missing()
    if lacking:
        plan.say(
            f"left out: kafka_orders needs {' and '.join(lacking)} beside it. Install them: "
            f"{kafka_flow.INSTALL}"
        )
        return
    ours, theirs, sent = [], [], []
    profile, ground = plan.profile, plan.ground
    for n in plan.rounds("whole orders by penstock, and by FastStream and SQLAlchemy"):
        ours.append(kafka_flow.reference(ground, plan.home("orders", n), profile.orders))
        theirs.append(kafka_flow.peer(ground, profile.peer_orders, outbox=True))
        sent.append(kafka_flow.peer(ground, profile.peer_orders, outbox=False))
    rate, published = (median(s.rate for s in found) for found in (ours, sent))
    yield _figure(
        "kafka_orders", "orders/s", ours, theirs, 30,
        "the six-record order, beside FastStream and SQLAlchemy's ORM, a transaction a message, "
        "with an outbox",
        without_outbox=round(published, 1), ratio_without_outbox=round(rate / published, 3),
        statements_a_batch=round(max(s.statements for s in ours), 3),
    )


def product(plan: Plan) -> Iterator[Figure]:
    """The product's own flow on a cluster."""
    ours = []
    for n in plan.rounds("the product's flow, gateways in process"):
        home = plan.home("product", n)
        ours.append(kafka_flow.product(plan.ground, home, plan.profile.product_orders))
    yield Figure(
        name="kafka_product_orders", value=round(median(s.rate for s in ours), 1),
        unit="orders/s", about="the product's flow in bulk, gateways in process",
        detail=spent(ours),
    )


FIGURES: dict[str, Callable[[Plan], Iterator[Figure]]] = {
    "log": log, "effect": effect, "peer": peer, "product": product,
}


def measure(plan: Plan, names: Sequence[str]) -> Iterator[Figure]:
    """The figures named, all where none is, on a broker that is warm."""
    profile = plan.profile
    plan.say("warming the broker up")
    kafka_runs.warm(
        plan.ground, plan.home("warm", 0), profile.warm_records, profile.warm_times
    )
    plan.ground.clear()
    for name in names or tuple(FIGURES):
        for figure in FIGURES[name](plan):
            beside = f", {figure.ratio:g} of {figure.reference:g}" if figure.reference else ""
            plan.say(f"{figure.name}: {figure.value:g} {figure.unit}{beside}")
            yield figure
