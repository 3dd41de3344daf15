"""Values that lie in Kafka as Avro, as the JSON that they stand for.

Decoded by ``docs/reference/kafka.md`` and the schemas, and nothing else: a zero byte, the id of the
writer's schema in four bytes, Avro's binary form. The id is a registry's, or of a snapshot. What
cannot be read stays as it lies, and says why.

Avro keeps less than JSON: a moment has no zone, a float may have 32 bits. So whether a value that
is kept elsewhere is that of a record is asked by meaning (``same``).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from hashlib import sha256
from http.client import HTTPException
from io import BytesIO
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import fastavro
import msgspec

from penstock.sim.audit.books import Fact
from penstock.sim.audit.kinds import Kind, kind_of
from penstock.sim.audit.opening import Unfit

HEAD_BYTES, ID_MASK = 5, 0x7FFFFFFF
ANSWER_SECONDS_MAX = 10.0
_CONTENT = "application/vnd.schemaregistry.v1+json"
_BROKEN = (
    msgspec.MsgspecError, ValueError, TypeError, KeyError, IndexError, EOFError, ArithmeticError,
    RecursionError, AttributeError, MemoryError, fastavro.schema.SchemaParseException,
    fastavro.read.SchemaResolutionError,
)  # fmt: skip
# What readers and writers must agree on; docs and tags are left out.
_SHAPE = frozenset(
    ("type", "name", "namespace", "aliases", "fields", "symbols", "default", "size", "items",
     "values", "logicalType", "precision", "scale", "json", "unit")
)  # fmt: skip
_MEANINGS = frozenset(("logicalType", "precision", "scale"))
Ref = tuple[str, int]


class _Unreadable(Exception):
    """Why a value stays as it lies."""


class Avro:
    """What a catalog says of its topics in Avro, and the schemas met so far."""

    def __init__(
        self, topics: Collection[str], contracts: Mapping[str, Any], registry: str = "",
        accepts: Mapping[str, Ref] | None = None,
    ) -> None:  # fmt: skip
        self._topics, self._contracts, self._accepts = topics, contracts, accepts or {}
        self._registry = _Registry(registry) if registry else None
        self._ids = {} if registry else {snapshot_id(s): s for s in contracts.values()}
        self._writers: dict[int, Any] = {}
        self._readers: dict[Ref, tuple[Any, Kind]] = {}

    def opened(self, fact: Fact, content: bytes = b"") -> Fact:
        """The record with its value as JSON, or as it lies with the reason; ``content`` is its
        content type. Raises ``Unfit`` where the registry does not answer."""
        ref = self._ref(fact)
        if fact.topic not in self._topics or ref is None:
            return fact
        if len(fact.value) < HEAD_BYTES or fact.value[:1] != b"\0":
            lacking = content == b"application/avro"
            return fact._replace(unread="it is no Avro: its prefix is missing") if lacking else fact
        try:
            return fact._replace(value=self._read(ref, fact.value))
        except _Unreadable as why:
            return fact._replace(unread=f"it is no Avro: {why}"[:300])

    def _ref(self, fact: Fact) -> Ref | None:
        """Type and version of the contract that a record is read by."""
        return (fact.type, fact.version) if fact.type else self._accepts.get(fact.topic)

    def _read(self, ref: Ref, value: bytes) -> bytes:
        reader, kind = self._reader(ref)
        writer = self._writer(int.from_bytes(value[1:HEAD_BYTES], "big"))
        source = BytesIO(value[HEAD_BYTES:])
        try:
            found = fastavro.schemaless_reader(
                source, writer, reader if writer != reader else None
            )
            if source.read(1):
                raise _Unreadable("bytes are left over")
            return msgspec.json.encode(kind.said(found))
        except _BROKEN as error:
            raise _Unreadable(f"{type(error).__name__}: {error}") from None

    def _reader(self, ref: Ref) -> tuple[Any, Kind]:
        if ref not in self._readers:
            name = f"{ref[0]}/{ref[1]}"
            if name not in self._contracts:
                raise _Unreadable(f"there is no snapshot of {name}")
            schema = self._contracts[name]
            try:
                self._readers[ref] = _parsed(schema), kind_of(schema)
            except _BROKEN as error:
                raise _Unreadable(f"the snapshot of {name} cannot be used: {error}") from None
        return self._readers[ref]

    def _writer(self, id_: int) -> Any:
        if id_ not in self._writers:
            try:
                self._writers[id_] = _parsed(self._schema(id_))
            except _Unreadable as why:
                self._writers[id_] = why
            except _BROKEN as error:
                self._writers[id_] = _Unreadable(f"schema {id_} cannot be used: {error}")
        found = self._writers[id_]
        if isinstance(found, _Unreadable):
            raise found
        return found

    def _schema(self, id_: int) -> Any:
        if self._registry is not None:
            return self._registry.schema_of(id_)
        if id_ not in self._ids:
            raise _Unreadable(f"no snapshot has the id {id_}")
        return self._ids[id_]

    def same(self, fact: Fact, value: bytes) -> bool:
        """Is a value that is kept elsewhere that of this record?"""
        ref = self._ref(fact)
        if value == fact.value:
            return True
        if fact.topic not in self._topics or ref is None or fact.unread:
            return False
        try:
            _, kind = self._reader(ref)
            first, then = (kind.meant(msgspec.json.decode(raw)) for raw in (value, fact.value))
        except (_Unreadable, *_BROKEN):
            return False
        return bool(first == then)


class _Registry:
    """A Confluent-compatible schema registry."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        if urlsplit(url).scheme not in ("http", "https"):
            raise Unfit("The registry in [kafka] is no address.", "Write http://host:port.")

    def schema_of(self, id_: int) -> Any:
        """The schema of an id. Raises ``Unfit`` where there is no registry that answers."""
        asked = Request(f"{self._url}/schemas/ids/{id_}", headers={"accept": _CONTENT})
        try:
            with urlopen(asked, timeout=ANSWER_SECONDS_MAX) as reply:
                said = msgspec.json.decode(reply.read())
            kind, text = said.get("schemaType", "AVRO"), said["schema"]
        except HTTPError as error:
            error.close()
            if error.code == 404:
                raise _Unreadable(f"the registry does not know schema {id_}") from None
            raise _silent(f"it answers {error.code}") from None
        except (OSError, HTTPException, *_BROKEN) as error:
            raise _silent(str(error)) from None
        if kind != "AVRO":
            raise _Unreadable(f"schema {id_} of the registry is {kind}")
        return msgspec.json.decode(text)


