"""A retailer's export read strictly: bytes in, rows out, every fault named by its line.

What makes the whole file unreadable (its encoding, a NUL, a field without end, a column that is
not there) is the caller's to mend and raises ``Usage``. What is wrong with one row only is left
to the reader of rows, who sets that row aside.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from msgspec import Struct

from penstock.errors import Usage

FILE_BYTES_MAX = 256 << 20  # read into memory: the rows of one invoice may lie anywhere
FIELD_CHARS_MAX = 4000  # a longer field is an unclosed quote, not a description

# What a row must say, and the names it goes by: ours, Online Retail II, Online Retail.
COLUMNS: dict[str, tuple[str, ...]] = {
    "invoice": ("invoice", "Invoice", "InvoiceNo"),
    "stock_code": ("stock_code", "StockCode"),
    "description": ("description", "Description"),
    "quantity": ("quantity", "Quantity"),
    "invoice_date": ("invoice_date", "InvoiceDate"),
    "unit_price": ("unit_price", "Price", "UnitPrice"),
    "customer_id": ("customer_id", "Customer ID", "CustomerID"),
    "country": ("country", "Country"),
}
MAY_LACK = ("description", "customer_id", "country")  # with --map COLUMN= and nothing after it


class Row(NamedTuple):
    """One row: the line it starts on (1 is the header's) and its fields as they stand."""

    line: int
    fields: tuple[str, ...]


class Export(Struct, frozen=True):
    """A file's header, its rows, and where each column we read stands in them (-1: nowhere)."""

    header: tuple[str, ...]
    rows: tuple[Row, ...]
    places: dict[str, int]

    def cell(self, row: Row, column: str) -> str:
        """The text of one column, without the space around it."""
        place = self.places[column]
        return row.fields[place].strip() if place >= 0 else ""


def read(
    content: bytes, *, columns: Mapping[str, str], delimiter: str = ",", encoding: str = "utf-8"
) -> Export:
    """The rows of a file; ``columns`` says what this shop calls ours. Raises ``Usage``."""
    _check_delimiter(delimiter)
    rows = _rows(_text(content, encoding), delimiter)
    first = next(rows, None)
    if first is None:
        raise Usage("empty_file", "The file is empty.", "Give a CSV file with a header line.")
    header = tuple(name.strip() for name in first.fields)
    places = _places(header, columns, delimiter)
    return Export(header, tuple(rows), places)


def _check_delimiter(delimiter: str) -> None:
    if len(delimiter) != 1 or delimiter in '"\r\n\0 ':
        raise Usage(
            "bad_delimiter", f"{delimiter!r} cannot separate fields.", "Give one character, as ';'."
        )


def _text(content: bytes, encoding: str) -> str:
    """The file's text; a byte order mark is taken off."""
    if len(content) > FILE_BYTES_MAX:
        raise Usage(
            "file_too_large",
            f"The file has {len(content):,} bytes; {FILE_BYTES_MAX:,} are read at most.",
            "Split it at an invoice's end and import the parts, in any order.",
        )
    try:
        text = content.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except LookupError:
        raise Usage(
            "unknown_encoding", f"Unknown encoding {encoding!r}.", "Say utf-8 or cp1252."
        ) from None
    except UnicodeDecodeError as wrong:
        raise _not_text(content, encoding, wrong.start) from None
    nul = text.find("\0")
    if nul >= 0:
        line = text.count("\n", 0, nul) + 1
        raise Usage("nul_in_file", f"Line {line} holds a NUL.", "Export the file as CSV text.")
    return text


def _not_text(content: bytes, encoding: str, start: int) -> Usage:
    line = content.count(b"\n", 0, start) + 1
    column = start - content.rfind(b"\n", 0, start)
    return Usage(
        "not_text",
        f"Line {line}, byte {column}: 0x{content[start]:02x} is not {encoding} "
        f"(byte {start + 1} of the file).",
        "Save the file as UTF-8, or give --encoding cp1252 if a spreadsheet wrote it.",
    )


def _rows(text: str, delimiter: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as wrong:
            raise _no_end(line, str(wrong)) from None
        if fields is None:
            return
        if any(len(field) > FIELD_CHARS_MAX for field in fields):
            raise _no_end(line, f"a field is longer than {FIELD_CHARS_MAX:,} characters")
        if fields:  # a blank line is no row
            yield Row(line, tuple(fields))
        line = reader.line_num + 1


def _no_end(line: int, why: str) -> Usage:
    return Usage(
        "not_csv",
        f"The row that starts on line {line} cannot be read: {why}.",
        'Look there for a quote that is not closed or not doubled ("").',
    )


def _places(header: tuple[str, ...], columns: Mapping[str, str], delimiter: str) -> dict[str, int]:
    _check_header(header, columns)
    places: dict[str, int] = {}
    missing: list[str] = []
    for column, names in COLUMNS.items():
        place = _place(header, column, columns.get(column), names)
        if place is None:
            missing.append(_missing(header, column, columns.get(column)))
        else:
            places[column] = place
    if missing:
        raise Usage("missing_column", " ".join(missing), _how_to_map(header, delimiter))
    return places


def _place(
    header: tuple[str, ...], column: str, wanted: str | None, names: tuple[str, ...]
) -> int | None:
    if wanted == "" and column in MAY_LACK:
        return -1
    found = [name for name in ((wanted,) if wanted is not None else names) if name in header]
    return header.index(found[0]) if found else None


def _check_header(header: tuple[str, ...], columns: Mapping[str, str]) -> None:
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise Usage(
            "duplicate_column",
            f"The header names {', '.join(map(repr, twice))} more than once.",
            "Rename one of them: it cannot be told which to read.",
        )
    for column in columns:
        if column not in COLUMNS:
            raise Usage(
                "unknown_column",
                f"--map {column}=... names no column of an order.",
                _did_you_mean(column, tuple(COLUMNS)) or f"Columns: {', '.join(COLUMNS)}.",
            )


def _missing(header: tuple[str, ...], column: str, wanted: str | None) -> str:
    if wanted is not None:
        return f"No column {wanted!r} for {column}. {_did_you_mean(wanted, header)}".strip()
    return f"No column for {column}. {_did_you_mean(column, header)}".strip()


def _how_to_map(header: tuple[str, ...], delimiter: str) -> str:
    for other in ";\t|,":
        if other != delimiter and len(header) == 1 and other in header[0]:
            return f"The header holds {other!r}: give --delimiter {other!r}."
    return f"Map it: --map invoice=NAME. The header says: {', '.join(header)[:300]}."


def _did_you_mean(word: str, words: tuple[str, ...]) -> str:
    plain = {w.lower().replace(" ", "_"): w for w in reversed(words)}
    close = difflib.get_close_matches(word.lower(), plain, 1, 0.6)
    return f"Did you mean {plain[close[0]]!r}?" if close else ""
