"""Whether a reader can take what a writer writes: all breaches at once, each with its fix.

Our own checker, because the ones there are do not see a change of unit or logical type, know
nothing of JSON, and name a place as ``/fields/1/type/items/fields/1``. ``wire`` says how records
travel. As JSON: names of types do not matter, aliases do not exist (a rename loses the field),
bytes are base64 text. As Avro: both as the specification has it.

Backward: the new version reads what the old one wrote. Forward: the old one reads what the new
one writes. Full: both. Transitive: against every older version, which is what a replay needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct

from penstock.contracts import avro
from penstock.contracts.avro import Schema, Type, spell

Wire = Literal["json", "avro"]
Level = Literal["backward", "forward", "full"]
Direction = Literal["backward", "forward"]
DIRECTIONS: dict[Level, tuple[Direction, ...]] = {
    "backward": ("backward",),
    "forward": ("forward",),
    "full": ("backward", "forward"),
}
BREACHES_MAX = 1000  # schemas that share types can have more paths than anybody reads
EXACT_INTEGER_MAX = 1 << 53  # above it, JSON readers that use doubles lose digits

_PROMOTED = {
    ("int", "long"),
    ("int", "float"),
    ("int", "double"),
    ("long", "float"),
    ("long", "double"),
    ("float", "double"),
}
_PROMOTED_IN_AVRO = _PROMOTED | {("string", "bytes"), ("bytes", "string")}


# code -> what to do about it: backward (the reader is being changed), forward (the writer is)
_FIXES = {
    "null_refused": (
        "Keep the type nullable, or register an upcast.",
        "Keep sending a value: the services of today cannot read null there.",
    ),
    "type_changed": (
        "Add a new field beside the old one, or register an upcast.",
        "Keep sending the old field as it was, and add a new one beside it.",
    ),
    "json_form_changed": (
        "Keep the Python type, or add a new field.",
        "Keep the Python type, or add a new field.",
    ),
    "logical_type_changed": (
        "Add a new field with its own name, or register an upcast that converts.",
        "Keep sending the old field as it was, and add a new one with its own name.",
    ),
    "unit_changed": (
        "Add a new field named after its unit, or register an upcast that converts.",
        "Keep sending the old field, and add a new one named after its unit.",
    ),
    "name_changed": (
        "Keep the name, or make the old one an alias of the new type.",
        "Keep the name: the readers of today do not know another.",
    ),
    "symbol_unknown": (
        "Keep the symbols, or give the enum a default for unknown ones.",
        "Do not send it before every reader's enum has a default for unknown symbols.",
    ),
    "field_renamed": (
        "Keep the old name, or register an upcast that moves the value.",
        "Send the value under its old name too.",
    ),
    "default_missing": (
        "Give the field a default, or register an upcast.",
        "Keep sending the field: the services of today need it.",
    ),
}


class Breach(Struct, frozen=True, kw_only=True):
    """One reason why the reader fails on the writer's records. ``code`` is stable."""

    code: str
    path: str
    writer: str
    reader: str
    message: str
    fix: str
    consumers: tuple[str, ...] = ()

    def __str__(self) -> str:
        hit = f" Hit: {', '.join(self.consumers)}." if self.consumers else ""
        return f"{self.path or 'the record'}: {self.message}{hit} {self.fix}"


class Verdict(Struct, frozen=True, kw_only=True):
    """One direction between two versions. ``bridged``: an upcast stands in for compatibility."""

    direction: Direction
    old: int
    new: int
    breaches: tuple[Breach, ...] = ()
    bridged: bool = False

    @property
    def passed(self) -> bool:
        """Whether nothing is broken, or an upcast mends it."""
        return self.bridged or not self.breaches


def breaches(
    writer: Schema,
    reader: Schema,
    direction: Direction = "backward",
    *,
    wire: Wire = "json",
    consumers: Sequence[str] = (),
) -> tuple[Breach, ...]:
    """Every reason why ``reader`` cannot take what ``writer`` wrote; empty when it can.

    ``direction`` says whose side is being changed (backward: the reader's), for the fixes.
    ``consumers`` are the names of those who are hit; every breach names them.
    """
    pass_ = _Pass(writer, reader, direction, wire, tuple(consumers))
    pass_.compare(writer.root, reader.root, "")
    return tuple(pass_.found)


