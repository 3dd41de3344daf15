"""The service under the engine's tests: it writes down what it handled, in order, and obeys.

``Orders`` say how a decide goes wrong; everything else is pure. ``tally_rig`` wires it up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from penstock.assemble import with_platform
from penstock.catalog.implied import with_implied
from penstock.catalog.model import (
    Catalog,
    GatewayEntry,
    JournalSettings,
    RetryPolicy,
    ServiceEntry,
    Team,
    Topic,
)
from penstock.contracts.contract import Contract
from penstock.decision import Ask, Context, Decision, Done, Emit, Ref, Service, States
from penstock.event import Event
from penstock.flow import Flow
from penstock.ports import Gateway
from tests.flows.ground import Ground
from tests.flows.rig import HandClock, Rig


class Step(Struct, frozen=True, kw_only=True):
    """One thing to note: its number, the pots it also goes to, what to ask, when to wake."""

    n: int = 0
    pots: tuple[str, ...] = ()
    follow: bool = False  # also put it into the pots that earlier steps of the key named
    tell: bool = False
    ask: tuple[str, ...] = ()
    wake_ms: int = 0


class Sum(Struct, frozen=True, kw_only=True):
    """What the service says after a step that tells."""

    n: int
    total: int


class Noise(Struct, frozen=True, kw_only=True):
    """A fact that the service does not read."""

    text: str


class Tally(Struct, frozen=True, kw_only=True):
    """A key's own document: numbers in the order handled, pots, answers and wakes."""

    steps: tuple[int, ...] = ()
    pots: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    wakes: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


class Pot(Struct, frozen=True, kw_only=True):
    """Shared by keys: how many steps went into it, and their sum."""

    steps: int = 0
    total: int = 0


Order = Callable[[Event], Decision | None]


class Orders:
    """What a decide is told beside its arguments; ``said`` lists what was decided."""

    def __init__(self) -> None:
        self.by_key: dict[str, Order] = {}
        self.by_number: dict[int, Order] = {}
        self.said: list[tuple[str, int]] = []

    def order(self, event: Event) -> Decision | None:
        """The order for an event, carried out."""
        number = getattr(event.data, "n", -1)
        self.said.append((event.key, number))
        for order in (self.by_key.get(event.key), self.by_number.get(number)):
            decision = order(event) if order else None
            if decision is not None:
                return decision
        return None


def always(decision: Any) -> Order:
    """An order to decide so."""
    return lambda event: decision


def raising(error: BaseException) -> Order:
    """An order to fail so."""

    def order(event: Event) -> Decision | None:
        raise error

    return order


def needs(event: Event, own: Tally | None) -> tuple[Ref, ...]:
    """The pots the step names, and with ``follow`` those of the document."""
    if event.type != "step.taken":
        return ()
    known = own.pots if own and event.data.follow else ()
    return tuple(Ref("pot", pot) for pot in dict.fromkeys((*event.data.pots, *known)))


def decide(states: States, event: Event, context: Context) -> Decision:
    """Note what came."""
    ref = Ref("tally", event.key)
    own = states[ref] or Tally()
    if event.type == "answer":
        said = f"{event.data.name}:{event.data.outcome}"
        return Done({ref: replace(own, answers=(*own.answers, said))})
    if event.type == "wake":
        return Done({ref: replace(own, wakes=(*own.wakes, context.now))})
    if event.type == "dead.discarded":
        return Done({ref: replace(own, notes=(*own.notes, f"discarded {event.data.kind}"))})
    return _step(states, event, context, ref, own)


def _step(states: States, event: Event, context: Context, ref: Ref, own: Tally) -> Decision:
    step = event.data
    pots = tuple(dict.fromkeys((*own.pots, *step.pots)))
    marks = ("late",) if (event.notes or {}).get("out_of_order") else ()
    after = replace(own, steps=(*own.steps, step.n), pots=pots, notes=(*own.notes, *marks))
    written: dict[Ref, Any] = {ref: after}
    for pot in needs(event, own):
        held = states[pot] or Pot()
        written[pot] = Pot(steps=held.steps + 1, total=held.total + step.n)
    told = (Emit("sums", Sum(n=step.n, total=sum(after.steps))),) if step.tell else ()
    asks = [Ask(gateway, f"{gateway}-{step.n}", {"n": step.n}) for gateway in step.ask]
    if step.wake_ms:
        asks.append(Ask("clock", "bell", due=context.now + step.wake_ms))
    return Done(written, told, tuple(asks))


