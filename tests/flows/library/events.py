"""The library's events and their contracts."""

from __future__ import annotations

from msgspec import Struct

from penstock.contracts.contract import Contract


class LoanRequested(Struct, frozen=True, kw_only=True):
    """A member wants a title."""

    member: str
    title: str


class CopyFetched(Struct, frozen=True, kw_only=True):
    """Somebody took a copy from the shelf for the loan."""

    barcode: str


class CopyReturned(Struct, frozen=True, kw_only=True):
    """The copy is back."""

    barcode: str


class CopiesBought(Struct, frozen=True, kw_only=True):
    """New copies of a title stand on its shelf."""

    count: int


class LoanBegan(Struct, frozen=True, kw_only=True):
    """Deposit paid, copy fetched: the member has it."""

    member: str
    title: str
    barcode: str


class LoanRefused(Struct, frozen=True, kw_only=True):
    """No copy, or no deposit."""

    member: str
    reason: str


class LoanOverdue(Struct, frozen=True, kw_only=True):
    """The time is over and the copy is not back."""

    member: str
    title: str


class LoanEnded(Struct, frozen=True, kw_only=True):
    """The copy is back."""

    member: str
    title: str


class LetterSent(Struct, frozen=True, kw_only=True):
    """A member was told."""

    member: str
    about: str


FACTS = {
    "loan.requested": LoanRequested,
    "copy.fetched": CopyFetched,
    "copy.returned": CopyReturned,
    "copies.bought": CopiesBought,
    "loan.began": LoanBegan,
    "loan.refused": LoanRefused,
    "loan.overdue": LoanOverdue,
    "loan.ended": LoanEnded,
    "letter.sent": LetterSent,
}
CONTRACTS = tuple(Contract(type=type_, version=1, model=model) for type_, model in FACTS.items())
