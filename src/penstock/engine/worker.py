"""The worker: take a batch from the log, open it, load the states, decide, commit once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import takewhile

from msgspec import Struct

from penstock.catalog.model import JOURNAL
from penstock.engine.backlog import Backlog, Held, order_of
from penstock.engine.batch import Batch, Counts, Entry
from penstock.engine.careful import Careful, only, spans_of
from penstock.engine.cuts import cut
from penstock.engine.slots import Slots
from penstock.engine.unit import Unit, admitted, open_record, out_of_order
from penstock.errors import (
    Contended,
    Corrupt,
    Malformed,
    OutsideLog,
    StaleOwner,
    StorageFull,
    UnknownSchema,
    Unreachable,
)
from penstock.event import Position, Record
from penstock.flow import Scan
from penstock.limits import (
    DEATHS_MAX,
    DECIDE_WINDOW_KEYS,
    DECIDE_WINDOW_RATIO,
    OFFSET_BITS,
    PAGE_ROWS_MAX,
    PASSES_MAX,
    SCHEMA_WAIT_SECONDS,
    WAITING_PER_LANE_MAX,
)
from penstock.ports import Advance, Claim, Lane, Log, Span, Store, Taken, Tx, Waiting

LOG = "log"  # the trouble of a log that cannot be read
AWAY = "unreachable"  # the trouble of a broker or a database that does not answer


class Desired(Struct, frozen=True, kw_only=True):
    """The levers a worker reads each turn; level-triggered."""

    held_lanes: frozenset[int] = frozenset()
    batch: int | None = None


class Progress(Struct, frozen=True, kw_only=True):
    """What one turn did. ``wrote`` names topics and gateways with something new; ``next_due``
    is when a waiting record may be tried (ms); ``blocked`` says that the disk, the broker or the
    database refused."""

    records: int = 0
    wrote: frozenset[str] = frozenset()
    next_due: int | None = None
    blocked: bool = False


class Worker:
    """One member of a service: steps, never sleeps, never calls anybody."""

    def __init__(
        self, unit: Unit, log: Log, store: Store, slots: Slots, batch: int | None = None
    ) -> None:
        self.unit, self._log, self._store, self._slots = unit, log, store, slots
        self._limit = self._batch = batch or unit.entry.batch
        self._lane: Lane = log.join(unit.name, tuple(unit.reads))
        self._claims: dict[int, Claim] = {}
        self._positions: dict[tuple[str, int], int] = {}
        self._unknown_since: dict[tuple[str, int], int] = {}
        self._standing: set[int] = set()  # lanes with a position outside the log
        self._window: OrderedDict[str, bool] = OrderedDict()
        self._careful = Careful()
        self.backlog = Backlog()
        self.counts = Counts()
        self.desired = Desired()
        self.stopped = ""  # why the service stopped itself
        self.trouble: dict[str, str] = {}  # place -> why a partition does not move

    @property
    def lanes(self) -> frozenset[int]:
        """The lanes owned now."""
        return frozenset(self._claims)

    @property
    def positions(self) -> dict[tuple[str, int], int]:
        """The next offset to handle, per topic and lane."""
        return dict(self._positions)

    def leave(self) -> None:
        """Give the lanes back."""
        self._lane.leave()

    def step(self, now: int, topics: Iterable[str] | None = None) -> Progress:
        """One bounded turn: at most one batch and one commit."""
        if self.stopped:
            return self._stand(now)
        self._lane.hold(self.desired.held_lanes)
        self._limit = self.desired.batch or self._batch
        try:
            taken = self._lane.take(self._limit, self._wanted(), topics)
        except Corrupt as error:
            self.trouble[LOG] = f"{error}; nothing is read until it is restored"
            return Progress()
        except Unreachable as error:
            return self._cut_off(error)
        self.trouble.pop(LOG, None)
        try:
            new = self._rebalance(taken, now)
            done = Progress(records=1) if new else self._turn(taken, now)
            self.trouble.pop(AWAY, None)
            self._lane.note(self._positions)
            return done
        except StaleOwner:
            # Another worker claimed a lane of ours between take and commit. Nothing was written;
            # whatever is still assigned is claimed again at the next turn.
            self._forget(self._claims)
            return Progress(records=1)
        except Contended:
            return Progress(records=1)  # nothing was written: the same records are taken again
        except Unreachable as error:
            # Nobody knows how a commit that was under way ended. Claiming again waits for it, and
            # then the positions tell.
            self._forget(self._claims)
            return self._cut_off(error)
        except StorageFull:
            return Progress(blocked=True)

    def _cut_off(self, error: Unreachable) -> Progress:
        self.trouble[AWAY] = str(error)
        return Progress(blocked=True)

    def _stand(self, now: int) -> Progress:
        """Stopped: handle nothing, but go on taking part in the group. One that clung to its
        lanes would run a courier beside that of their new owner, each fencing off the other."""
        with suppress(Corrupt, StorageFull, Unreachable):  # what it handles is nothing either way
            self._rebalance(self._lane.take(1, {}), now)
        return Progress()

    # Ownership -------------------------------------------------------------------------------

    def _wanted(self) -> dict[tuple[str, int], int]:
        """What to read: a lane at its cap takes operators' requests only, which can free it."""
        full = {n for n in self._claims if self.backlog.of_lane(n) >= WAITING_PER_LANE_MAX}
        for lane in self._claims:
            self.trouble.pop(f"lane {lane}", None)
        for lane in full:
            self.trouble[f"lane {lane}"] = f"held: {WAITING_PER_LANE_MAX} records wait"
        if not full and not self._standing:
            return self._positions
        return {
            (t, n): o
            for (t, n), o in self._positions.items()
            if n not in self._standing and (n not in full or t == JOURNAL)
        }

    def _rebalance(self, taken: Taken, now: int) -> bool:
        gone = self._claims.keys() - taken.assigned
        new = taken.assigned - self._claims.keys()
        if gone:
            self._forget(gone)
        if new:
            try:
                self._claim(sorted(new), now)
            except (Contended, StorageFull, Unreachable) as error:
                self._forget(new)  # claimed again, lest a death goes uncharged
                if isinstance(error, Contended):  # somebody stands on the lane: that is told
                    raise Unreachable(f"a lane cannot be claimed: {error}") from None
                raise
        for (topic, lane), extent in taken.outside.items():
            self._standing.add(lane)
            self.trouble[f"{topic}[{lane}]"] = (
                f"position {self._positions[topic, lane]} is outside the log, which holds "
                f"{extent.first} to {extent.next - 1}; the lane stands still"
            )
        return bool(new)

    def _forget(self, lanes: Iterable[int]) -> None:
        for lane in list(lanes):
            self._claims.pop(lane, None)
            self._careful.forget(lane)
            self.backlog.forget(lane)
            self._standing.discard(lane)
            for topic in self.unit.reads:
                self._positions.pop((topic, lane), None)
                self._unknown_since.pop((topic, lane), None)
                self.trouble.pop(f"{topic}[{lane}]", None)

    def _claim(self, lanes: Sequence[int], now: int) -> None:
        for claim in self._store.claim(lanes, now):
            self._claims[claim.lane] = claim
            for topic in self.unit.reads:
                known = claim.positions.get(topic)
                if known is None:
                    known = self._log.extent(topic)[claim.lane].first
                self._positions[topic, claim.lane] = known
        # Rows of a topic that is read no more stay where they are.
        places = {(topic, lane) for topic in self.unit.reads for lane in lanes}
        rows = self._stored_rows()  # those of other lanes are not kept
        self.backlog.put(w for w in rows if (w.record.topic, w.record.partition) in places)
        for lane in lanes:
            spans = self._claims[lane].attempted
            if only(spans) is None:
                self._careful.begin(lane, spans, self._positions)
            self._charge_death(lane, self._died_at(lane), now)

    def _stored_rows(self) -> Iterator[Waiting]:
        after = ""
        while True:
            page = self._store.scan(
                Scan(service=self.unit.name, table="waiting", after=after, limit=PAGE_ROWS_MAX)
            )
            yield from (row.body for row in page)
            if len(page) < PAGE_ROWS_MAX:
                return
            last = page[-1].body.record
            after = f"{last.topic}/{last.partition}/{last.offset}"

    def _died_at(self, lane: int) -> tuple[str, int] | None:
        """Topic and offset of the record that the last owner was deciding, where that is known."""
        span = only(self._claims[lane].attempted)
        if span is not None:
            return span.topic, span.first
        found = self._slots.read(lane)
        if found is None:
            return None
        return next((t for t, i in self.unit.topic_index.items() if i == found[0]), ""), found[1]

    def _charge_death(self, lane: int, died_at: tuple[str, int] | None, now: int) -> None:
        """The last owner died while deciding: its record waits, charged, and is run alone."""
        if died_at is None:
            return
        topic, offset = died_at
        topic = topic if (topic, lane) in self._positions else ""
        row = self.backlog.find(Position(topic, lane, offset)) if topic else None
        if row is None and topic and offset >= self._positions[topic, lane]:
            row = self._unhandled(topic, lane, offset, now)
        if row is not None:
            self._write_charge(row, now)
        self._slots.clear({lane})

    def _unhandled(self, topic: str, lane: int, offset: int, now: int) -> Waiting | None:
        """The record in the log as a row; None where the slot speaks of another catalog's log."""
        try:
            records = self._log.read(topic, lane, offset, 1)
        except OutsideLog:
            return None
        found = next((r for r in records if r.offset == offset), None)
        found = admitted(self.unit.accepts, found) if found else None
        return Waiting(record=found, state="waiting", due=now, attempts=0) if found else None

    def _write_charge(self, row: Waiting, now: int) -> None:
        deaths = row.deaths + 1
        errors = (*row.errors, (now, f"the process died while deciding it ({deaths})"))
        charged = Waiting(
            record=row.record, state=row.state, due=max(now, 1), attempts=row.attempts,
            errors=errors, kind=row.kind, deaths=deaths,
        )
        with self._store.begin() as tx:
            tx.advance([self._move(row.record.partition)], now)
            tx.defer([charged], [])
        self.backlog.put([charged])

    def _move(self, lane: int) -> Advance:
        places = {t: self._positions[t, lane] for t in self.unit.reads}
        return Advance(lane, self._claims[lane].epoch, places)

    # One batch -------------------------------------------------------------------------------

    def _turn(self, taken: Taken, now: int) -> Progress:
        cut("worker.receive")
        waiting, released, cut_short = self._due_entries(now)
        # Where a queue was cut, fresh records of its key must not overtake the rest.
        crowded = cut_short or len(waiting) >= self._limit
        standing = self._standing  # what was taken together with the bad position stays as well
        records = [r for r in taken.records if r.partition not in standing] if standing else None
        fresh = [] if crowded else self._open(taken.records if records is None else records, now)
        if self._careful:
            waiting, fresh = self._careful.one(waiting, fresh)
            released &= {w.held for w in waiting}
        moved = self._ends(fresh)
        if not waiting and not moved:
            return Progress(next_due=self.backlog.next_due())
        fresh = [e for e in fresh if (e.event or e.fault) and not self._waits_already(e)]
        cut("worker.open")
        released |= {order_of(w.record) for w in self._ahead()}
        held = {h for h in self.backlog.held if h not in released}
        batch = Batch(self.unit, self.backlog, now, held)
        self._park_the_deadly(batch, waiting)
        wrote = self._commit(batch, waiting + fresh, moved, now)
        if wrote is None:
            return Progress()
        cut("worker.after_commit")
        self._remember(batch, moved)
        return Progress(
            records=len(taken.records) + len(waiting), wrote=frozenset(wrote),
            next_due=self.backlog.next_due(),
        )

    def _ahead(self) -> list[Waiting]:
        """Charged records that the position has not reached: all before them goes first, up to
        them and no further, so that they run alone and still in their order."""
        positions = self._positions
        return [
            w for w in self.backlog.deadly
            if w.record.offset > positions[w.record.topic, w.record.partition]
        ]

    def _due_entries(self, now: int) -> tuple[list[Entry], set[Held], bool]:
        """Waiting records to try, whole queues in order, the keys that are not held by them, and
        whether nothing else may run beside; one that killed a process goes alone."""
        entries: list[Entry] = []
        released: set[Held] = set()
        ahead, cut_short = {w.record.position for w in self._ahead()}, False
        queues = sorted(self.backlog.due(now, self._limit), key=lambda q: -q[0].deaths)
        for queue in queues:
            if queue[0].record.position in ahead:
                continue
            if queue[0].deaths:
                # Its successors stay held: the key is released when the head is through.
                head = self._entry(queue[0].record, now, queue[0])
                return ([head], {head.held}, True) if head else ([], set(), True)
            safe = list(takewhile(lambda w: not w.deaths, queue))
            cut_short |= len(safe) < len(queue)
            opened = [self._entry(w.record, now, w) for w in safe]
            entries += [e for e in opened if e is not None]
            if queue[0].state != "aside":
                released.add(order_of(queue[0].record))
        return entries, released, cut_short

    def _entry(self, record: Record, now: int, row: Waiting | None = None) -> Entry | None:
        """Open a record; None where its schema is unknown and may still come."""
        try:
            event = open_record(self.unit, record)
            if event is not None and row is not None and row.state == "aside":
                event = out_of_order(event)
            return Entry(record, event, row)
        except Malformed as error:
            return Entry(record, None, row, ("malformed", str(error)))
        except UnknownSchema as error:
            place = record.topic, record.partition
            since = self._unknown_since.setdefault(place, now)
            if row is not None or now - since >= SCHEMA_WAIT_SECONDS * 1000:
                return Entry(record, None, row, ("unknown_schema", str(error)))
            self.trouble[f"{record.topic}[{record.partition}]"] = f"held: {error}"
            return None

    def _open(self, records: Iterable[Record], now: int) -> list[Entry]:
        entries: list[Entry] = []
        closed: set[tuple[str, int]] = set()
        ahead = {w.record.position for w in self._ahead()}
        accepts = self.unit.accepts
        for record in records:
            place = record.topic, record.partition
            if place[0] in accepts:
                record = admitted(accepts, record)
            if ahead and record.position in ahead:
                closed.add(place)
            if place in closed or record.partition not in self._claims:
                continue
            entry = self._entry(record, now)
            if entry is None:
                closed.add(place)
            else:
                entries.append(entry)
        return entries

    def _ends(self, entries: Iterable[Entry]) -> dict[tuple[str, int], int]:
        """Where each partition's position goes: the batch's end."""
        return {(e.record.topic, e.record.partition): e.record.offset + 1 for e in entries}

    def _waits_already(self, entry: Entry) -> bool:
        """Was the record charged with a death before its position passed it? It may be set aside
        by now, where nothing is held any more."""
        return bool(self.backlog) and self.backlog.find(entry.record.position) is not None

    def _park_the_deadly(self, batch: Batch, waiting: list[Entry]) -> None:
        for entry in list(waiting):
            if entry.row is not None and entry.row.deaths >= DEATHS_MAX:
                waiting.remove(entry)
                reason = f"the process died {entry.row.deaths} times while deciding it"
                batch.park(entry, "process_death", reason, entry.row.errors)

    def _commit(
        self, batch: Batch, entries: list[Entry], moved: dict[tuple[str, int], int], now: int
    ) -> set[str] | None:
        lanes = {lane for _, lane in moved} | {e.record.partition for e in entries}
        lanes |= {w.record.partition for w in batch.put.values()}
        positions = self._positions
        self._positions = positions | moved
        try:
            with self._store.begin(self._spans(entries)) as tx:
                tx.advance([self._move(lane) for lane in sorted(lanes)], now)
                cut("worker.begin")
                self._decide(tx, batch, entries)
                self._slots.clear(lanes)
                if self._must_stop(batch):
                    raise _BadDeploy
                return self._write(tx, batch, now)
        except _BadDeploy:
            self._positions = positions
            return None
        except BaseException:
            self._positions = positions
            raise

    def _spans(self, entries: list[Entry]) -> dict[int, list[Span]]:
        if not self._store.features.attempts:
            return {}
        return spans_of(e.record for e in entries)

    def _decide(self, tx: Tx, batch: Batch, entries: list[Entry]) -> None:
        """Load, decide, and again for what the first pass could not know it needs."""
        ids = batch.ids(entries)
        pending, charge = entries, self._charger()
        for _ in range(PASSES_MAX):
            owns = batch.owns(pending)
            if owns:
                owns = list(dict.fromkeys(owns + batch.needed(pending, guess=True)))
            if owns or ids:
                found = tx.load(owns, ids)
                batch.loaded(owns, found.bodies)
                batch.seen(found.seen)
                ids = []
            needed = batch.needed(pending)
            if needed:
                batch.loaded(needed, tx.load(needed).bodies)
            pending = batch.decide(pending, charge)
            if not pending:
                return
        raise AssertionError(f"needs of {self.unit.name} names new refs without end")

    def _charger(self) -> Callable[[Record], None]:
        words, index = self._slots.words, self.unit.topic_index
        last = -1

        def charge(record: Record) -> None:
            nonlocal last
            lane = record.partition
            if lane != last:
                # One record is decided at a time. Were the lane before left as it is, a death in
                # this one would be charged to its last record too, which has been decided.
                if last >= 0:
                    words[last] = 0
                last = lane
            words[lane] = (index[record.topic] << OFFSET_BITS | record.offset) + 1

        return charge

    def _write(self, tx: Tx, batch: Batch, now: int) -> set[str]:
        if batch.marks:
            tx.mark(list(batch.marks), list(batch.marks.values()))
        cut("worker.mark")
        if batch.saved:
            tx.save(list(batch.saved.values()))
        cut("worker.states")
        wrote = tx.send(batch.rows, now) if batch.rows else set()
        if batch.put or batch.drop:
            tx.defer(list(batch.put.values()), batch.drop)
        cut("worker.rows")
        cut("worker.before_commit")
        return wrote

    def _must_stop(self, batch: Batch) -> bool:
        """The stop rule: most of the latest distinct keys fail, so the deploy is bad, not they."""
        window = self._window
        for key, failed in batch.failing.items():
            window[key] = failed
            window.move_to_end(key)
        while len(window) > DECIDE_WINDOW_KEYS:
            window.popitem(last=False)
        failing = sum(window.values())
        if failing <= DECIDE_WINDOW_KEYS * DECIDE_WINDOW_RATIO:
            return False
        self.stopped = (
            f"{failing} of the last {len(window)} keys fail in decide; the last error: "
            f"{batch.last_error()}. Nothing was parked. Fix the service and restart it."
        )
        return True

    def _remember(self, batch: Batch, moved: dict[tuple[str, int], int]) -> None:
        self.backlog.drop(batch.drop)
        self.backlog.put(batch.put.values())
        self._careful.passed(self._positions)
        for place in moved:
            if self._unknown_since.pop(place, None) is not None:
                self.trouble.pop(f"{place[0]}[{place[1]}]", None)
        totals = self.counts
        for name in Counts.__struct_fields__:
            setattr(totals, name, getattr(totals, name) + getattr(batch.counts, name))


class _BadDeploy(Exception):
    """Rolls the batch back: the stop rule spoke."""
