"""Topics whose values lie in Kafka as Avro: JSON on our side, Confluent's prefix and Avro there.

The five bytes of the prefix name the schema: by the id a registry gave, or without one by 31 bits
of its fingerprint. A value that cannot be read stays as it lies, and is parked with its bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import RLock

from msgspec.structs import replace

from penstock.contracts.avro import Schema, render
from penstock.contracts.binary import (
    HEAD_BYTES,
    Codec,
    Written,
    prefixed,
    schema_id,
    stable_id,
    written,
)
from penstock.contracts.derive import record_name
from penstock.errors import Malformed, NotFound, Problem
from penstock.event import Message, Record
from penstock.log.kafka_registry import Registry
from penstock.ports import TopicSpec

Reference = tuple[str, int]
Schemas = Mapping[str, Mapping[int, Schema]]


class AvroWire:
    """Seals and opens values of Avro topics; threads may share it."""

    def __init__(self, schemas: Schemas, registry: str = "") -> None:
        self._schemas, self._lock = schemas, RLock()
        self._registry = Registry(registry) if registry else None
        self._codecs: dict[Reference, Codec] = {}
        self._ids: dict[tuple[str, Reference], int] = {}
        self._writers: dict[int, Written] = {}
        if self._registry is None:
            self._writers = {
                stable_id(schema): written(render(schema))
                for versions in schemas.values() for schema in versions.values()
            }  # fmt: skip

    def _codec(self, ref: Reference) -> Codec:
        if ref not in self._codecs:
            schema = self._schemas.get(ref[0], {}).get(ref[1])
            if schema is None:
                raise NotFound(
                    "no_snapshot", f"There is no schema snapshot of {ref[0]}/{ref[1]}.",
                    "Run `penstock schema snapshot`, or leave the topic in JSON.",
                )
            self._codecs[ref] = Codec(schema)
        return self._codecs[ref]

    def sealed(self, name: str, m: Message) -> Message:
        """The message as it goes to the topic of this name. Raises ``Problem``, and
        ``Unreachable`` where the registry is away."""
        if not m.type:
            return m
        ref = m.type, m.version
        with self._lock:
            codec = self._codec(ref)
            id_ = self._ids.get((name, ref))
            if id_ is None:
                id_ = self._ids[name, ref] = self._id(name, ref, codec.schema)
        try:
            return replace(m, value=prefixed(id_, codec.write(m.value)))
        except Malformed as error:
            raise Problem(
                "not_avro", f"A record of {ref[0]}/{ref[1]} cannot be written as Avro: {error}.",
                "Leave its topic in JSON, or let the contract say what the values may be.",
            ) from None

    def _id(self, name: str, ref: Reference, schema: Schema) -> int:
        if self._registry is None:
            return stable_id(schema)
        return self._registry.id_of(f"{name}-{record_name(ref[0])}", render(schema))

    def opened(self, spec: TopicSpec, record: Record) -> Record:
        """The record with its value as JSON; as it is where nobody can read it. Raises
        ``Unreachable`` where the registry is away."""
        m = record.message
        id_, ref = schema_id(m.value), (m.type, m.version) if m.type else spec.accepts
        if id_ is None or ref is None:
            return record
        try:
            with self._lock:
                codec, writer = self._codec(ref), self._writer(id_)
            value = codec.read(m.value[HEAD_BYTES:], writer)
        except (Malformed, NotFound):
            return record
        return replace(record, message=replace(m, value=value))

    def _writer(self, id_: int) -> Written:
        if id_ not in self._writers:
            if self._registry is None:
                raise Malformed(f"schema {id_} is not known here")
            self._writers[id_] = written(self._registry.schema_of(id_))
        return self._writers[id_]

    def close(self) -> None:
        """Let go of the registry."""
        if self._registry is not None:
            self._registry.close()
