"""Entries of the journal: what somebody wants or did, each linked to the one before it.

The link travels inside the entry's own JSON, as its first three fields: the number ``seq``, the
hash ``prev`` of the entry before, and ``hash``: SHA-256 over the value's exact bytes with the 64
digits of ``hash`` itself as zeros. So whoever has the bytes and SHA-256 can verify a journal.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256
from typing import Any, ClassVar, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

UNLINKED = "0" * 64  # the ``prev`` of the first entry, and what stands for ``hash`` while hashing
RETRY_REQUESTED = "deadletter.retry_requested"
DISCARD_REQUESTED = "deadletter.discard_requested"
RETRIED = "deadletter.retried"
DISCARDED = "deadletter.discarded"

_ENCODE: Callable[[Any], bytes] = msgspec.json.Encoder().encode
_LINK = re.compile(
    rb'\{"seq":([1-9][0-9]{0,17}),"prev":"([0-9a-f]{64})","hash":"([0-9a-f]{64})",'
)


class Entry(Struct, frozen=True, kw_only=True, gc=False):
    """What every entry says: its link, when (ms), what was done (``act``, the event's type), by
    whom, about which key, and why. Each kind of entry adds fields of its own, and its ``ACT``.

    An entry of number 0 was written before there was a chain.
    """

    ACT: ClassVar[str] = ""

    seq: int = 0
    prev: str = ""
    hash: str = ""
    at: int = 0
    act: str = ""
    actor: str
    key: str
    reason: str


class _OfDeadLetter(Entry, frozen=True, kw_only=True, gc=False):
    """An entry about the parked record of a service, which its place names."""

    service: str
    topic: str
    partition: int
    offset: int


class RetryRequested(_OfDeadLetter, frozen=True, kw_only=True, gc=False):
    """An operator wants a parked record retried; the owning service obeys."""

    ACT: ClassVar[str] = RETRY_REQUESTED


class DiscardRequested(_OfDeadLetter, frozen=True, kw_only=True, gc=False):
    """An operator wants a parked record discarded; the owning service obeys."""

    ACT: ClassVar[str] = DISCARD_REQUESTED


class Retried(_OfDeadLetter, frozen=True, kw_only=True, gc=False):
    """A parked record was released for another try; ``request_seq`` is the wish's number."""

    ACT: ClassVar[str] = RETRIED

    event_id: str
    kind: str
    request_seq: int = 0


class Discarded(_OfDeadLetter, frozen=True, kw_only=True, gc=False):
    """A parked record was given up; ``request_seq`` is the number of the entry that asked."""

    ACT: ClassVar[str] = DISCARDED

    event_id: str
    kind: str
    request_seq: int = 0


REQUESTED: dict[str, type[RetryRequested | DiscardRequested]] = {
    RETRY_REQUESTED: RetryRequested, DISCARD_REQUESTED: DiscardRequested,
}  # fmt: skip

Written = TypeVar("Written", bound=Entry)


class Head(Struct, frozen=True, gc=False):
    """The end of the chain: number, hash and time of its last entry."""

    seq: int = 0
    hash: str = UNLINKED
    at: int = 0


def linked(entry: Written, head: Head, now: int) -> Written:
    """The entry as the one after ``head``."""
    bare = replace(
        entry, seq=head.seq + 1, prev=head.hash, hash=UNLINKED, at=now, act=entry.ACT
    )
    return replace(bare, hash=sha256(_ENCODE(bare)).hexdigest())


def end_of(entry: Entry) -> Head:
    """The chain's end once this entry is its last."""
    return Head(entry.seq, entry.hash, entry.at)


class Link(Struct, frozen=True, gc=False):
    """What an entry's bytes say of its place in the chain, and whether its hash is theirs."""

    seq: int
    prev: str
    hash: str
    fits: bool


def link_of(value: bytes) -> Link | None:
    """The link in a record's bytes; None where they begin with none."""
    found = _LINK.match(value)
    if found is None:
        return None
    start, end = found.span(3)
    digest = sha256(value[:start] + UNLINKED.encode() + value[end:]).hexdigest()
    seq, prev, said = found.groups()
    return Link(int(seq), prev.decode(), said.decode(), digest == said.decode())
