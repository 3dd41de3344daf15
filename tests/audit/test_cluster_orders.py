"""The order flow on Kafka and PostgreSQL: every way an order may go, judged by all the rules, and
what somebody does to the tables afterwards is seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from penstock.sim.audit.orders import RULES as OWN
from penstock.sim.audit.orders.ends import AFTERWARDS
from penstock.sim.audit.platform import RULES
from penstock.sim.audit.report import audit
from penstock.sim.audit.tables import read_stores
from penstock.store import migrate
from tests.audit.cluster_shop import copied, did
from tests.audit.orders_shop import Ended, ended_in, judged
from tests.flows.ground import Servers
from tests.servers import unique


class Shops(NamedTuple):
    """The same shop twice: on servers, and on embedded files."""

    servers: Servers
    there: Ended
    here: Ended


@pytest.fixture(scope="module")
def shops(
    kafka: str, databases: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Shops:
    """Everything has ended in both."""
    servers = Servers(databases(), kafka, unique("orders", "-") + "-", [])
    migrate.apply(servers.dsn, None)
    there, here = ended_in(servers), ended_in(tmp_path_factory.mktemp("shop"))
    return Shops(servers, there, here)


class End(NamedTuple):
    """What an order came to. Services are turned in another order on each ground, so the way there
    may differ where two things happen at once; that each step is one that may be is a rule."""

    state: str
    is_refunded: bool


def ends(ended: Ended) -> dict[str, End]:
    """The end of each order, by the name it was placed under."""
    told: dict[str, list[str]] = {}
    for fact in ended.books.topics["order_states"]:
        told.setdefault(fact.key, []).append(fact.type)
    return {
        name: End([t for t in told[id_] if t != AFTERWARDS][-1], AFTERWARDS in told[id_])
        for name, id_ in ended.orders.items()
    }


def test_every_order_ends_as_on_embedded_files(shops: Shops) -> None:
    assert ends(shops.there) == ends(shops.here)


def test_all_rules_are_kept(shops: Shops) -> None:
    report = audit(shops.there.books, (*RULES, *OWN))
    assert report.violations == []
    assert report.empty == []
    assert dict(report.asked_not) == {"I36": "no contracts were given"}


TAMPERED = {
    "a captured amount": ("order", "order", "captured_minor", "1", {"I8"}),
    "an order's state": ("order", "order", "state", '"cancelled"', {"I4"}),
    "what is on hand": ("inventory", "stock", "reserved", "99", {"I11"}),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_changed_document_is_seen(shops: Shops, what: str) -> None:
    service, kind, field, value, seen = TAMPERED[what]
    with copied(shops.servers) as harmed:
        assert did(
            harmed,
            "UPDATE documents SET body = convert_to(jsonb_set(as_json(body),"
            f" '{{{field}}}', '{value}')::text, 'UTF8') WHERE kind = '{kind}'"
            f" AND scope = (SELECT id FROM scopes WHERE service = '{service}')"
            f" AND as_json(body) ? '{field}'",
        )
        stores = read_stores(harmed.dsn, "penstock", [])
    _, found = judged(shops.there.books._replace(stores=stores))
    assert {violation.rule for violation in found} == seen


def test_a_record_charged_twice_is_seen(shops: Shops, tmp_path: Path) -> None:
    """The rules that need the gateways' ledgers are asked on a cluster as well."""
    ledger = shops.there.books.ledgers["payments"]
    twice = next(deed for deed in ledger.deeds if deed.operation == "capture")
    more = ledger._replace(deeds=[*ledger.deeds, twice._replace(seq=9999, key="another")])
    books = shops.there.books
    _, found = judged(books._replace(ledgers={**books.ledgers, "payments": more}))
    assert "I6" in {violation.rule for violation in found}
