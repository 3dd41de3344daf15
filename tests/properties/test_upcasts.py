"""Chains of versions: any record of any version opens as the class of today, step by step."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from penstock.contracts.contract import Contract, Older
from penstock.contracts.derive import derive
from penstock.contracts.verdict import breaches
from penstock.contracts.wire import Book, as_is
from penstock.errors import Malformed, UnknownSchema

FIELDS = "abcdef"
VALUES = st.integers(-1000, 1000)
Fields = dict[str, int]


class Edit(Struct, frozen=True):
    """What one version changes: a field added (``note`` its default), dropped, renamed, or told
    in another unit (``note`` times as many)."""

    kind: str
    field: str
    other: str
    note: int

    def applies(self, fields: set[str]) -> bool:
        """Whether a class of these fields can be changed so."""
        if self.kind == "add":
            return self.field not in fields
        free = self.kind != "rename" or self.other not in fields
        return self.field in fields and free and len(fields) > 1

    def of(self, record: Fields) -> Fields:
        """The record of the version before, as one of this version."""
        after = dict(record)
        match self.kind:
            case "add":
                after[self.field] = self.note
            case "drop":
                del after[self.field]
            case "rename":
                after[self.other] = after.pop(self.field)
            case "scale":
                after[self.field] *= self.note
        return after


EDITS = st.lists(
    st.builds(
        Edit, st.sampled_from(("add", "drop", "rename", "scale")), st.sampled_from(FIELDS),
        st.sampled_from(FIELDS), st.integers(2, 9),
    ),
    max_size=8,
)


class History:
    """A contract's versions: their fields, the edits between them, and the contract itself."""

    def __init__(self, edits: list[Edit], plain: bool) -> None:
        self.versions: list[Fields] = [{"a": 0, "b": 0}]  # field -> its default, 0 where none
        self.edits: list[Edit] = []
        gone: set[str] = set()  # a name that comes back would find what it meant before
        for edit in edits:
            if edit.applies(set(self.versions[-1])) and edit.field not in gone:
                self.edits.append(edit)
                self.versions.append(self._changed(edit))
                gone |= {edit.field} if edit.kind == "drop" else set()
        self.classes = [self._class(n, fields) for n, fields in enumerate(self.versions)]
        self.unchanged = [plain and edit.kind in ("add", "drop") for edit in self.edits]
        self.contract = Contract(
            type="made.up", version=len(self.versions), model=self.classes[-1],
            older=tuple(self._older(n) for n in range(len(self.edits))),
        )

    def _changed(self, edit: Edit) -> Fields:
        """Only an added field has a default: a reader of the one before could not know others."""
        before = self.versions[-1]
        return {
            name: edit.note if (edit.kind, edit.field) == ("add", name) else before.get(name, 0)
            for name in edit.of(before)
        }

    def _class(self, number: int, fields: Fields) -> Any:
        rows: list[Any] = [(n, int, default) if default else (n, int)
                           for n, default in fields.items()]
        return msgspec.defstruct(f"MadeUpV{number + 1}", rows, frozen=True, kw_only=True)

    def read_by(self, number: int) -> int:
        """The version whose class reads this one's records: its own, or, where they are read as
        they are, the next that has one."""
        while number < len(self.unchanged) and self.unchanged[number]:
            number += 1
        return number

    def _older(self, number: int) -> Older:
        model = self.classes[self.read_by(number)]
        if self.unchanged[number]:
            return Older(number + 1, model, as_is)
        return Older(number + 1, model, self._upcast(number))

    def _upcast(self, number: int) -> Any:
        """To the next version, as the class that reads it says it."""
        after, edits = self.classes[self.read_by(number + 1)], self.edits

        def up(old: Any) -> Any:
            record = msgspec.structs.asdict(old)
            for edit in edits[number : self.read_by(number + 1)]:
                record = edit.of(record)
            return after(**record)

        return up

    def brought_up(self, record: Fields, version: int) -> Fields:
        """A record of a version, by the edits alone."""
        for edit in self.edits[version - 1 :]:
            record = edit.of(record)
        return record


@settings(max_examples=300, deadline=None, derandomize=True)
@given(EDITS, st.data())
def test_any_version_opens_as_the_class_of_today(edits: list[Edit], data: Any) -> None:
    history = History(edits, plain=data.draw(st.booleans()))
    book = Book([history.contract])
    for version, fields in enumerate(history.versions, 1):
        record = {name: data.draw(VALUES) for name in fields}
        raw = msgspec.json.encode({**record, "unknown_here": [record]})
        opened = book.open("made.up", version, raw)
        assert type(opened) is history.contract.model
        assert msgspec.structs.asdict(opened) == history.brought_up(record, version)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(EDITS, st.data())
def test_a_chain_is_its_parts_one_after_the_other(edits: list[Edit], data: Any) -> None:
    """A record brought up to any version between, sealed there, opens to the same."""
    history = History(edits, plain=False)
    book = Book([history.contract])
    record = {name: data.draw(VALUES) for name in history.versions[0]}
    wanted = book.open("made.up", 1, msgspec.json.encode(record))
    for version in range(1, len(history.versions) + 1):
        assert book.open("made.up", version, msgspec.json.encode(record)) == wanted
        if version <= len(history.edits):
            record = history.edits[version - 1].of(record)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(EDITS)
def test_a_step_read_as_it_is_is_one_that_the_verdict_allows(edits: list[Edit]) -> None:
    history = History(edits, plain=True)
    for number, older in enumerate(history.contract.older):
        if older.upcast is as_is:
            written, read = history.classes[number], older.model
            assert breaches(derive(written, "MadeUp"), derive(read, "MadeUp")) == ()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(EDITS, st.integers(1, 20), st.data())
def test_a_chain_that_begins_late_or_ends_early_says_so(
    edits: list[Edit], version: int, data: Any
) -> None:
    """Versions before its first one and after its last are unknown, never opened as another."""
    history = History(edits, plain=False)
    first = data.draw(st.integers(0, len(history.edits)))
    contract = msgspec.structs.replace(history.contract, older=history.contract.older[first:])
    book = Book([contract])
    raw = msgspec.json.encode(dict.fromkeys(FIELDS, 1))
    if first < version <= contract.version:
        assert type(book.open("made.up", version, raw)) is contract.model
    else:
        with pytest.raises(UnknownSchema):
            book.open("made.up", version, raw)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(EDITS.filter(len), st.data())
def test_a_step_that_fails_makes_that_record_malformed_and_no_other(
    edits: list[Edit], data: Any
) -> None:
    history = History(edits, plain=False)
    broken = data.draw(st.integers(0, max(0, len(history.edits) - 1)))

    def fails(old: Any) -> Any:
        raise ZeroDivisionError("by zero")

    older = list(history.contract.older)
    if older:
        older[broken] = msgspec.structs.replace(older[broken], upcast=fails)
    book = Book([msgspec.structs.replace(history.contract, older=tuple(older))])
    for version, fields in enumerate(history.versions, 1):
        raw = msgspec.json.encode(dict.fromkeys(fields, 1))
        if older and version <= broken + 1:
            with pytest.raises(Malformed, match="by zero"):
                book.open("made.up", version, raw)
        else:
            book.open("made.up", version, raw)
