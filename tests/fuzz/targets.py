"""What is fuzzed: each function takes any bytes and lets nothing leave that is not allowed.

Targets need no fuzzer: the corpus goes through them as it is (``test_corpus``), and the fuzzer
drives them by coverage (``engine``). Where there is a second reader, both must agree.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO

import click

from penstock.catalog.load import BadCatalog, examine_bytes
from penstock.cli.main import cli
from penstock.contracts.wire import Book
from penstock.decision import Ref
from penstock.embedded.file import File
from penstock.embedded.rows import (
    UNPACKED_BYTES_MAX,
    Row,
    checksum,
    message_bytes,
    message_of,
    pack,
    unpack,
)
from penstock.errors import Corrupt, Malformed, Problem, UnknownSchema
from penstock.event import Message, Record, murmur2, root_id, slot_of
from penstock.flow import Call, Look, Scan
from penstock.flows.orders import FLOW
from penstock.limits import OFFSET_BITS
from penstock.ports import Advance, Saved, Waiting
from penstock.sim.audit import decode
from penstock.store.sqlite import SqliteStore
from penstock.web.own import place_of
from penstock.web.problems import Refused
from penstock.web.requests import (
    Scope,
    client_of,
    headers_of,
    idempotency_key,
    query_of,
    trace_of,
    typed,
)
from penstock.web.routes import OWN_ROUTES, pattern_of
from tests.fuzz.json_oracle import agree
from tests.fuzz.tried import tried

Target = Callable[[bytes], None]


# Log rows and messages ---------------------------------------------------------------------------


def row(data: bytes) -> None:
    """A log row whose checksum fits: two bytes say codec and count, the rest is the body."""
    if len(data) < 2:
        return
    codec, count, body = data[0] & 1, data[1] or 1, data[2:]
    at = 1 << OFFSET_BITS | 1000 + count - 1
    crc = checksum(at, count, 7, codec, body)
    records, _ = tried((Corrupt,), unpack, "t", (at, count, 7, codec, crc, body), 0)
    cells = decode.Cells(at, count, 7, 1, 1, "", codec, crc, body)
    facts, why = decode.facts_of("t", cells)
    if records is None:
        return
    assert not why, f"the auditor cannot read what we can: {why}"
    assert len(records) == count
    assert [r.offset for r in records] == [f.offset for f in facts] == [*range(1000, 1000 + count)]
    assert [_fields(r.message) for r in records] == [_fields(f) for f in facts]
    assert sum(len(r.message.value) for r in records) <= UNPACKED_BYTES_MAX
    _packs_again([r.message for r in records])


def _fields(one: Message | decode.Fact) -> tuple[object, ...]:
    return (
        one.key, one.value, one.id, one.type, one.version, one.at, one.cause, one.trace,
        one.source, one.notes,
    )  # fmt: skip


def _packs_again(messages: list[Message]) -> None:
    made = pack(3, 50, messages, 9)
    again = unpack("t", (made.at, made.records, 9, made.codec, made.crc, made.body), 0)
    assert [r.message for r in again] == messages


def damaged_row(data: bytes) -> None:
    """A log row as it lies there, checksum and all: damage is seen, never believed."""
    base = _GOOD_ROW
    wrong = bytes(a ^ b for a, b in zip(base.body, data, strict=False)) + base.body[len(data) :]
    given = (base.at, base.records, base.appended_at, base.codec, base.crc, wrong)
    records, refused = tried((Corrupt,), unpack, "t", given, 0)
    assert (refused is None) == (wrong == base.body), "damage went through, or was seen in none"
    assert refused is not None or len(records) == base.records


def message(data: bytes) -> None:
    """One message alone, as waiting and outbox rows keep it."""
    found, why = decode.message_of(data)
    decode.errors_of(data)
    said, refused = tried((Corrupt,), message_of, data)
    if refused is not None:
        return
    assert found is not None, f"the auditor cannot read what we can: {why}"
    assert _fields(said) == _fields(found)
    assert message_of(message_bytes(said)) == said


def slot(data: bytes) -> None:
    """A key's partition: the engine, the auditor and Kafka's clients must agree."""
    assert murmur2(data) == decode.murmur2(data)
    text = data.decode("utf-8", "replace")
    assert slot_of(text) == decode.slot_of(text)


# Contracts ---------------------------------------------------------------------------------------

BOOK = Book(FLOW.contracts)
REFERENCES = sorted(
    (c.type, version)
    for c in BOOK.contracts.values()
    for version in (c.version, *(o.version for o in c.older))
)


def wire(data: bytes) -> None:
    """A record of a contract: the first byte chooses which, the rest is its value."""
    if not data:
        return
    type_, version = REFERENCES[data[0] % len(REFERENCES)]
    opened, refused = tried((Malformed, UnknownSchema), BOOK.open, type_, version, data[1:])
    if refused is not None:
        assert str(refused), "a refusal without a word"
        return
    sealed = BOOK.seal_as(type_, opened)
    assert BOOK.open(*sealed) == opened


def reference(data: bytes) -> None:
    """A schema reference as foreign records carry it: type, a NUL, version."""
    type_, _, version = data.decode("utf-8", "replace").partition("\0")
    number = int(version[:12]) if version[:12].isdecimal() else -len(version)
    _, refused = tried((Malformed, UnknownSchema), BOOK.open, type_, number, b"{}")
    assert len(str(refused)) < 2000, "the refusal repeats the record"


def json(data: bytes) -> None:
    """The strict decoder, against the standard library's and against msgspec alone."""
    agree(data)


