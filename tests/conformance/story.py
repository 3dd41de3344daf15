"""Histories told by hand: one topic, short operations one after the other unless they overlap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from penstock.conformance.checker import check
from penstock.conformance.history import Act, Kind, Line, Op, paired
from penstock.conformance.history_findings import Promises, Report

TOPIC = "t"


class Story:
    """Every line comes one tick after the one before."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._count: Counter[str] = Counter()
        self._txn = 0

    def begin(self, process: str, do: Act, **fields: Any) -> Line:
        """An operation begins."""
        self._count[process] += 1
        return self._tell(process, self._count[process], "invoke", do=do, **fields)

    def end(self, begun: Line, kind: Kind = "ok", **fields: Any) -> None:
        """It ends so."""
        self._tell(begun.process, begun.op, kind, **fields)

    def _tell(self, process: str, op: int, kind: Kind, **fields: Any) -> Line:
        line = Line(time=len(self.lines), process=process, op=op, kind=kind, **fields)
        self.lines.append(line)
        return line

    def append(
        self, process: str, *values: str, kind: Kind = "ok", partitions: Sequence[int] = (0,)
    ) -> None:
        """Append to the partitions in turn."""
        self.end(self.appending(process, *values, partitions=partitions), kind)

    def appending(self, process: str, *values: str, partitions: Sequence[int] = (0,)) -> Line:
        """Begin to."""
        sent = tuple(
            (TOPIC, partitions[n % len(partitions)], value) for n, value in enumerate(values)
        )
        return self.begin(process, "append", appends=sent)

    def look(
        self, process: str, start: int, *values: str | None, do: Act = "read", partition: int = 0,
        end: int | None = None, more: bool = False,
    ) -> None:
        """Read the values from ``start`` on (None: no such offset), up to the end or ``more``."""
        begun = self.begin(process, do, starts=((TOPIC, partition, start),))
        self.end(begun, **looked(start, *values, partition=partition, end=end, more=more))

    def take(self, process: str, start: int, *values: str | None, **changes: Any) -> None:
        """The same as a member of a group."""
        self.look(process, start, *values, do="take", **changes)

    def claim(self, process: str, epoch: int, at: int | None = None) -> None:
        """Claim lane 0, which is at this position."""
        begun = self.begin(process, "claim", scope="s")
        starts = () if at is None else ((TOPIC, 0, at),)
        self.end(begun, owners=((0, epoch),), starts=starts)

    def commit(self, process: str, epoch: int, start: int, *values: str, **changes: Any) -> None:
        """Handle the values from ``start`` on."""
        kind = changes.pop("kind", "ok")
        self.end(self.committing(process, epoch, start, *values, **changes), kind, txn=self._next())

    def committing(
        self, process: str, epoch: int, start: int, *values: str, stop: int | None = None,
        **changes: Any,
    ) -> Line:
        """Begin to."""
        move = (TOPIC, 0, start, start + len(values) if stop is None else stop)
        fields = {
            "owners": ((0, epoch),), "moves": (move,), "marks": values,
            "records": tuple((TOPIC, 0, start + n, value) for n, value in enumerate(values)),
        }
        return self.begin(process, "commit", scope="s", **{**fields, **changes})

    def _next(self) -> int:
        self._txn += 1
        return self._txn

    @property
    def ops(self) -> list[Op]:
        """What was told, as operations."""
        return paired(self.lines)

    def check(self, **promises: bool) -> Report:
        """The judgement on it."""
        return check(self.ops, Promises(**promises))


def looked(
    start: int, *values: str | None, partition: int = 0, end: int | None = None,
    more: bool = False,
) -> dict[str, Any]:
    """What a read brings."""
    stop = start + len(values) if end is None else end
    return {
        "records": tuple(
            (TOPIC, partition, start + n, v) for n, v in enumerate(values) if v is not None
        ),
        "ends": () if more else ((TOPIC, partition, stop),),
    }
