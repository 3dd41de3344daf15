"""Targets that are wrong on purpose: a fuzzer that does not find them finds nothing."""

from __future__ import annotations

import msgspec

from penstock.embedded.rows import OFFSET_BITS, checksum, unpack
from penstock.errors import Corrupt
from tests.fuzz.json_oracle import slowly
from tests.fuzz.targets import Target
from tests.fuzz.tried import tried


def deep(data: bytes) -> None:
    """Wrong behind comparisons, each of which is a branch to be seen."""
    if data[:1] == b"d" and data[1:2] == b"e" and data[2:3] == b"e" and data[3:4] == b"p":
        raise AssertionError("found")


def trusting(data: bytes) -> None:
    """A JSON entrance that is msgspec alone: it takes a key twice."""
    try:
        taken = msgspec.json.decode(data, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError):
        return
    codes, _ = slowly(data)
    assert "duplicate_key" not in codes, f"taken: {taken}"


def careless(data: bytes) -> None:
    """A log row's reader that believes the count, and trips where a batch ends early."""
    at = 1 << OFFSET_BITS | 10
    given = (at, 3, 7, 0, checksum(at, 3, 7, 0, data), data)
    _, refused = tried((Corrupt,), unpack, "t", given, 0)
    assert "count differs" not in str(refused), "a row of another count was read"


BROKEN: dict[str, Target] = {"deep": deep, "trusting": trusting, "careless": careless}