# Catalogs ----------------------------------------------------------------------------------------


def catalog(data: bytes) -> None:
    """A catalog file: every error has its place in it."""
    examined, bad = tried((BadCatalog,), examine_bytes, data, "catalog.toml")
    errors = examined.errors if bad is None else bad.errors
    lines = data.count(b"\n") + 1
    for error in errors:
        assert error.message, error
        assert 1 <= error.line <= lines, f"line {error.line} of {lines}: {error}"


# Requests, cursors and arguments -----------------------------------------------------------------

LOOKS = [r for r in FLOW.routes if isinstance(r.does, Look)]
PATHS = [pattern_of(r.path) for r in (*FLOW.routes, *OWN_ROUTES)]
LETTER = pattern_of("/deadletters/{service}/{topic}/{partition}/{offset}")


def query(data: bytes) -> None:
    """A query of a route that reads: refused by name, or a page of the store."""
    if not data:
        return
    route = LOOKS[data[0] % len(LOOKS)]
    scope = {"query_string": data[1:]}
    found, refused = tried((Refused,), lambda: typed(query_of(scope, route.query), route))
    if refused is not None:
        assert refused.reply.status in (400, 422)
        return
    call = Call(client="c", now=1, query=found, params={"id": found.get("after", "x")})
    assert isinstance(route.does, Look)
    for what in route.does.wants(call).values():
        rows = STORE.scan(what)
        assert len(rows) <= what.limit
        if what.after and what.table == "documents":
            keys = [r.key for r in rows]
            assert keys == sorted(keys, reverse=what.newest_first)
            assert what.after not in keys


def path(data: bytes) -> None:
    """A path: its parameters hold one segment each; a dead letter's place can be looked up."""
    text = data.decode("utf-8", "replace")
    for pattern in PATHS:
        found = pattern.fullmatch(text)
        if found is not None:
            assert all(value and "/" not in value for value in found.groupdict().values())
    letter = LETTER.fullmatch(text)
    if letter is None:
        return
    place, refused = tried((Refused,), place_of, letter.groupdict())
    if refused is not None:
        return
    after = f"{place.topic}/{place.partition}/{place.offset - 1}"
    rows = STORE.scan(Scan(service="s", table="waiting", after=after, limit=1))
    assert all(row.body.record.offset >= place.offset or row.body.record.topic > place.topic
               or row.body.record.partition > place.partition for row in rows)  # fmt: skip


def headers(data: bytes) -> None:
    """The headers of a request, one a line."""
    lines = [line.partition(b":") for line in data.split(b"\n")]
    scope = {"headers": [(name.lower(), value) for name, _, value in lines]}
    found, refused = tried((Refused,), _read, scope)
    if refused is not None:
        assert refused.reply.status == 400
        assert len(refused.reply.body.detail) < 300, "the refusal repeats the header"
        return
    assert all(text.isascii() and text.isprintable() for text in found)


def _read(scope: Scope) -> tuple[str, str, str]:
    found = headers_of(scope)
    return idempotency_key(found), client_of(found), trace_of(found)


def arguments(data: bytes) -> None:
    """A command line, parsed and not run: words are separated by NUL."""
    words = data.decode("utf-8", "replace").split("\0")
    try:
        with redirect_stdout(StringIO()), cli.make_context("penstock", words) as context:
            _resolve(context, [*context._protected_args, *context.args])
    except (click.ClickException, click.exceptions.Exit, click.Abort, Problem):
        return


def _resolve(context: click.Context, words: list[str]) -> None:
    group = context.command
    if isinstance(group, click.Group) and words:
        name, command, rest = group.resolve_command(context, words)
        assert command is not None
        with command.make_context(name, rest, parent=context) as inner:
            _resolve(inner, [*inner._protected_args, *inner.args])


# What the targets look into ----------------------------------------------------------------------


def _good_row() -> Row:
    messages = [
        Message(f"k{n}", b'{"n":%d}' % n, root_id(n, "fuzz"), "order.placed", 2, n)
        for n in range(6)
    ]
    return pack(1, 100, messages, 5)


def _record(topic: str, offset: int) -> Record:
    return Record(topic, 0, offset, 1, Message(f"k{offset}", b"{}"))


def _store() -> SqliteStore:
    """A store with documents and waiting rows under awkward names."""
    store = SqliteStore(File(None), "s")
    (claim,) = store.claim([0], 1)
    keys = ("", "a", "a/b", "é", "\U0001f600", "ord_1", "ord_2", "x" * 255)
    with store.begin() as tx:
        tx.advance([Advance(0, claim.epoch, {"t": 1})], 1)
        kinds = ("order", "stock", "price")
        tx.save([Saved(Ref(kind, key), b"{}", "received") for kind in kinds for key in keys])
        held = [
            Waiting(record=_record(topic, n), state="parked", due=0, attempts=1)
            for n, topic in enumerate(("t", "t/u", "u"))
        ]
        tx.defer(held, [])
    return store


_GOOD_ROW = _good_row()
STORE = _store()

TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        row, damaged_row, message, slot, wire, reference, json, catalog, query, path, headers,
        arguments,
    )
}  # fmt: skip