def _silent(why: str) -> Unfit:
    return Unfit(
        f"The schema registry cannot be asked: {why}.",
        "Look at `registry` in [kafka]: without it nobody can read the topics in Avro.",
    )


# Schemas -----------------------------------------------------------------------------------------


def snapshot_id(schema: Any) -> int:
    """The id that stands for a snapshot where no registry gives one."""
    text = json.dumps(_only(schema, _SHAPE), sort_keys=True, separators=(",", ":"))
    return int.from_bytes(sha256(text.encode()).digest()[:4], "big") & ID_MASK


def _only(schema: Any, kept: Collection[str]) -> Any:
    """The schema with these attributes only; a type that is nothing but a name is that name."""
    if isinstance(schema, list):
        return [_only(branch, kept) for branch in schema]
    if not isinstance(schema, Mapping):
        return schema
    out = {name: said for name, said in schema.items() if name in kept}
    for name in ("type", "items", "values", "fields"):
        if name in out:
            out[name] = _only(out[name], kept)
    return out["type"] if out.keys() == {"type"} else out


def _parsed(schema: Any) -> Any:
    """For the reader of bytes, which is to take numbers and bytes as they lie there."""
    bare = _only(schema, _SHAPE - _MEANINGS)
    return fastavro.parse_schema(bare, named_schemas={}, _write_hint=False)
