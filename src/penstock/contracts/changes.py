"""What differs between two schemas, path by path, for people and for tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

from msgspec import Struct

from penstock.contracts import avro
from penstock.contracts.avro import Schema, Type, spell

Facets = dict[str, str]


class Change(Struct, frozen=True, kw_only=True):
    """One difference: ``what`` is ``added``, ``removed``, or the facet that changed."""

    path: str
    what: Literal["added", "removed", "type", "default", "aliases", "unit", "doc", "tags"]
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        if self.what == "added":
            return f"{self.path} is new: {self.after}"
        if self.what == "removed":
            return f"{self.path} is gone: {self.before}"
        return f"{self.path}: {self.what} was {self.before or 'none'}, is {self.after or 'none'}"


def changes(old: Schema, new: Schema) -> list[Change]:
    """Every difference, in the order of the new schema's fields, removed ones last."""
    before, after = dict(_rows(old, old.root, "")), dict(_rows(new, new.root, ""))
    found: list[Change] = []
    for path, facets in after.items():
        found += _differences(path, before.get(path), facets)
    return found + [
        Change(path=path, what="removed", before=_sentence(facets))
        for path, facets in before.items()
        if path not in after and _parent(path) in (*after, "")
    ]


def _differences(path: str, before: Facets | None, after: Facets) -> list[Change]:
    if before is None:
        return [Change(path=path, what="added", after=_sentence(after))]
    facets: tuple[Any, ...] = ("type", "default", "aliases", "unit", "doc", "tags")
    return [
        Change(path=path or "(the record)", what=what, before=before[what], after=after[what])
        for what in facets
        if before[what] != after[what]
    ]


def _parent(path: str) -> str:
    """The path one field up; removed records are told once, not field by field."""
    return path.rpartition(".")[0].rstrip("[]{}")


def _sentence(facets: Facets) -> str:
    default = f" = {facets['default']}" if facets["default"] else ", required"
    return facets["type"] + default


def _rows(
    schema: Schema, type: Type, path: str, inside: tuple[str, ...] = ()
) -> Iterator[tuple[str, Facets]]:
    """Every field and its facets; a record inside itself is not entered again."""
    definition = schema.at(type)
    match definition:
        case avro.Array(items=inner):
            yield from _rows(schema, inner, f"{path}[]", inside)
        case avro.Map(values=inner):
            yield from _rows(schema, inner, f"{path}{{}}", inside)
        case avro.Nullable(of=inner):
            yield from _rows(schema, inner, path, inside)
        case avro.Record() as record if record.name not in inside:
            if not inside:
                yield "", _facets(record.name, "", record.aliases, "", record.doc, record.tags)
            for field in record.fields:
                inner_path = f"{path}.{field.name}" if path else field.name
                yield inner_path, _field_facets(schema, field)
                yield from _rows(schema, field.type, inner_path, (*inside, record.name))


def _field_facets(schema: Schema, field: avro.Field) -> Facets:
    default = json.dumps(field.default, sort_keys=True) if field.has_default else ""
    spelled = spell(schema, field.type)
    definition = schema.at(field.type)
    if isinstance(definition, avro.Enum) and definition.default:
        spelled += f" else {definition.default}"
    return _facets(spelled, default, field.aliases, field.unit, field.doc, field.tags)


def _facets(
    type: str, default: str, aliases: tuple[str, ...], unit: str, doc: str, tags: dict[str, Any]
) -> Facets:
    return {
        "type": type,
        "default": default,
        "aliases": ", ".join(aliases),
        "unit": unit,
        "doc": doc,
        "tags": json.dumps(tags, sort_keys=True) if tags else "",
    }
