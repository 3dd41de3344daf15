"""The kept inputs go through their targets, and those that once broke one say what they broke."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import msgspec
import pytest
import zstandard

from penstock.contracts.strict import Unreadable, strict_json
from penstock.contracts.wire import Book
from penstock.embedded.rows import UNPACKED_BYTES_MAX, checksum, message_of, unpack
from penstock.errors import Corrupt, Malformed
from penstock.event import Message, Record
from penstock.flows.orders import FLOW
from penstock.flows.orders.requests import OrderIn
from tests.fuzz.guided import CORPUS, folder_of
from tests.fuzz.targets import TARGETS

CORPUS_BYTES_MAX = 200_000
KEPT = sorted(path for path in CORPUS.rglob("*") if path.is_file())


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_takes_its_corpus(target: str) -> None:
    files = sorted(folder_of(target).iterdir())
    assert files, "a target without a corpus begins from nothing"
    for file in files:
        try:
            TARGETS[target](file.read_bytes())
        except BaseException as error:
            error.add_note(f"the input is {file}")
            raise


def test_the_corpus_is_small_and_all_of_it_is_used() -> None:
    assert sum(path.stat().st_size for path in KEPT) < CORPUS_BYTES_MAX
    assert {path.parent.name for path in KEPT} == TARGETS.keys()


def opened(body: bytes, codec: int, count: int = 1) -> list[Record]:
    """The records of a row whose checksum fits."""
    return unpack("t", (count, count, 0, codec, checksum(count, count, 0, codec, body), body), 0)


# What was found ----------------------------------------------------------------------------------


def test_a_text_that_is_no_utf8_is_corrupt() -> None:
    """msgspec lets it out as a ``UnicodeDecodeError``, past those who catch its own errors."""
    with pytest.raises(Corrupt, match="utf-8"):
        opened(b"\x91\x92\xa1\xff\xc4\x00", 0)
    with pytest.raises(Corrupt, match="utf-8"):
        message_of(b"\x92\xa1\xff\xc4\x00")


@pytest.mark.parametrize("body", [b"", b"\x91", b"\xdd\xff\xff\xff\xff", b"\x91\x92\x01\xc4\x00"])
def test_a_body_that_is_no_row_is_corrupt(body: bytes) -> None:
    for codec in (0, 1):
        with pytest.raises(Corrupt, match="row ending at offset 1"):
            opened(body, codec)


def test_a_frame_is_not_believed_about_its_size() -> None:
    """zstandard allocates what a frame names, whatever the bound: 16 KB took half a gigabyte."""
    named = zstandard.ZstdCompressor(level=1).compress(bytes(UNPACKED_BYTES_MAX + 1))
    with pytest.raises(Corrupt, match=f"at most {UNPACKED_BYTES_MAX}"):
        opened(named, 1)
    silent = zstandard.ZstdCompressor(level=1, write_content_size=False)
    with pytest.raises(Corrupt):
        opened(silent.compress(bytes(UNPACKED_BYTES_MAX + 1)), 1)
    with pytest.raises(Corrupt, match=f"at most {UNPACKED_BYTES_MAX}"):
        opened(named[:50], 1)


def test_a_row_as_large_as_may_be_is_read() -> None:
    value = bytes(8 << 20)
    body = msgspec.msgpack.encode([Message("k", value)])
    (record,) = opened(zstandard.ZstdCompressor(level=1).compress(body), 1)
    assert record.message.value == value


# Time grows as the input does --------------------------------------------------------------------

BOOK = Book(FLOW.contracts)


def strict(raw: bytes) -> None:
    """An order at the door."""
    try:
        strict_json(raw, OrderIn, limit_bytes=1 << 24)
    except Unreadable:
        return


def wire(raw: bytes) -> None:
    """A record."""
    try:
        BOOK.open("order.placed", 2, raw)
    except Malformed:
        return


def row(raw: bytes) -> None:
    """A log row of many messages."""
    try:
        opened(raw, 0)
    except Corrupt:
        return


SHAPES: dict[str, Callable[[int], bytes]] = {
    "brackets": lambda n: b"[" * n,
    "pairs": lambda n: b"[" + b"[]," * n + b"[]]",
    "quotes": lambda n: b'"' * n,
    "escapes": lambda n: b'"' + b"\\" * n + b'"',
    "surrogates": lambda n: b'"' + b"\\ud83d" * n + b'"',
    "digits": lambda n: b"[" + b"1" * n + b"]",
    "keys": lambda n: b"{" + b",".join(b'"%d":1' % i for i in range(n)) + b"}",
    "lines": lambda n: b'{"lines":[' + b",".join([b"{}"] * n) + b"]}",
    "strings of brackets": lambda n: b'["' + b'[",' * n,
    "arrays": lambda n: b"\x91" * n,
    "messages": lambda n: b"\xdd" + n.to_bytes(4, "big") + b"\x92\xa1a\xc4\x00" * n,
}


@pytest.mark.parametrize("reader", [strict, wire, row], ids=lambda reader: reader.__name__)
@pytest.mark.parametrize("shape", SHAPES)
def test_eight_times_the_input_takes_no_thirty_times_as_long(
    reader: Callable[[bytes], None], shape: str
) -> None:
    small, large = SHAPES[shape](15_000), SHAPES[shape](120_000)
    floor = 0.003  # seconds; below it the clock says nothing
    assert cost(reader, large) < 30 * max(cost(reader, small), floor)


def cost(reader: Callable[[bytes], None], raw: bytes) -> float:
    """The least of three in seconds of this process."""
    taken = []
    gc.collect()
    gc.disable()  # a collection looks at all there is: it would be measured instead
    try:
        for _ in range(3):
            began = time.process_time()
            reader(raw)
            taken.append(time.process_time() - began)
    finally:
        gc.enable()
    return min(taken)


FOUND = {
    "broken-key-is-no-utf8": test_a_text_that_is_no_utf8_is_corrupt,
    "broken-bomb-names-its-size": test_a_frame_is_not_believed_about_its_size,
}


def test_what_once_broke_a_target_has_a_test_of_its_own() -> None:
    assert {path.name for path in KEPT if path.name.startswith("broken-")} == FOUND.keys()
