"""What a checked history comes to: anomalies by name, and how much was looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

from penstock.conformance.history import Op, Place

KEPT_OF_A_NAME = 20  # examples of one anomaly in a report; all are counted


class Promises(Struct, frozen=True, kw_only=True):
    """What a log promises beyond order in a partition. ``whole_appends``: an append to several
    partitions is there at once and has one place in the order of all."""

    whole_appends: bool = True


class Anomaly(Struct, frozen=True):
    """One thing that must not be: its name, a sentence, and the operations and records of it."""

    name: str
    sentence: str
    ops: tuple[str, ...]
    records: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line for a report."""
        where = f" [{', '.join(self.ops)}]" if self.ops else ""
        return f"{self.name}: {self.sentence}{where}"


class Findings:
    """Anomalies as they are found: counted by name, the first of each name kept."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.kept: list[Anomaly] = []

    def add(
        self, name: str, sentence: str, ops: Iterable[Op] = (), records: Iterable[str] = ()
    ) -> None:
        """One more."""
        self.counts[name] += 1
        if self.counts[name] <= KEPT_OF_A_NAME:
            names = tuple(dict.fromkeys(op.name for op in ops))
            self.kept.append(Anomaly(name, sentence, names, tuple(records)))


class Report(Struct, frozen=True, kw_only=True):
    """The judgement on a history. ``unseen`` values were acknowledged and never read, while
    nobody looked where they must be: no anomaly, but the history does not prove them."""

    ops: int
    records: int
    values: int
    unseen: int
    counts: dict[str, int]
    anomalies: tuple[Anomaly, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.counts

    @property
    def empty(self) -> bool:
        """Whether the history holds too little to say anything: no read of anything written."""
        return not (self.records and self.values)


def at(place: Place, offset: int) -> str:
    """A record's place, as reports write it."""
    return f"{place[0]}[{place[1]}]@{offset}"