def tally_service(orders: Orders) -> Service:
    """The service, listening to ``orders``."""

    def obeying(states: States, event: Event, context: Context) -> Decision:
        ordered = orders.order(event)
        return decide(states, event, context) if ordered is None else ordered

    return Service(
        name="tally", kind="tally", states={"tally": Tally, "pot": Pot},
        reads={
            "steps": ("step.taken",), "more": ("step.taken",),
            "tally.answers": ("answer", "wake", "dead.discarded"),
        },
        decide=obeying, needs=needs, labels={"tally": lambda t: f"{len(t.steps)} steps"},
    )


CONTRACTS = (
    Contract(type="step.taken", version=1, model=Step),
    Contract(type="sum.told", version=1, model=Sum),
    Contract(type="noise.made", version=1, model=Noise),
)


def tally_catalog(
    entry: Mapping[str, Any], gateways: Mapping[str, Mapping[str, Any]], partitions: int,
    journal: JournalSettings | None = None,
) -> Catalog:
    """The world of the service, with what a test wants otherwise."""

    def topic(name: str, producer: str) -> Topic:
        return Topic(name=name, owner="us", producer=producer, key="k", partitions=partitions)

    made = [topic("steps", "source"), topic("more", "source"), topic("sums", "tally")]
    told = {
        "handler": "x:Y", "reads": ("steps", "more"), "writes": ("sums",),
        "asks": (*gateways, "clock"), **entry,
    }
    return with_implied(
        Catalog(
            name="tally", flow="x:Y",
            teams={"us": Team(name="us", contacts=("a@b.example",), on_call=("a",))},
            topics={t.name: t for t in made}, journal=journal or JournalSettings(),
            services={
                "source": ServiceEntry(name="source", owner="us", writes=("steps", "more")),
                "tally": ServiceEntry(name="tally", owner="us", **told),
            },
            gateways={
                name: GatewayEntry(**{"name": name, "owner": "us", "handler": "x:y", **changes})
                for name, changes in gateways.items()
            },
        )
    )


def tally_rig(
    ground: Ground = None, orders: Orders | None = None, *,
    gateways: Mapping[str, tuple[Mapping[str, Any], Gateway]] | None = None,
    clock: HandClock | None = None, partitions: int = 4, shared: tuple[str, ...] = (),
    service: Service | None = None, attempts: int = 3, accepts: Mapping[str, str] = {},
    journal: JournalSettings | None = None, **entry: Any,
) -> Rig:
    """A rig with the service alone; ``entry`` changes its catalog entry, ``accepts`` says what
    topics take from others. With ``journal`` the platform's own service runs beside it."""
    told = gateways or {}
    entry["retry"] = RetryPolicy(attempts=attempts, first_delay_seconds=1.0)
    entries = {name: changes for name, (changes, _) in told.items()}
    catalog = tally_catalog(entry, entries, partitions, journal)
    taking = {t: replace(catalog.topics[t], accepts=said) for t, said in accepts.items()}
    catalog = replace(catalog, topics=catalog.topics | taking)
    flow = Flow(
        name="tally", services=(service or tally_service(orders or Orders()),),
        contracts=CONTRACTS,
    )
    if journal is not None:
        flow = with_platform(flow, catalog)
    fakes = {name: gateway for name, (_, gateway) in told.items()}
    return Rig(flow, catalog, ground, fakes, clock, shared)


def steps(rig: Rig, key: str) -> tuple[int, ...]:
    """What the service noted of a key."""
    found = rig.states("tally").get(Ref("tally", key))
    return found.steps if found else ()


def tally(rig: Rig, key: str) -> Tally:
    """The document of a key."""
    found = rig.states("tally")[Ref("tally", key)]
    assert isinstance(found, Tally)
    return found