def judge(
    new: tuple[int, Schema],
    older: Iterable[tuple[int, Schema]],
    level: Level = "backward",
    *,
    wire: Wire = "json",
    consumers: Sequence[str] = (),
    upcasts: Iterable[int] = (),
) -> list[Verdict]:
    """The new version against each older one given; all of them make it transitive.

    ``upcasts`` are the older versions whose records an upcast brings up: backward, they pass.
    """
    bridged, found = frozenset(upcasts), []
    for version, schema in older:
        for direction in DIRECTIONS[level]:
            pair = (schema, new[1]) if direction == "backward" else (new[1], schema)
            broken = breaches(*pair, direction, wire=wire, consumers=consumers)
            found.append(
                Verdict(
                    direction=direction,
                    old=version,
                    new=new[0],
                    breaches=broken,
                    bridged=bool(broken) and direction == "backward" and version in bridged,
                )
            )
    return found


def rollout(backward: bool, forward: bool) -> str:
    """Who may be upgraded first, in one sentence."""
    if backward and forward:
        return "Publishers and consumers may be upgraded in any order."
    if backward:
        return "Upgrade every consumer first, then the publisher."
    if forward:
        return "Upgrade the publisher first; consumers cannot go first."
    return "Neither may go first: publish it as a new event type, both for a while."


def advice(schema: Schema) -> list[str]:
    """What is allowed and will hurt later."""
    said = []
    for name, definition in schema.named.items():
        if isinstance(definition, avro.Enum) and not definition.default:
            said.append(
                f"enum {name} has no default, so its next symbol breaks every reader of today. "
                "Give the Enum class a _missing_ that returns a member."
            )
        if isinstance(definition, avro.Record):
            said += [
                f"{name}.{f.name}: the default {f.default} is above 2^53; JSON readers that use "
                "doubles change it. Use text."
                for f in definition.fields
                if isinstance(f.default, int) and abs(f.default) > EXACT_INTEGER_MAX
            ]
    return said


