"""A small shop on the bus: its facts as literals, and outside systems with honest ledgers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from penstock.contracts.wire import Book
from penstock.decision import Ask, Ref
from penstock.flows.orders import FLOW
from penstock.flows.orders import events as said
from penstock.flows.orders.lifecycle import FINAL_STATES
from tests.flows.given import Bus, Gateway, Given, Outcome

BOOK = Book(FLOW.contracts)
ADDRESS = said.Address(name="Ada", street="1 Square", city="London", postcode="N1", country="UK")
ADA = said.Customer(id="c-1", email="ada@example.com")
ORDER = "o-1"


def line(sku: str, quantity: int = 1, unit: int = 500, kind: str = "item") -> dict[str, Any]:
    """A line to be numbered by ``placed``."""
    amount = quantity * unit
    return {
        "sku": sku, "quantity": quantity, "unit_minor": unit, "net_minor": amount,
        "gross_minor": amount, "kind": kind,
    }


POST = line("POST", unit=300, kind="carriage")


def placed(*lines: dict[str, Any], **more: Any) -> said.OrderPlaced:
    """An order of these lines; two pots and carriage where none are named."""
    wanted = lines or (line("POT", 2), POST)
    numbered = tuple(said.Line(line=n, **one) for n, one in enumerate(wanted, start=1))
    values: dict[str, Any] = {
        "customer": ADA, "address": ADDRESS, "currency": "GBP", "lines": numbered,
        "total_minor": sum(one.gross_minor for one in numbered), "placed_at": 1,
    }
    return said.OrderPlaced(**values | more)


def reserved(amount: int = 1300, *pieces: said.Piece) -> said.InventoryReserved:
    """The pots are kept."""
    kept = pieces or (said.Piece(line=1, sku="POT", quantity=2),)
    return said.InventoryReserved(pieces=kept, amount_minor=amount, currency="GBP")


def service(name: str, key: str = ORDER) -> Given:
    """One service of the flow, nothing known yet."""
    found = next(one for one in FLOW.services if one.name == name)
    return Given(found, BOOK, key)


class Provider:
    """A payment provider with a ledger: it refuses what does not fit, and honours keys."""

    def __init__(self, **script: str) -> None:
        self.script = script  # ask name -> decline, wrong, webhook, fail, expire
        self.kept: dict[str, Outcome] = {}
        self.held: dict[str, int] = {}
        self.voided: set[str] = set()
        self.captured: dict[str, int] = {}
        self.refunded: dict[str, int] = {}

    def __call__(self, ask: Ask, key: str) -> Outcome:
        """One call; the same key gets the first outcome again."""
        assert ask.idempotency_key
        assert ask.idempotency_key.count(":") == 2
        if ask.idempotency_key not in self.kept:
            rule: Callable[..., Outcome] = getattr(self, ask.name)
            self.kept[ask.idempotency_key] = rule(ask.request, self.script.get(ask.name, ""))
        return self.kept[ask.idempotency_key]

    def authorise(self, wanted: dict[str, Any], script: str) -> Outcome:
        """Hold the amount."""
        order = wanted["order"]
        if script == "expire":
            return Outcome("expired")
        if script == "decline" or order in self.voided:
            return _declined("no funds")
        self.held[order] = wanted["amount"]
        return _money(wanted, script, "authorised", f"pay-{order}")

    def capture(self, wanted: dict[str, Any], script: str) -> Outcome:
        """Take what is held, once."""
        order = wanted["order"]
        if script == "decline" or order in self.voided or wanted["amount"] > self.held[order]:
            return _declined("capture failed")
        assert order not in self.captured, "charged twice"
        self.captured[order] = wanted["amount"] - (1 if script == "wrong" else 0)
        wanted = wanted | {"amount": self.captured[order]}
        return _money(wanted, script, "captured", f"cap-{order}")

    def void(self, wanted: dict[str, Any], script: str) -> Outcome:
        """Let go of what is held."""
        if wanted["order"] in self.captured:
            return Outcome("refused", {"state": "captured", "reason": "captured"})
        self.voided.add(wanted["order"])
        return Outcome(body={"state": "voided"})

    def refund(self, wanted: dict[str, Any], script: str) -> Outcome:
        """Give back what was taken, at most that; all that is left where no amount is named."""
        order = wanted["order"]
        left = self.captured.get(order, 0) - self.refunded.get(order, 0)
        amount = wanted.get("amount", left)
        if script == "decline" or amount > left or not left:
            return _declined("nothing left")
        self.refunded[order] = self.refunded.get(order, 0) + amount
        return Outcome(body={"state": "refunded", "amount": amount})

    def kept_of(self, order: str) -> int:
        """What the shop has of the customer's money."""
        return self.captured.get(order, 0) - self.refunded.get(order, 0)

    def dangling(self) -> set[str]:
        """Orders whose money is held and neither taken nor let go."""
        return set(self.held) - self.voided - set(self.captured)


def _declined(reason: str) -> Outcome:
    return Outcome("refused", {"state": "declined", "code": "no", "reason": reason})


def _money(wanted: dict[str, Any], script: str, state: str, id_: str) -> Outcome:
    body = {
        "id": id_, "state": state, "amount": wanted["amount"], "currency": wanted["currency"]
    }
    if not script.startswith("webhook"):
        return Outcome(body=body)
    told = said.ProviderNotified(
        id=f"evt-{id_}", type=state, payment=f"pay-{wanted['order']}",
        amount_minor=wanted["amount"], currency=wanted["currency"],
    )
    return Outcome(body=body, arrivals=((wanted["order"], told),), webhook_first=True)


