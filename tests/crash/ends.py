"""Does every order end right? Judged from outside, by the files and the client's own journal.

``ends(home, journal)`` lists what is wrong, each in a sentence; an empty list is what a crash
test wants to see. It shares no code with penstock.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.crash.books import SERVICES, Books, Fact

FINAL = {"order.completed": "completed", "order.cancelled": "cancelled",
         "order.rejected": "rejected"}  # fmt: skip
# What a type may come after, within one order and topic. (A scan may overtake the label's answer.)
AFTER = {
    "order.processing": {"order.received"},
    "order.shipped": {"order.confirmed"},
    "order.completed": {"order.confirmed"},
    "payment.captured": {"payment.authorised"},
    "payment.refunded": {"payment.captured"},
    "shipment.delivered": {"shipment.dispatched"},
    "inventory.consumed": {"inventory.reserved"},
    "inventory.released": {"inventory.reserved"},
}
# From the sandboxes' reference: each must find nothing.
AUDIT = {
    "charged twice": "SELECT order_id, part FROM effects WHERE operation = 'capture'"
    " GROUP BY order_id, part HAVING count(*) > 1",
    "asked under two keys": "SELECT order_id, part, operation FROM calls"
    " WHERE outcome <> 'malformed' AND operation <> 'send'"
    " GROUP BY order_id, part, operation HAVING count(DISTINCT key) > 1",
    "given back more than taken": "SELECT reference FROM effects GROUP BY reference"
    " HAVING sum(iif(operation = 'refund', amount, 0)) > sum(iif(operation = 'capture', amount,"
    " 0))",
    "one key for two calls": "SELECT key FROM calls WHERE outcome = 'mismatched'",
}


class Promise:
    """What the client was promised: the outcome of every request, as its journal has it."""

    def __init__(self, journal: Path) -> None:
        self.asked: dict[str, Any] = {}
        self.orders: dict[str, dict[str, Any]] = {}  # order -> the request's body and reply
        self.received: Counter[str] = Counter()  # pieces per SKU
        self.flaws: list[str] = []
        for line in journal.read_text().splitlines():
            self._note(json.loads(line))
        open_ = [key for key, row in self.asked.items() if "status" not in row]
        self.flaws += [f"request {key} was never answered" for key in open_]

    def _note(self, row: dict[str, Any]) -> None:
        key = row["key"]
        if "body" in row:
            self.asked.setdefault(key, row)
            return
        asked = self.asked[key]
        if "status" in asked and asked["reply"] != row["reply"]:
            self.flaws.append(f"request {key} was answered in two ways")
        asked.update(row)
        if row["status"] >= 300:
            self.flaws.append(f"request {key} was refused: {row['reply']}")
        elif asked["path"] == "/orders":
            self.orders[row["reply"]["order_id"]] = asked
        elif asked["path"] == "/stock":
            self.received.update({e["sku"]: e["quantity"] for e in asked["body"]["entries"]})


def ends(home: Path, journal: Path) -> list[str]:
    """Everything that is wrong, in sentences."""
    return list(_Judge(Books(home), Promise(journal)).flaws())


class _Judge:
    def __init__(self, books: Books, promise: Promise) -> None:
        self.books, self.promise = books, promise
        self.documents = books.documents("order", "order")
        self.held = books.parked("payment")
        self.effects: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        for gateway in ("payments", "carrier"):
            for order, *effect in books.ledger(
                gateway, "SELECT order_id, operation, amount, id, reference FROM effects"
            ):
                self.effects[order].append(tuple(effect))

    def flaws(self) -> Iterator[str]:
        yield from self.books.flaws
        yield from self.promise.flaws
        yield from self._log()
        yield from self._everything_was_read()
        for order, asked in self.promise.orders.items():
            for flaw in (*self._one(order, asked), *self._order_of_events(order)):
                yield f"{order} ({asked['key']}): {flaw}"
        yield from self._ledgers()
        yield from self._mails()
        yield from self._stock()

    # Logs ----------------------------------------------------------------------------------------

    def _log(self) -> Iterator[str]:
        """No id twice: a service appends in its own commit, so not even the same record."""
        seen: dict[bytes, Fact] = {}
        for topic, facts in self.books.topics.items():
            for fact in facts:
                before = seen.setdefault(fact.id, fact)
                if before is not fact:
                    yield f"{topic} {fact.offset} repeats the id of {before.topic} {before.offset}"
        placed = Counter(f.key for f in self.books.topics["orders"] if f.type == "order.placed")
        yield from (f"{key} was placed {n} times" for key, n in placed.items() if n != 1)
        for key in placed.keys() ^ self.promise.orders.keys():
            yield f"{key} was acknowledged or placed, not both"

    def _everything_was_read(self) -> Iterator[str]:
        """Every service has handled every record of the topics it reads."""
        last: dict[tuple[str, int], int] = {}
        for topic, facts in self.books.topics.items():
            last.update({(topic, fact.partition): fact.offset + 1 for fact in facts})
        for service in SERVICES:
            for place, at in self.books.positions(service).items():
                if at != last.get(place, 0):
                    yield f"{service} is at {at} of {place}, which ends at {last.get(place, 0)}"

    # One order -----------------------------------------------------------------------------------

    def _one(self, order: str, asked: dict[str, Any]) -> Iterator[str]:
        state = self.documents.get(order, {}).get("state", "nowhere")
        told = [FINAL[f.type] for f in self.books.of(order, "order_states") if f.type in FINAL]
        if state in FINAL.values():
            if told != [state]:
                yield f"it is {state}, and these ends were told: {told}"
        elif state != "on_hold":
            yield f"it is {state}"
        elif order not in self.held or told:
            yield f"on hold without a dead letter, or ended as well: {told}"
        expected = asked.get("end")
        if expected and state not in expected:
            yield f"it is {state}, expected was {' or '.join(expected)}"
        yield from self._money(order, state, asked["reply"]["total_minor"])
        yield from self._parcel(order, state)

    def _money(self, order: str, state: str, total: int) -> Iterator[str]:
        sums: Counter[str] = Counter()
        for operation, amount, _, _ in self.effects[order]:
            sums.update({operation: amount or 0, f"{operation}s": 1})
        if sums["captures"] > 1 or sums["authorises"] > 1:
            yield f"the money was taken more than once: {dict(sums)}"
        if state == "completed" and (sums["capture"], sums["refund"]) != (total, 0):
            yield f"completed at {total}, and this moved: {dict(sums)}"
        if state in ("rejected", "cancelled"):
            if sums["capture"] != sums["refund"]:
                yield f"{state}, and the money is not back: {dict(sums)}"
            if sums["authorises"] and not sums["captures"] and not sums["voids"]:
                yield f"{state}, and the money is still set aside"

    def _parcel(self, order: str, state: str) -> Iterator[str]:
        kinds = Counter(effect[0] for effect in self.effects[order])
        moved = kinds["label"] - kinds["void_label"]
        if kinds["label"] > 1 or moved != (1 if state == "completed" else 0):
            yield f"{state} with {kinds['label']} labels, {kinds['void_label']} of them voided"

    def _order_of_events(self, order: str) -> Iterator[str]:
        for topic in ("orders", "order_states", "inventory", "payments", "shipments"):
            seen: set[str] = set()
            for fact in self.books.of(order, topic):
                missing = AFTER.get(fact.type, set()) - seen
                if missing:
                    yield f"{fact.type} came before {missing}"
                if seen & FINAL.keys() and fact.type != "order.refunded":
                    yield f"{fact.type} came after its end"
                seen.add(fact.type)

    # Sums ----------------------------------------------------------------------------------------

    def _ledgers(self) -> Iterator[str]:
        for gateway in ("payments", "carrier"):
            for flaw, sql in AUDIT.items():
                yield from (f"{gateway}: {flaw}: {row}" for row in self.books.ledger(gateway, sql))

    def _mails(self) -> Iterator[str]:
        """One key is one mail. It may be caught twice: SMTP knows no keys."""
        mails = self.books.ledger(
            "mail", "SELECT DISTINCT key, order_id, kind, subject, text FROM mails"
        )
        for key, n in Counter(row[0] for row in mails).items():
            if n != 1:
                yield f"the key {key} stands for {n} different mails"
        sent = {(order, kind) for _, order, kind, *_ in mails}
        for order, asked in self.promise.orders.items():
            wanted = self._told(self.documents.get(order, {}).get("state", ""))
            if asked["body"].get("customer", {}).get("email"):
                yield from (f"{order} was not told: {k}" for k in wanted if (order, k) not in sent)

    def _told(self, state: str) -> tuple[str, ...]:
        ways = {"completed": ("confirmed", "dispatched")}
        return ways.get(state, (state,) if state in FINAL.values() else ())

    def _stock(self) -> Iterator[str]:
        """Received is what lies there and what was shipped; reserved is what is on hold."""
        shipped: Counter[str] = Counter()
        kept: Counter[str] = Counter()
        for order, asked in self.promise.orders.items():
            state = self.documents.get(order, {}).get("state")
            pieces = {line["sku"]: line["quantity"] for line in asked["body"]["lines"]}
            shipped.update(pieces if state == "completed" else {})
            kept.update(pieces if state == "on_hold" else {})
        documents = self.books.documents("inventory", "stock")
        for sku, received in self.promise.received.items():
            stock = documents.get(sku, {})
            on_hand = sum(shelf.get("on_hand", 0) for shelf in stock.get("shelves", ()))
            reserved = stock.get("reserved", 0)
            if (on_hand, reserved) != (received - shipped[sku], kept[sku]):
                yield (
                    f"{sku}: {received} came in, {shipped[sku]} left, {kept[sku]} are kept; the "
                    f"books say {on_hand} and {reserved}"
                )
        for fact in self.books.topics["stock"]:
            said = fact.said
            if min(said["on_hand"], said["reserved"], said["on_hand"] - said["reserved"]) < 0:
                yield f"{fact.key} fell below nothing: {said}"
