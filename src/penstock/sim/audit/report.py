"""Asking the rules, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from penstock.sim.audit.books import Books, Flaw, Notes, Rule, Violation
from penstock.sim.audit.index import forget_index

HONESTY = "I46"
_ABOUT_HONESTY = "every rule that was asked came to an end, and nothing it needs went unread"
CLEAN, VIOLATED, INCONCLUSIVE = 0, 6, 7


class Verdict(NamedTuple):
    """What one rule found. ``kinds`` counts some of what was examined by kind."""

    id: str
    about: str
    examined: int
    violations: Sequence[Violation]
    kinds: Mapping[str, int] = {}


class Report(NamedTuple):
    """What an audit found. ``asked_not`` are rules that lacked a source, and which."""

    rules: Sequence[Verdict]
    asked_not: Sequence[tuple[str, str]]
    until: int | None

    @property
    def violations(self) -> list[Violation]:
        """Everything that is wrong."""
        return [violation for rule in self.rules for violation in rule.violations]

    @property
    def empty(self) -> list[str]:
        """The rules that were asked and examined nothing."""
        return [rule.id for rule in self.rules if not rule.examined and not rule.violations]

    @property
    def exit_code(self) -> int:
        """0 clean, 6 violated, 7 where a rule examined nothing and none is violated."""
        if self.violations:
            return VIOLATED
        return INCONCLUSIVE if self.empty else CLEAN

    def said(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "rules": [
                {
                    "id": rule.id, "about": rule.about, "examined": rule.examined,
                    "kinds": dict(rule.kinds),
                    "violations": [v._asdict() for v in rule.violations],
                }
                for rule in self.rules
            ],
            "asked_not": [{"id": id_, "why": why} for id_, why in self.asked_not],
            "until": self.until,
        }  # fmt: skip


def audit(books: Books, rules: Iterable[Rule]) -> Report:
    """Ask every rule whose sources are there; a rule that breaks is a violation of honesty."""
    rules, honesty = tuple(rules), Notes(HONESTY)
    flaws: dict[str, list[Flaw]] = {}
    for flaw in books.flaws:
        flaws.setdefault(flaw.rule, []).append(flaw)
    verdicts: dict[str, Verdict] = {}
    asked_not: list[tuple[str, str]] = []
    for rule in rules:
        lacking = [need for need in rule.needs if not _has(books, need)]
        if lacking:
            asked_not.append((rule.id, "; ".join(map(_why, lacking))))
            continue
        honesty.saw()
        verdict = _asked(books, rule, flaws.pop(rule.id, []), honesty)
        verdicts[rule.id] = _joined(verdicts.get(rule.id), verdict)
    _tell_unread(books, verdicts, honesty)
    verdicts[HONESTY] = Verdict(HONESTY, _ABOUT_HONESTY, honesty.examined, honesty.violations)
    forget_index()
    return Report(tuple(verdicts.values()), tuple(asked_not), books.until)


def _has(books: Books, need: str) -> bool:
    if need == "journal":
        return books.journal is not None
    if need == "contracts":
        return books.contracts is not None
    if need == "rest":
        return books.until is None
    if need == "files":
        return "I19" in books.examined
    return need in books.ledgers


def _why(need: str) -> str:
    return {
        "journal": "no client journal was given",
        "contracts": "no contracts were given",
        "rest": "work may be under way",
        "files": "the books were not read from files",
    }.get(need, f"there is no ledger of {need}")


def _asked(books: Books, rule: Rule, flaws: Iterable[Flaw], honesty: Notes) -> Verdict:
    notes = Notes(rule.id)
    notes.saw(books.examined.get(rule.id, 0))
    for flaw in flaws:
        notes.wrong(flaw.key, flaw.detail, *flaw.records)
    try:
        rule.check(books, notes)
    except Exception as error:
        honesty.wrong(rule.id, f"the rule broke: {type(error).__name__}: {error}"[:500])
    return Verdict(rule.id, rule.about, notes.examined, notes.violations, notes.kinds)


def _joined(known: Verdict | None, new: Verdict) -> Verdict:
    """Two checks of one rule are one verdict."""
    if known is None:
        return new
    kinds = {k: known.kinds.get(k, 0) + new.kinds.get(k, 0) for k in {**known.kinds, **new.kinds}}
    return Verdict(
        known.id, known.about, known.examined + new.examined,
        (*known.violations, *new.violations), kinds,
    )  # fmt: skip


def _tell_unread(books: Books, verdicts: Mapping[str, Verdict], honesty: Notes) -> None:
    """Whoever does not ask the rule about unreadable rows must still hear of them."""
    if "I19" not in verdicts:
        for topic, partition, first, last in books.unread:
            place = f"{topic}[{partition}]@{first}..{last}"
            honesty.wrong(topic, "records that nobody could read", place)
