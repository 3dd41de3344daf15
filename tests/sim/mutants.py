"""Planted mistakes: each breaks one promise, and the rule named for it must see that.

A mutant is switched in by a patch, here and nowhere else. The engine's come first, then those of
the flow. What the patched code does wrong is said in ``about``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from penstock.embedded.file import File
from penstock.engine import batch, courier, intake, keeper, worker
from penstock.engine.cuts import cut
from penstock.event import Message, child_id, murmur2
from penstock.log.memory import MemoryLane
from penstock.ports import COURIER_LANE, Advance, Outgoing, Settled
from penstock.store import pruning, sqlite

Patch = pytest.MonkeyPatch


class Mutant(NamedTuple):
    """A mistake, and the rule that must see it. ``slow``: only the embedded files show it."""

    name: str
    rule: str
    about: str
    plant: Callable[[Patch], None]
    slow: bool = False


MUTANTS: list[Mutant] = []


def mutant(
    rule: str, about: str, *, slow: bool = False
) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Enter a mutant in the table under the name of its function."""

    def enter(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
        MUTANTS.append(Mutant(plant.__name__, rule, about, plant, slow))
        return plant

    return enter


# The worker ----------------------------------------------------------------------------------


@mutant("I23", "marks are not looked at, and written again")
def marks_ignored(patch: Patch) -> None:
    patch.setattr(batch.Batch, "seen", lambda self, ids: None)
    again = "INSERT OR REPLACE INTO marks(scope, id, txn, ordinal, epoch) VALUES(?, ?, ?, ?, ?)"

    def mark(self: sqlite.SqliteTx, ids: Sequence[bytes], lanes: Sequence[int] = ()) -> None:
        epochs = [self._epochs[lane] for lane in lanes]
        rows = [(self._scope, id_, self.number, n, epochs[n]) for n, id_ in enumerate(ids)]
        self._file.run_many(again, rows)

    patch.setattr(sqlite.SqliteTx, "mark", mark)


@mutant("I22", "the position is kept although the transaction failed")
def position_before_the_transaction(patch: Patch) -> None:
    commit = worker.Worker._commit

    def early(self: worker.Worker, batch_: Any, entries: Any, moved: Any, now: int) -> Any:
        try:
            return commit(self, batch_, entries, moved, now)
        except Exception:
            self._positions = self._positions | moved
            raise

    patch.setattr(worker.Worker, "_commit", early)


@mutant("I22", "some marks are left out")
def position_without_the_mark(patch: Patch) -> None:
    mark = sqlite.SqliteTx.mark

    def half(self: sqlite.SqliteTx, ids: Sequence[bytes], lanes: Sequence[int] = ()) -> None:
        kept = len(ids) // 2 + 1
        mark(self, ids[:kept], lanes[:kept])

    patch.setattr(sqlite.SqliteTx, "mark", half)


@mutant("I22", "a take loses a record now and then")
def a_record_skipped(patch: Patch) -> None:
    take, turns = MemoryLane.take, iter(range(1 << 60))

    def skipping(self: MemoryLane, *args: Any, **more: Any) -> Any:
        taken = take(self, *args, **more)
        if len(taken.records) > 1 and next(turns) % 5 == 0:
            return replace(taken, records=taken.records[1:])
        return taken

    patch.setattr(MemoryLane, "take", skipping)


@mutant("I23", "rows are written after the commit, in a transaction of their own")
def rows_outside_the_transaction(patch: Patch) -> None:
    write, commit = worker.Worker._write, worker.Worker._commit

    def without_rows(self: worker.Worker, tx: Any, batch_: Any, now: int) -> set[str]:
        self.kept_rows, batch_.rows = batch_.rows, []  # type: ignore[attr-defined]
        write(self, tx, batch_, now)
        return {row.destination for row in self.kept_rows}  # type: ignore[attr-defined]

    def then_rows(self: worker.Worker, batch_: Any, entries: Any, moved: Any, now: int) -> Any:
        wrote = commit(self, batch_, entries, moved, now)
        lanes = sorted({e.record.partition for e in entries})
        if wrote and lanes:
            with self._store.begin() as tx:
                tx.advance([self._move(lane) for lane in lanes], now)
                tx.send(self.kept_rows, now)  # type: ignore[attr-defined]
        return wrote

    patch.setattr(worker.Worker, "_write", without_rows)
    patch.setattr(worker.Worker, "_commit", then_rows)


@mutant("I16", "records are handled by the time they carry instead of by their place")
def clock_used_for_order(patch: Patch) -> None:
    opened = worker.Worker._open

    def by_time(self: worker.Worker, records: Any, now: int) -> Any:
        found = opened(self, records, now)
        return sorted(found, key=lambda e: (e.record.message.at, e.record.offset))

    def ends(self: worker.Worker, entries: Any) -> dict[tuple[str, int], int]:
        last: dict[tuple[str, int], int] = {}
        for e in entries:
            place = e.record.topic, e.record.partition
            last[place] = max(last.get(place, 0), e.record.offset + 1)
        return last

    patch.setattr(worker.Worker, "_open", by_time)
    patch.setattr(worker.Worker, "_ends", ends)


@mutant("I45", "what waits is not read again at a restart")
def waiting_lost_at_restart(patch: Patch) -> None:
    patch.setattr(worker.Worker, "_stored_rows", lambda self: [])


@mutant("I44", "the attempt is charged after the decide, so a death charges nobody")
def attempt_charged_late(patch: Patch) -> None:
    patch.setattr(worker.Worker, "_charger", lambda self: lambda record: None)


@mutant("I28", "a stale owner's epoch is accepted")
def stale_epoch_accepted(patch: Patch) -> None:
    for name in ("_NUMBER", "_ADVANCE"):
        loose = getattr(sqlite, name).replace("epoch = ?", "epoch >= ?")
        patch.setattr(sqlite, name, loose)


@mutant("I16", "records behind a parked one pass it")
def successor_overtakes_a_parked_head(patch: Patch) -> None:
    park = batch.Batch.park

    def without_holding(self: batch.Batch, entry: Any, *args: Any, **more: Any) -> None:
        park(self, entry, *args, **more)
        self._held.discard(entry.held)

    patch.setattr(batch.Batch, "park", without_holding)
    patch.setattr(
        worker.Backlog, "held",
        property(lambda self: {
            h for h, q in self._keys.items() if next(iter(q.values())).state != "parked"
        }),
    )


@mutant("I29", "the position passes a parked record that no dead letter was written for")
def dead_letter_not_written(patch: Patch) -> None:
    park = batch.Batch.park

    def silent(self: batch.Batch, *args: Any, **more: Any) -> None:
        before = list(self.rows)
        park(self, *args, **more)
        self.rows = before

    patch.setattr(batch.Batch, "park", silent)


@mutant("I17", "keys go to another partition than their hash says")
def partition_by_another_hash(patch: Patch) -> None:
    def wrong(key: str, partitions: int) -> int:
        return (murmur2(key.encode()) >> 3) % partitions

    patch.setattr("penstock.sim.parts.partition_of", wrong)
    patch.setattr("penstock.log.memory.partition_of", wrong)


# The courier and the clock -------------------------------------------------------------------


@mutant("I24", "rows are closed before they are carried")
def closed_before_carried(patch: Patch) -> None:
    def early(self: courier.Courier, topic: str, now: int) -> list[Settled]:
        rows = self._store.due(topic, now, (), 1000, is_topic=True)
        if rows:
            done = [Settled(row.id, "sent", attempts=1) for row in rows]
            self._store.settle(self._epochs or {0: 0}, done, self.unit.answers, now)
            cut("courier.send")
            self._log.append(topic, [row.message for row in rows], now)
        return []

    patch.setattr(courier.Courier, "_carry_topic", early)


@mutant("I16", "rows are carried in another order than they were written")
def carried_in_another_order(patch: Patch) -> None:
    def reversed_(self: courier.Courier, topic: str, now: int) -> list[Settled]:
        rows = self._store.due(topic, now, (), 1000, is_topic=True)
        if rows:
            self._log.append(topic, [row.message for row in reversed(rows)], now)
        return [Settled(row.id, "sent", attempts=1) for row in rows]

    patch.setattr(courier.Courier, "_carry_topic", reversed_)


@mutant("I24", "the event's id is made when it is carried")
def id_minted_by_the_courier(patch: Patch) -> None:
    def minted(self: courier.Courier, topic: str, now: int) -> list[Settled]:
        rows = self._store.due(topic, now, (), 1000, is_topic=True)
        found = [
            replace(row.message, id=child_id(row.message.id, "courier", str(now), n))
            for n, row in enumerate(rows)
        ]
        if found:
            self._log.append(topic, found, now)
            cut("courier.sent")
        return [Settled(row.id, "sent", attempts=1) for row in rows]

    patch.setattr(courier.Courier, "_carry_topic", minted)


@mutant("I6", "every attempt has a key of its own")
def a_new_key_each_attempt(patch: Patch) -> None:
    call = courier.Courier._call

    def fresh(self: courier.Courier, name: str, desk: Any, row: Any) -> None:
        key = f"{row.idempotency_key}:{row.attempts}" if row.attempts else row.idempotency_key
        call(self, name, desk, replace(row, idempotency_key=key))

    patch.setattr(courier.Courier, "_call", fresh)


@mutant("I4", "an ask is closed before its gateway is called, and answered by nobody if that fails")
def asked_without_intent(patch: Patch) -> None:
    call = courier.Courier._call

    def closing(self: courier.Courier, name: str, desk: Any, row: Any) -> None:
        call(self, name, desk, row)
        done = [Settled(row.id, "ok", attempts=1)]
        if row.attempts:
            self._store.settle(self._epochs or {0: 0}, done, self.unit.answers, 0)

    patch.setattr(courier.Courier, "_call", closing)


@mutant("I26", "an answer is written again, under another id, where its row was closed before")
def answer_applied_twice(patch: Patch) -> None:
    reply = courier.Courier._reply

    def again(self: courier.Courier, row: Any, type_: str, body: Any, now: int) -> Message:
        message = reply(self, row, type_, body, now)
        return replace(message, id=child_id(message.id, self.unit.name, str(now), 1))

    def open_(self: sqlite.SqliteStore, epochs: Any, rows: Any, answers_to: str, now: int) -> None:
        with self.file.write():
            tx = sqlite.SqliteTx(self.file, self.scope, self.direct)
            tx.advance([Advance(COURIER_LANE, epochs[0], {})], now)
            self.file.run_many(sqlite._CLOSE, [sqlite._closing(r, now, tx.number) for r in rows])
            said = [r.answer for r in rows if r.answer is not None]
            said += [replace(m, id=child_id(m.id, "x", "x", 0)) for m in said[:1]]
            tx.send([Outgoing(answers_to, True, m) for m in said], now)

    patch.setattr(courier.Courier, "_reply", again)
    patch.setattr(sqlite.SqliteStore, "settle", open_)


@mutant("I15", "a wake fires twice")
def wake_fired_twice(patch: Patch) -> None:
    clock, seen = courier.Courier._clock, set[bytes]()

    def twice(self: courier.Courier, now: int) -> list[Settled]:
        found = []
        for settled in clock(self, now):
            message = settled.answer
            assert message is not None
            if message.cause not in seen:
                seen.add(message.cause)
                late = child_id(message.id, self.unit.name, str(now), 0)
                settled = replace(
                    settled, answer=replace(message, id=late), retry_at=0, outcome="ok"
                )
                tx_rows = [Outgoing(self.unit.answers, True, message)]
                with self._store.begin() as tx:
                    tx.advance([Advance(COURIER_LANE, self._epochs.get(0, 0), {})], now)
                    tx.send(tx_rows, now)
            found.append(settled)
        return found

    patch.setattr(courier.Courier, "_clock", twice)


# The door, retention, pruning, files ---------------------------------------------------------


@mutant("I1", "the reply goes out before the commit")
def reply_before_the_commit(patch: Patch) -> None:
    decide = intake._Pass.decide

    def early(self: Any, wanted: Any, named: Any) -> Any:
        reply = decide(self, wanted, named)
        wanted.deliver(reply)
        return reply

    patch.setattr(intake._Pass, "decide", early)


@mutant("I3", "the door forgets which keys it has answered")
def keys_forgotten(patch: Patch) -> None:
    save = sqlite.SqliteTx.save

    def forgetful(self: sqlite.SqliteTx, documents: Any) -> None:
        save(self, [d for d in documents if d.ref.kind != "request"])

    patch.setattr(sqlite.SqliteTx, "save", forgetful)


@mutant("I22", "retention passes a declared reader")
def retention_past_a_reader(patch: Patch) -> None:
    retain = keeper.Keeper._retain

    def blind(self: keeper.Keeper, spec: Any, now: int) -> int:
        kept, self._readers = self._readers, {}
        try:
            return retain(self, spec, now)
        finally:
            self._readers = kept

    patch.setattr(keeper.Keeper, "_retain", blind)


@mutant("I27", "marks are pruned although the log still holds their records")
def marks_pruned_early(patch: Patch) -> None:
    def at_once(file: File, scope: int, floors: Any) -> tuple[int, int] | None:
        found = file.run("SELECT max(txn), max(at) FROM checkpoints WHERE scope = ?", (scope,))
        return found[0] if found[0][0] else None

    patch.setattr(pruning, "_horizon", at_once)


@mutant("I18", "the end of a partition is remembered from one transaction to the next", slow=True)
def offset_cached_across_the_turnstile(patch: Patch) -> None:
    ends = File._ends

    def remembered(self: File, table: str, partitions: list[int]) -> Any:
        cache = self.__dict__.setdefault("remembered", {})
        found = ends(self, table, partitions)
        known = {p: cache.get((table, p), found.get(p)) for p in partitions}
        for p in partitions:
            cache[table, p] = known[p] or (0, 0)
        return {p: at for p, at in known.items() if at}

    patch.setattr(File, "_ends", remembered)
