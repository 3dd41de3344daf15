"""One move: its record in the home, its steps in their order, and how places are translated.

``move.json`` holds what cannot be found again: where the move goes, the offset of each partition's
first copied record, and what was done when. A record at embedded offset *n* lies in Kafka at *n*
minus that first offset; the difference is the partition's *delta*, the same for all its records.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from penstock.assemble import WallClock
from penstock.engine.runner import write_whole
from penstock.errors import Conflict

FILE = "move.json"
Step = Literal["copied", "fenced", "switched", "verified"]
STEPS: tuple[Step, ...] = ("copied", "fenced", "switched", "verified")


class Move(Struct, frozen=True, kw_only=True):
    """``id`` names the move in the database, too. ``firsts``: the first offset that is copied, by
    topic, then partition by partition. ``ends``: how many records each partition had in Kafka at
    the switch; ``txn`` the latest transaction then. ``done``: when each step was done last (ms)."""

    id: str
    kafka: str
    prefix: str
    database: str
    firsts: dict[str, list[int]]
    ends: dict[str, list[int]] = {}
    txn: int = 0
    done: dict[str, int] = {}

    def offset(self, topic: str, partition: int, offset: int) -> int:
        """Where a record, or a position, of the home lies in Kafka. A topic that the catalog has
        no more was not copied: what waits of it stays where it is."""
        return offset - self.firsts[topic][partition] if topic in self.firsts else offset

    def positions(self, lane: int, positions: Mapping[str, int]) -> dict[str, int]:
        """A lane's positions, translated; a topic the move does not know stays out."""
        return {
            topic: max(0, self.offset(topic, lane, at))
            for topic, at in positions.items() if topic in self.firsts
        }


def new_id() -> str:
    """A name that no other move has."""
    return secrets.token_hex(8)


def read(home: Path) -> Move | None:
    """The move that was begun in a home, None where there is none."""
    try:
        return msgspec.json.decode((home / FILE).read_bytes(), type=Move)
    except FileNotFoundError:
        return None


def write(home: Path, move: Move) -> None:
    """Keep it, durably."""
    write_whole(home / FILE, msgspec.to_builtins(move), durable=True)


def mark(home: Path, move: Move, step: Step, **more: Any) -> Move:
    """A step is done."""
    now = WallClock().now()
    move = replace(move, done={**move.done, step: now}, **more)
    write(home, move)
    return move


def after(home: Path, step: Step) -> Move:
    """The move, where the step before this one is done. Raises ``Conflict``."""
    move = read(home)
    at = STEPS.index(step)
    if move is None:
        raise Conflict("not_copied", "No move was begun here.", "First: penstock migrate copy")
    if at and STEPS[at - 1] not in move.done:
        verb = {"copied": "copy", "fenced": "fence", "switched": "switch"}[STEPS[at - 1]]
        raise Conflict("step_missing", f"That comes after {STEPS[at - 1]}.",
                       f"First: penstock migrate {verb}")  # fmt: skip
    return move