class _Pass:
    """One comparison. Pairs of records under way, or known to be fine, are not entered again."""

    def __init__(
        self,
        writer: Schema,
        reader: Schema,
        direction: Direction,
        wire: Wire,
        consumers: tuple[str, ...],
    ) -> None:
        self.writer, self.reader, self.wire = writer, reader, wire
        self.direction, self.consumers = direction, consumers
        self.found: list[Breach] = []
        self.entered: set[tuple[str, str]] = set()

    def add(self, code: str, path: str, w: Type | None, r: Type | None, say: str) -> None:
        self.found.append(
            Breach(
                code=code,
                path=path,
                writer=spell(self.writer, w) if w is not None else "nothing",
                reader=spell(self.reader, r) if r is not None else "nothing",
                message=say,
                fix=_FIXES[code][self.direction == "forward"],
                consumers=self.consumers,
            )
        )

    def compare(self, w: Type, r: Type, path: str) -> None:
        """One writer type against one reader type."""
        match self.writer.at(w), self.reader.at(r):
            case avro.Nullable() as writes, avro.Nullable() as reads:
                self.compare(writes.of, reads.of, path)
            case avro.Scalar(type="null"), avro.Nullable():
                pass
            case avro.Nullable() as writes, reads:
                self.null_refused(w, r, path)
                self.compare(writes.of, reads, path)
            case writes, avro.Nullable() as reads:
                self.compare(writes, reads.of, path)
            case avro.Scalar() as writes, avro.Scalar() as reads:
                self.scalars(writes, reads, path)
            case avro.Array() as writes, avro.Array() as reads:
                self.compare(writes.items, reads.items, f"{path}[]")
            case avro.Map() as writes, avro.Map() as reads:
                self.compare(writes.values, reads.values, f"{path}{{}}")
            case avro.Enum() as writes, avro.Enum() as reads:
                self.enums(writes, reads, path)
            case avro.Fixed() as writes, avro.Fixed() as reads:
                self.fixed(writes, reads, path)
            case avro.Record() as writes, avro.Record() as reads:
                self.records(writes, reads, path)
            case writes, reads:
                self.changed(writes, reads, path)

    def null_refused(self, w: Type, r: Type, path: str) -> None:
        inner = spell(self.reader, r)
        if inner == "null":
            return
        self.add(
            "null_refused",
            path,
            w,
            r,
            f"the writer sends {spell(self.writer, w)}, the reader takes {inner} only.",
        )

    def changed(self, w: Type, r: Type, path: str) -> None:
        before, after = spell(self.writer, w), spell(self.reader, r)
        self.add(
            "type_changed",
            path,
            w,
            r,
            f"the writer sends {before}, the reader takes {after}.",
        )

    def scalars(self, w: avro.Scalar, r: avro.Scalar, path: str) -> None:
        promoted = _PROMOTED if self.wire == "json" else _PROMOTED_IN_AVRO
        if w.type != r.type and (w.type, r.type) not in promoted:
            return self.changed(w, r, path)
        self.meaning(w, r, path)
        self.unit(w.unit, r.unit, w, r, path)
        if self.wire == "json" and w.json != r.json:
            before, after = spell(self.writer, w), spell(self.reader, r)
            self.add(
                "json_form_changed",
                path,
                w,
                r,
                f"the JSON form changes: the writer sends {before}, the reader takes {after}.",
            )

    def meaning(self, w: avro.Scalar | avro.Fixed, r: avro.Scalar | avro.Fixed, path: str) -> None:
        if w.logical == r.logical:
            return
        before, after = spell(self.writer, w), spell(self.reader, r)
        self.add(
            "logical_type_changed",
            path,
            w,
            r,
            f"the meaning changes: the writer sends {before}, the reader takes {after}; the "
            "same bytes would be read as another value.",
        )

    def unit(self, before: str, after: str, w: Type, r: Type, path: str) -> None:
        if before == after:
            return
        self.add(
            "unit_changed",
            path,
            w,
            r,
            f"the unit changes from {before or 'none'} to {after or 'none'}.",
        )

    def named_alike(self, w: avro.Definition, r: avro.Definition, path: str) -> bool:
        """Avro matches named types by simple name or the reader's alias; JSON has no names."""
        simple = w.name.rpartition(".")[2] == r.name.rpartition(".")[2]
        if self.wire == "json" or simple or w.name in r.aliases:
            return True
        self.add(
            "name_changed",
            path,
            w,
            r,
            f"the writer's type is called {w.name}, the reader's {r.name}.",
        )
        return False

    def enums(self, w: avro.Enum, r: avro.Enum, path: str) -> None:
        self.named_alike(w, r, path)
        unknown = [s for s in w.symbols if s not in r.symbols]
        if not unknown or r.default:
            return
        self.add(
            "symbol_unknown",
            path,
            w,
            r,
            f"the writer's enum {w.name} has {', '.join(unknown)}, and the reader's {r.name} does "
            "not, nor a default.",
        )

    def fixed(self, w: avro.Fixed, r: avro.Fixed, path: str) -> None:
        self.named_alike(w, r, path)
        if w.size != r.size:
            self.changed(w, r, path)
        else:
            self.meaning(w, r, path)

    def records(self, w: avro.Record, r: avro.Record, path: str) -> None:
        pair, before = (w.name, r.name), len(self.found)
        if pair in self.entered or before >= BREACHES_MAX:
            return
        self.entered.add(pair)
        self.named_alike(w, r, path)
        for field in r.fields:
            inner = f"{path}.{field.name}" if path else field.name
            source = self.source(w, field)
            if source is None:
                self.missing(w, field, inner)
            else:
                self.unit(source.unit, field.unit, source.type, field.type, inner)
                self.compare(source.type, field.type, inner)
        if len(self.found) > before:
            self.entered.discard(pair)

    def source(self, w: avro.Record, field: avro.Field) -> avro.Field | None:
        """The writer's field that fills the reader's."""
        names = (field.name, *field.aliases) if self.wire == "avro" else (field.name,)
        return next((f for name in names if (f := w.field(name)) is not None), None)

    def missing(self, w: avro.Record, field: avro.Field, path: str) -> None:
        renamed = next((f for a in field.aliases if (f := w.field(a)) is not None), None)
        if renamed is not None:
            self.add(
                "field_renamed",
                path,
                renamed.type,
                field.type,
                f"{renamed.name} is now called {field.name}, and JSON knows no aliases: the "
                "value would be lost.",
            )
        elif not field.has_default:
            self.add(
                "default_missing",
                path,
                None,
                field.type,
                f"the writer does not send it, and the reader's {spell(self.reader, field.type)} "
                "has no default.",
            )
