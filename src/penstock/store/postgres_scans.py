"""Scans of the PostgreSQL store: reads for people and for recovery, each one statement."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from psycopg.pq.abc import PGresult

from penstock.embedded.rows import message_of
from penstock.event import Origin, Record
from penstock.flow import Row, Scan
from penstock.ports import Due, Waiting
from penstock.store.postgres_session import Command, Session, Statement
from penstock.store.postgres_sql import COLUMNS, Cell
from penstock.store.postgres_values import (
    Value,
    clean,
    long,
    number_of,
    short,
    text,
    text_of,
)

_POSITIONS = msgspec.json.Decoder(dict[str, int])
_ERRORS = msgspec.json.Decoder(tuple[tuple[int, str], ...])
_STATEMENTS: dict[str, Statement] = {}  # by their text


def scan(session: Session, scope: int, what: Scan) -> list[Row]:
    """The rows of a scan."""
    query, values, row = _SCANS[what.table](what)
    statement = _STATEMENTS.setdefault(query, Statement(query))
    given = {"scope": short(scope), "limit": long(what.limit), **values}
    found = session.exchange([Command(statement, given)])[0]
    return [row(found, n) for n in range(found.ntuples)]


Asked = tuple[str, dict[str, Value], Callable[[PGresult, int], Row]]


def _documents(what: Scan) -> Asked:
    where, values = ["scope = $scope", "kind = $kind", "body IS NOT NULL"], {
        "kind": text(what.kind)
    }
    if what.key is not None:
        where.append("key = $key")
        values["key"] = text(what.key)
    if what.label is not None:
        where.append("label = $label")
        values["label"] = text(what.label)
    if what.after:
        where.append("key < $after" if what.newest_first else "key > $after")
        values["after"] = text(what.after)
    order = "DESC" if what.newest_first else "ASC"
    query = (
        f"SELECT kind, key, label, body, txn FROM documents WHERE {' AND '.join(where)}"
        f" ORDER BY key {order} LIMIT $limit"
    )
    return query, values, _document


def _document(found: PGresult, n: int) -> Row:
    kind, key, label, body, txn = (found.get_value(n, column) for column in range(5))
    return Row(
        kind=text_of(kind), key=text_of(key), label=None if label is None else text_of(label),
        body=body, txn=number_of(txn),
    )


def _labels(what: Scan) -> Asked:
    query = (
        "SELECT label, count(*), $kind::text FROM documents WHERE scope = $scope AND kind = $kind"
        " AND label IS NOT NULL GROUP BY label ORDER BY label LIMIT $limit"
    )
    return query, {"kind": text(what.kind)}, _label


def _label(found: PGresult, n: int) -> Row:
    label = text_of(found.get_value(n, 0))
    kind, count = text_of(found.get_value(n, 2)), number_of(found.get_value(n, 1))
    return Row(key=label, kind=kind, label=label, count=count)


def _asks(what: Scan) -> Asked:
    columns = f"SELECT {COLUMNS}, settled_at, outcome, error FROM outbox WHERE scope = $scope"
    if what.key is not None:
        query = f"{columns} AND key = $key AND NOT is_topic ORDER BY id LIMIT $limit"
        return query, {"key": text(clean(what.key))}, _ask
    # Two halves, because each has an index of open rows of its own.
    still = f"{columns} AND settled_at IS NULL AND id > $after"
    query = (
        f"(({still} AND due = 0 ORDER BY id LIMIT $limit)"
        f" UNION ALL ({still} AND due > 0 ORDER BY id LIMIT $limit)) ORDER BY id LIMIT $limit"
    )
    return query, {"after": long(int(what.after or 0))}, _ask


def _ask(found: PGresult, n: int) -> Row:
    due = due_of(found.get_value, n)
    settled, outcome, error = (found.get_value(n, 13 + column) for column in range(3))
    said = text_of(outcome)
    body = {
        "id": due.id, "ask": due.message.id.hex(), "gateway": due.destination, "name": due.name,
        "idempotency_key": due.idempotency_key, "made_at": due.made_at, "due": due.due,
        "attempts": due.attempts, "settled_at": None if settled is None else number_of(settled),
        "outcome": said, "error": text_of(error), "cause": due.message.cause.hex(),
        "is_topic": due.is_topic,
    }
    return Row(
        key=due.message.key, kind=due.destination, label=said or "open", body=body,
        txn=due.origin.txn,
    )


def due_of(get: Cell, row: int) -> Due:
    """A row of the outbox, of its columns as ``COLUMNS`` names them."""
    cells = [get(row, column) for column in range(13)]
    id_, destination, is_topic, message, name, key, *rest = cells
    due, attempts, retry_at, made_at, shard, txn, epoch = map(number_of, rest)
    return Due(
        id=number_of(id_), destination=text_of(destination), is_topic=is_topic == b"\1",
        message=message_of(message or b""), name=text_of(name), idempotency_key=text_of(key),
        due=due, attempts=attempts, retry_at=retry_at, made_at=made_at, shard=shard,
        origin=Origin(txn, epoch),
    )


def _waiting(what: Scan) -> Asked:
    where, values = ["scope = $scope"], {}
    if what.key is not None:
        where.append("key = $key")
        values["key"] = text(clean(what.key))
    if what.label is not None:
        where.append("state = $state")
        values["state"] = text(what.label)
    if what.after:
        topic, partition, offset = what.after.rsplit("/", 2)
        where.append('(topic, partition, "offset") > ($topic, $partition, $place)')
        values |= {
            "topic": text(topic), "partition": short(int(partition)), "place": long(int(offset))
        }
    query = (
        'SELECT topic, partition, "offset", state, due, attempts, deaths, kind, appended_at,'
        f" message, errors, txn FROM waiting WHERE {' AND '.join(where)}"
        ' ORDER BY topic, partition, "offset" LIMIT $limit'
    )
    return query, values, _waits


def _waits(found: PGresult, n: int) -> Row:
    cells = [found.get_value(n, column) for column in range(12)]
    topic, state, kind, message, errors, txn = (cells[c] for c in (0, 3, 7, 9, 10, 11))
    partition, offset, due, attempts, deaths, appended = (
        number_of(cells[c]) for c in (1, 2, 4, 5, 6, 8)
    )
    record = Record(text_of(topic), partition, offset, appended, message_of(message or b""))
    body = Waiting(
        record=record, state=text_of(state),  # type: ignore[arg-type]
        due=due, attempts=attempts, deaths=deaths, kind=text_of(kind),
        errors=_ERRORS.decode(errors or b"[]"),
    )
    return Row(
        key=record.message.key, kind=body.kind, label=body.state, body=body, txn=number_of(txn)
    )


def _positions(what: Scan) -> Asked:
    query = (
        "SELECT lane, epoch, positions::text, txn FROM owners WHERE scope = $scope AND lane >= 0"
        " ORDER BY lane LIMIT $limit"
    )
    return query, {}, _position


def _position(found: PGresult, n: int) -> Row:
    lane, epoch, positions, txn = (found.get_value(n, column) for column in range(4))
    return Row(
        key=str(number_of(lane)), count=number_of(epoch),
        body=_POSITIONS.decode(positions or b"{}"), txn=number_of(txn),
    )


_SCANS: dict[str, Callable[[Scan], Asked]] = {
    "positions": _positions,
    "documents": _documents,
    "labels": _labels,
    "asks": _asks,
    "waiting": _waiting,
}
