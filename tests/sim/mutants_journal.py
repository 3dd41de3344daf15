"""Planted mistakes of the audited journal."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from penstock.engine import batch
from penstock.entry import Head
from penstock.ops import journal
from tests.sim.mutants import Patch, mutant


@mutant("I39", "a parked record is given up at once, and the journal hears of it after the act")
def journal_after_the_act(patch: Patch) -> None:
    park = batch.Batch.park

    def hasty(self: batch.Batch, entry: batch.Entry, *args: Any, **more: Any) -> None:
        park(self, entry, *args, **more)
        row = self.put.pop(entry.record.position)
        self._held.discard(entry.held)
        self._discard(row)
        wish = SimpleNamespace(reason="of its own accord", actor="worker", seq=0)
        said = self._unparked_of(row, wish)
        dead = self.unit.dead
        self.rows.append(self._about(row.record, dead, batch.DISCARDED, said, self.now + 1))

    patch.setattr(batch.Batch, "park", hasty)


@mutant("I38", "the end of the chain is forgotten now and then")
def head_forgotten(patch: Patch) -> None:
    head, turns = journal._head, iter(range(1 << 60))

    def forgetful(states: Any) -> Head:
        return Head() if next(turns) % 5 == 4 else head(states)

    patch.setattr(journal, "_head", forgetful)


@mutant("I38", "the head is not saved with the entry")
def head_not_saved(patch: Patch) -> None:
    append, turns = journal.append, iter(range(1 << 60))

    def unsaved(*args: Any, **more: Any) -> Any:
        done = append(*args, **more)
        if next(turns) % 3 == 0:
            done.states.pop(journal.HEAD)
        return done

    patch.setattr(journal, "append", unsaved)