class Carrier:
    """A carrier: scans follow a label, unless it was voided before the van came."""

    def __init__(self, scans: str = "handover,delivered", label: str = "", void: str = "") -> None:
        self.scans = [scan for scan in scans.split(",") if scan]
        self.refuses_label, self.refuses_void = label == "decline", void == "decline"
        self.labels: dict[str, str] = {}
        self.voided: set[str] = set()
        self.gone: set[str] = set()

    def __call__(self, ask: Ask, key: str) -> Outcome:
        """One call."""
        shipment = ask.request["shipment"]
        assert ask.idempotency_key
        assert ask.idempotency_key.endswith(f":{shipment}")
        return self._label(key, shipment) if ask.name == "label" else self._void(shipment)

    def _label(self, key: str, shipment: str) -> Outcome:
        if self.refuses_label:
            return Outcome("refused", {"reason": "address"})
        self.labels[shipment] = key
        body = {"label": f"L-{key}", "tracking": f"T-{key}", "carrier": "Van"}
        return Outcome(body=body)

    def _void(self, shipment: str) -> Outcome:
        if shipment in self.gone or self.refuses_void:
            return Outcome("refused", {"reason": "handed over"})
        self.voided.add(shipment)
        return Outcome(body={"state": "voided"})

    def drive(self) -> Iterator[tuple[str, said.CarrierScanned]]:
        """The van's round: every labelled parcel that was not called back is scanned."""
        for shipment, key in self.labels.items():
            if shipment not in self.voided | self.gone:
                self.gone.add(shipment)
                for scan in self.scans:
                    yield key, said.CarrierScanned(
                        scan=f"{shipment}-{scan}", shipment=shipment, type=scan, at=7
                    )


class Shop:
    """The whole flow on a bus, with stock, a provider, a carrier and a mailbox."""

    def __init__(
        self, seed: int, provider: Provider | None = None, carrier: Carrier | None = None,
        stock: dict[str, int] | None = None,
    ) -> None:
        self.provider, self.carrier = provider or Provider(), carrier or Carrier()
        self.mails: dict[str, str] = {}
        gateways: dict[str, Gateway] = {
            "payments": self.provider, "carrier": self.carrier, "mail": self._mail,
        }
        self.bus = Bus(FLOW.services, FLOW.contracts, gateways, seed)
        self.stock = stock or {"POT": 10}
        for sku, quantity in self.stock.items():
            fact = said.StockReceived(file="f", location="main", quantity=quantity)
            self.bus.arrive("arrivals", sku, fact)
        self.bus.run()

    def _mail(self, ask: Ask, key: str) -> Outcome:
        assert ask.idempotency_key not in self.mails, "the same mail twice"
        self.mails[ask.idempotency_key or ""] = ask.request["kind"]
        return Outcome()

    def place(self, order: said.OrderPlaced | None = None, key: str = ORDER) -> None:
        """A customer orders."""
        self.bus.arrive("orders", key, order or placed())

    def cancel(self, key: str = ORDER) -> None:
        """A customer changes their mind."""
        self.bus.arrive("orders", key, said.OrderCancelRequested())

    def drive(self) -> None:
        """The van comes by."""
        for key, scan in self.carrier.drive():
            self.bus.arrive("arrivals", key, scan)

    def finish(self) -> None:
        """Everything runs until it rests; then the van; then the deadlines, all harmless."""
        self.bus.run()
        self.drive()
        self.bus.run()
        self.bus.pass_time()
        self.bus.run()

    def state(self, service: str, kind: str, key: str = ORDER) -> Any:
        """A document."""
        return self.bus.states[service].get(Ref(kind, key))

    def order(self, key: str = ORDER) -> Any:
        """The public document of an order."""
        return self.state("order", "order", key)

    def steps(self, key: str = ORDER) -> list[str]:
        """The order's public steps, in order."""
        told = self.bus.topics.get("order_states", [])
        return [e.type.removeprefix("order.") for e in told if e.key == key]

    def count(self, type_: str, key: str = ORDER) -> int:
        """How many events of a type were published for an order."""
        return sum(
            e.type == type_ and e.key == key for log in self.bus.topics.values() for e in log
        )

    def mailed(self) -> list[str]:
        """The kinds of mail sent."""
        return sorted(self.mails.values())

    def check(self) -> None:
        """What must hold at every end, whatever came before."""
        orders = {ref.key: o for ref, o in self.bus.states["order"].items() if ref.kind == "order"}
        assert not self.provider.dangling(), "money is held for nothing"
        for key, order in orders.items():
            assert order.final, f"{key} never ends: {order.state}"
            ends = [step for step in self.steps(key) if step in FINAL_STATES]
            assert ends == [order.state], f"{key} ended as {ends}"
            due = order.total_minor if order.state == "completed" else 0
            assert self.provider.kept_of(key) == due
            assert order.captured_minor - order.refunded_minor == due
        self._check_stock(orders)

    def _check_stock(self, orders: dict[str, Any]) -> None:
        for sku, loaded in self.stock.items():
            stock = self.state("inventory", "stock", sku)
            left = sum(
                one.shipped for o in orders.values() for one in o.lines if one.sku == sku
            )
            assert stock.reserved == 0, "pieces stay reserved for nobody"
            assert stock.on_hand == loaded - left, "pieces got lost"
