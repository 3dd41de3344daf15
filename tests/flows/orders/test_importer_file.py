"""Reading the file itself: strict, bounded, and every fault named by its line."""

from __future__ import annotations

import contextlib
import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import Usage
from penstock.flows.orders import export
from penstock.flows.orders.importer import Plan, Reading, outcomes, plan

HEADER = "invoice,stock_code,description,quantity,invoice_date,unit_price,customer_id,country\n"
ROW = "1001,22423,CAKESTAND,2,2010-01-04T10:24:00,12.75,12417,Belgium\n"


def refused(content: bytes, reading: Reading | None = None) -> Usage:
    """The problem that reading the content ends with."""
    with pytest.raises(Usage) as problem:
        plan(content, reading or Reading())
    return problem.value


def lines(made: Plan) -> list[int]:
    """The lines of the file where its rows start."""
    return [row.line for row in made.rows]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_file_of_any_system_is_read(mark: bytes, end: str) -> None:
    made = plan(mark + (HEADER + ROW).replace("\n", end).encode(), Reading())
    assert len(made.requests) == 1


def test_quoted_fields_may_hold_delimiters_quotes_and_lines() -> None:
    odd = ROW.replace("CAKESTAND", '"CAKE, ""STAND""\nOF TWO\n"')
    made = plan((HEADER + odd + "\n" + ROW.replace("1001", "1002")).encode(), Reading())
    assert lines(made) == [2, 6]
    assert b'"CAKE, \\"STAND\\" OF TWO' in made.requests[0].body


@pytest.mark.parametrize(
    ("first", "delimiter"),
    [
        ("Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country", ","),
        ("InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country", ","),
        ("Invoice;StockCode;Description;Quantity;InvoiceDate;Price;Customer ID;Country", ";"),
        ("Invoice\tStockCode\tDescription\tQuantity\tInvoiceDate\tPrice\tCustomer ID\tCountry",
         "tab"),
    ],
)  # fmt: skip
def test_published_headers_are_known(first: str, delimiter: str) -> None:
    text = first + "\n" + ROW.replace(",", "\t" if delimiter == "tab" else delimiter)
    assert len(plan(text.encode(), Reading(delimiter=delimiter)).requests) == 1


def test_another_shop_s_columns_are_mapped() -> None:
    text = "no;sku;qty;when;each\n7;A1;3;04/07/2010 10:24;0.85\n"
    columns = {
        "invoice": "no", "stock_code": "sku", "quantity": "qty", "invoice_date": "when",
        "unit_price": "each", "description": "", "customer_id": "", "country": "",
    }  # fmt: skip
    reading = Reading(columns=columns, delimiter=";", date_format="%d/%m/%Y %H:%M")
    (request,) = plan(text.encode(), reading).requests
    assert b'"placed_at":"2010-07-04T09:24:00Z"' in request.body


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (b"", "empty_file", "empty"),
        ((HEADER + ROW).encode() + b"1002,2\xe94", "not_text", "Line 3, byte 7: 0xe9"),
        ((HEADER + ROW + "1002,\0").encode(), "nul_in_file", "Line 3"),
        ((HEADER + ROW + '1002,"never closed\n' + ROW).encode(), "not_csv", "line 3"),
        ((HEADER + ROW + '1002,"a"b,\n').encode(), "not_csv", "line 3"),
        ((HEADER + "1" * 5000 + "\n").encode(), "not_csv", "line 2"),
        ((HEADER + "1" * 200_000 + "\n").encode(), "not_csv", "line 2"),
        (HEADER.replace("country", "invoice").encode(), "duplicate_column", "'invoice'"),
        (HEADER.replace("quantity", "quantty").encode(), "missing_column", "mean 'quantty'?"),
        (HEADER.replace(",", ";").encode(), "missing_column", "--delimiter ';'"),
        ((HEADER + ROW).encode("utf-16"), "not_text", "Line 1, byte 1"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_line(
    content: bytes, code: str, said: str
) -> None:
    problem = refused(content)
    assert (problem.code, problem.exit_code) == (code, 2)
    assert said in str(problem)


@pytest.mark.parametrize(
    ("columns", "said"),
    [({"invoise": "x"}, "mean 'invoice'?"), ({"invoice": "Invoice_no"}, "mean 'invoice'?")],
)
def test_a_wrong_mapping_is_refused_with_what_was_meant(columns: dict[str, str], said: str) -> None:
    assert said in str(refused((HEADER + ROW).encode(), Reading(columns=columns)))


def test_what_every_order_needs_cannot_be_mapped_away() -> None:
    assert refused((HEADER + ROW).encode(), Reading(columns={"invoice": ""})).code == (
        "missing_column"
    )


def test_an_older_encoding_is_read_when_named() -> None:
    text = (HEADER + ROW.replace("CAKESTAND", "CAFÉ £")).encode("cp1252")
    assert "CAFÉ £".encode() in plan(text, Reading(encoding="cp1252")).requests[0].body


@pytest.mark.parametrize("encoding", ["klingon", "base64", "zlib", "rot13"])
def test_an_encoding_of_no_text_is_refused(encoding: str) -> None:
    assert refused(HEADER.encode(), Reading(encoding=encoding)).code == "unknown_encoding"


@pytest.mark.parametrize("delimiter", ["", "::", '"', "\n", "\0"])
def test_a_delimiter_that_cannot_be_one_is_refused(delimiter: str) -> None:
    assert refused(HEADER.encode(), Reading(delimiter=delimiter)).code == "bad_delimiter"


def test_a_file_beyond_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "FILE_BYTES_MAX", 10)
    assert refused((HEADER + ROW).encode()).code == "file_too_large"


CELLS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["1001", "C1", "POST", "M", "-1", "2", "2.95", "0.001", "2010-01-04", '"', ""]),
)


@given(st.lists(st.lists(CELLS, min_size=7, max_size=9), max_size=6))
def test_whatever_a_row_holds_it_is_accounted_for(rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    try:
        made = plan((HEADER + text.getvalue()).encode(), Reading())
    except Usage:
        return
    assert sum(outcomes(made, {}).values()) == len(made.rows)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    for start in (b"", HEADER.encode()):
        with contextlib.suppress(Usage):
            plan(start + content, Reading())
