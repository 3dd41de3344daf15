"""What clients of a log and a store did, written down while they do it, and read back.

A history is JSON lines. Every operation has two: ``invoke`` before it touches the backend, and
``ok``, ``fail`` (it certainly did nothing) or ``info`` (nobody knows) after it. An operation whose
process was killed has only the first one: unknown, and open to the end of the history. Each
process writes a file of its own with times of one monotonic clock; read together, the files make
one history. ``docs/reference/log-checker.md`` tells the fields.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from penstock.errors import Usage

FOREVER = 1 << 62  # when an operation with unknown result ends (ns)
Kind = Literal["invoke", "ok", "fail", "info"]
Act = Literal["append", "take", "read", "commit", "claim"]
Place = tuple[str, int]  # topic and partition
Sent = tuple[str, int, str]  # topic, partition, value
Seen = tuple[str, int, int, str]  # topic, partition, offset, value
Spot = tuple[str, int, int]  # topic, partition, offset
Move = tuple[str, int, int, int]  # topic, partition, from, to


class Line(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One line: ``process`` and ``op`` name the operation, ``time`` is in nanoseconds."""

    time: int
    process: str
    op: int
    kind: Kind
    do: Act = "append"
    scope: str = ""  # the service that claims and commits
    generation: int = 0
    owners: tuple[tuple[int, int], ...] = ()  # lane and epoch
    starts: tuple[Spot, ...] = ()  # where a take or read begins; a claim's positions
    ends: tuple[Spot, ...] = ()  # next offsets: here the reader saw that there is no more
    appends: tuple[Sent, ...] = ()
    records: tuple[Seen, ...] = ()  # read; of a commit, those it accounts for
    moves: tuple[Move, ...] = ()
    marks: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()  # values that a commit put aside instead of marking them
    txn: int = 0
    error: str = ""


class Op(Struct, frozen=True, gc=False):
    """One operation: what was asked, what came back, and between which times it happened."""

    asked: Line
    told: Line | None
    result: Literal["ok", "fail", "unknown"]
    began: int
    ended: int

    @property
    def name(self) -> str:
        """How reports name it: its process and its number there."""
        return f"{self.asked.process}/{self.asked.op}"


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Line)


class Recorder:
    """Writes one process's lines, each with one ``write``: what a killed process had begun stays.

    ``process`` is unique in the history, a restarted process takes another one. ``fresh`` says
    that the backend shows every reader all that was acknowledged, so that a look that returns
    less than it may has seen the end.
    """

    def __init__(
        self, path: Path, process: str, *, fresh: bool = True,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.process, self.fresh, self.clock = process, fresh, clock
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._number = 0

    def close(self) -> None:
        """Close the file. May repeat."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def invoke(self, do: Act, *, began: int | None = None, **fields: Any) -> int:
        """Write that an operation begins (or began) and return its number."""
        self._number += 1
        self._write(self._number, "invoke", began, do=do, **fields)
        return self._number

    def ok(self, op: int, **fields: Any) -> None:
        """It is done, and this came back."""
        self._write(op, "ok", None, **fields)

    def fail(self, op: int, error: BaseException) -> None:
        """It certainly did nothing."""
        self._write(op, "fail", None, error=_words(error))

    def unknown(self, op: int, error: BaseException) -> None:
        """It may have been done, now or at any time to come."""
        self._write(op, "info", None, error=_words(error))

    def _write(self, op: int, kind: Kind, at: int | None, **fields: Any) -> None:
        when = self.clock() if at is None else at
        line = Line(time=when, process=self.process, op=op, kind=kind, **fields)
        os.write(self._fd, _ENCODER.encode(line) + b"\n")


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def read_lines(*paths: Path) -> list[Line]:
    """The lines of all files, in the order of their times.

    A last line without its end is what a killed process was writing, and is left out. Raises
    ``Usage`` where a file is no history.
    """
    lines: list[Line] = []
    for path in paths:
        whole, _, _torn = path.read_bytes().rpartition(b"\n")
        for number, text in enumerate(whole.split(b"\n") if whole else (), 1):
            try:
                lines.append(_DECODER.decode(text))
            except msgspec.DecodeError as error:
                raise Usage(
                    "not_a_history", f"{path}, line {number}: {error}.",
                    "docs/reference/log-checker.md tells the fields of a line.",
                ) from None
    lines.sort(key=lambda line: line.time)
    return lines


def write_lines(path: Path, lines: Iterable[Line]) -> None:
    """Lines made elsewhere (by a test, by another tool) as a file."""
    path.write_bytes(b"".join(_ENCODER.encode(line) + b"\n" for line in lines))


def paired(lines: Iterable[Line]) -> list[Op]:
    """The operations in the order of their ends; those that have none come last.

    Raises ``Usage`` where a result has no operation, or an operation two.
    """
    ops: list[Op] = []
    begun: dict[tuple[str, int], Line] = {}
    for line in lines:
        place = line.process, line.op
        if line.kind == "invoke":
            _expect(place not in begun, line, "begins a second time")
            begun[place] = line
            continue
        asked = begun.get(place)
        _expect(asked is not None, line, "ends and never began")
        assert asked is not None
        if line.kind == "info":
            continue
        del begun[place]
        ops.append(Op(asked, line, line.kind, asked.time, line.time))
    ops += [Op(asked, None, "unknown", asked.time, FOREVER) for asked in begun.values()]
    return ops


def _expect(so: bool, line: Line, wrong: str) -> None:
    if not so:
        raise Usage(
            "not_a_history", f"operation {line.op} of process {line.process} {wrong}.",
            "A process has one name for its whole life, and a restarted one takes another.",
        )


def load(*paths: Path) -> list[Op]:
    """The operations of one history, from all its files (folders: every ``.jsonl`` in them)."""
    files: list[Path] = []
    for path in paths:
        files += sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    return paired(read_lines(*files))
