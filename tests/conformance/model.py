"""A model of a log and a store, driven by a list of acts: the history of it is clean.

Two partitions; lane 0 is the first one's, and commits append to the second. An act of an idle
process begins an operation, the next one of that process ends it; the operation happens at either.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import strategies as st

from penstock.conformance.history import Line
from tests.conformance.story import TOPIC, Story, looked

PROCESSES = ("a", "b", "c")
ACTS = st.lists(st.integers(0, len(PROCESSES) - 1), min_size=30, max_size=90)
Ending = Callable[[], None]


class Model:
    """What there is, and who is amid what."""

    def __init__(self, seed: int) -> None:
        self.story = Story()
        self._dice = Random(seed)
        self._log: list[list[str]] = [[], []]
        self._position = self._epoch = self._values = self._txn = 0
        self._claims: dict[str, tuple[int, int]] = {}  # process -> epoch and position
        self._endings: dict[str, Ending] = {}

    def act(self, process: str) -> None:
        """The process begins something, or ends what it is amid."""
        ending = self._endings.pop(process, None)
        if ending is not None:
            ending()
            return
        begin = self._dice.choice((self._append, self._look, self._claim, self._commit))
        self._endings[process] = begin(process)

    def finish(self) -> list[Line]:
        """Everything ends, and one reads all."""
        for ending in self._endings.values():
            ending()
        for partition in (0, 1):
            self.story.look("last", 0, *self._log[partition], partition=partition)
        return self.story.lines

    def _fresh(self) -> str:
        self._values += 1
        return f"v{self._values}"

    def _when(self, effect: Callable[[], Any]) -> Callable[[], Any]:
        """Let it happen now, or when the result is asked for."""
        if self._dice.random() < 0.5:
            return effect
        done = effect()
        return lambda: done

    def _append(self, process: str) -> Ending:
        values = [self._fresh() for _ in range(self._dice.randint(1, 3))]
        begun = self.story.appending(process, *values, partitions=self._dice.choice(
            ((0,), (1,), (0, 1))
        ))
        kind = self._dice.choice(("ok", "ok", "ok", "ok", "info", "info", "fail"))
        happens = kind == "ok" or (kind == "info" and self._dice.random() < 0.5)
        effect = self._when(lambda: self._put(begun) if happens else None)
        return lambda: (effect(), self.story.end(begun, kind))[1]

    def _put(self, begun: Line) -> None:
        for _, partition, value in begun.appends:
            self._log[partition].append(value)

    def _look(self, process: str) -> Ending:
        partition = self._dice.randrange(2)
        start = self._dice.randint(0, len(self._log[partition]))
        limit = self._dice.randint(1, 8)
        do = self._dice.choice(("take", "read"))
        begun = self.story.begin(process, do, starts=((TOPIC, partition, start),))
        return self._ended(begun, lambda: self._seen(partition, start, limit))

    def _ended(self, begun: Line, effect: Callable[[], dict[str, Any]]) -> Ending:
        result = self._when(effect)
        return lambda: self.story.end(begun, **result())

    def _seen(self, partition: int, start: int, limit: int) -> dict[str, Any]:
        found = self._log[partition][start : start + limit]
        return looked(start, *found, partition=partition, more=len(found) == limit)

    def _claim(self, process: str) -> Ending:
        begun = self.story.begin(process, "claim", scope="s")

        def claimed() -> dict[str, Any]:
            self._epoch += 1
            self._claims[process] = self._epoch, self._position
            return {"owners": ((0, self._epoch),), "starts": ((TOPIC, 0, self._position),)}

        return self._ended(begun, claimed)

    def _commit(self, process: str) -> Ending:
        if process not in self._claims:
            return self._claim(process)
        epoch, start = self._claims[process]
        values = self._log[0][start : start + self._dice.randint(1, 4)]
        appends = tuple((TOPIC, 1, self._fresh()) for _ in values)
        begun = self.story.committing(process, epoch, start, *values, appends=appends)
        gives_up = self._dice.random() < 0.2
        txn = self._when(lambda: 0 if gives_up else self._committed(process, begun))
        return lambda: self._told(begun, txn())

    def _committed(self, process: str, begun: Line) -> int:
        epoch, position = self._claims[process]
        if epoch != self._epoch:
            del self._claims[process]
            return 0
        self._position = position + len(begun.marks)
        self._claims[process] = epoch, self._position
        self._put(begun)
        self._txn += 1
        return self._txn

    def _told(self, begun: Line, txn: int) -> None:
        if not txn:
            self.story.end(begun, "fail")
        elif self._dice.random() < 0.1:
            self.story.end(begun, "info")
            del self._claims[begun.process]
        else:
            self.story.end(begun, txn=txn)


def modelled(acts: list[int], seed: int) -> list[Line]:
    """The history of these acts."""
    model = Model(seed)
    for number in acts:
        model.act(PROCESSES[number])
    return model.finish()
