"""The walks of the order flow's own tests as books, so that every interleaving can be judged.

The bus has no files: one topic is one partition, and what a service has handled is its marks in
the order of handling. The ledgers are made of what its provider and carrier remember.
"""

from __future__ import annotations

import msgspec

from penstock.sim.audit.books import (
    Books,
    Deed,
    Document,
    Fact,
    Held,
    Ledger,
    Mail,
    Mark,
    StoreBook,
)
from penstock.sim.audit.orders import READS
from tests.flows.given import Bus, Outcome
from tests.flows.orders.shop import Shop


def books_of_walk(shop: Shop) -> Books:
    """What a walk has left behind."""
    bus = shop.bus
    topics = {topic: _facts(bus, topic) for topic in bus.topics}
    return Books(
        topics=topics, partitions=dict.fromkeys(topics, 1),
        first={(topic, 0): 0 for topic in topics}, producers={}, reads=READS,
        stores={name: _store(bus, name) for name in bus.services}, ledgers=_ledgers(shop),
    )  # fmt: skip


def _facts(bus: Bus, topic: str) -> list[Fact]:
    found = []
    for offset, event in enumerate(bus.topics[topic]):
        value = msgspec.json.encode(event.data)
        found.append(
            Fact(topic, 0, offset, event.appended_at, 0, 0, event.key, value, event.id,
                 event.type, 2, event.at, event.cause, "", "", None)
        )  # fmt: skip
    return found


def _store(bus: Bus, service: str) -> StoreBook:
    seen = [s for s in bus.history if s.service == service]
    documents = [
        Document(ref.kind, ref.key, None, msgspec.json.encode(state), 0, 0)
        for ref, state in bus.states[service].items()
    ]
    held = [
        Held(topic, 0, 0, key, "waiting" if place else "parked", 0, 0, 0, "", e.appended_at, e.id,
             e.type, b"", (), 0, 0)
        for (name, topic, key), events in bus.waiting.items() if name == service
        for place, e in enumerate(events)
    ]  # fmt: skip
    marks = [Mark(s.event.id, place, 0, 0) for place, s in enumerate(seen, 1)]
    return StoreBook(service, marks=marks, documents=documents, held=held)


def _ledgers(shop: Shop) -> dict[str, Ledger]:
    mails = [
        Mail(n, 0, key, key.split(":")[1], kind, "", "")
        for n, (key, kind) in enumerate(shop.mails.items())
    ]
    return {
        "payments": Ledger("payments", [
            _payment(shop, n, key) for n, (key, outcome) in enumerate(shop.provider.kept.items())
            if outcome.outcome == "ok"
        ]),
        "carrier": Ledger("carrier", _carrier(shop)),
        "mail": Ledger("mail", mails=mails),
    }  # fmt: skip


def _payment(shop: Shop, seq: int, key: str) -> Deed:
    operation, order, part = key.split(":")
    amounts = {
        "authorise": shop.provider.held.get(order), "capture": shop.provider.captured.get(order),
        "refund": _back(shop.provider.kept[key]),
    }
    return Deed(
        seq, 0, key, operation, order, part, f"{operation}-{order}", f"pay-{order}",
        amounts.get(operation), "GBP",
    )  # fmt: skip


def _back(outcome: Outcome) -> int:
    amount = outcome.body.get("amount", 0)
    assert isinstance(amount, int)
    return amount


def _carrier(shop: Shop) -> list[Deed]:
    carrier = shop.carrier
    labels = [
        Deed(n, 0, f"label:{part}", "label", order, part, f"L-{order}", f"L-{order}", None, "")
        for n, (part, order) in enumerate(carrier.labels.items())
    ]
    voids = [
        Deed(900 + n, 0, f"void-label:{part}", "void_label", part.rpartition("-")[0], part, "",
             "", None, "")
        for n, part in enumerate(sorted(carrier.voided))
    ]  # fmt: skip
    return labels + voids
