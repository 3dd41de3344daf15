"""The keeper: retention of a service's topics and pruning of its store, a bounded bit at a time.

Retention never passes a declared reader's position: a reader that lags past the bound is named
in ``alarms`` and its records stay. Where the log keeps to the bounds by itself, whoever has read
or not, they may go, and the alarm says that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from penstock.catalog.model import JOURNAL
from penstock.engine.unit import admitted
from penstock.errors import OutsideLog, StorageFull
from penstock.limits import OFFSET_MAX
from penstock.ports import Extent, Log, Store, TopicSpec

RESIDUE_MAX = 1024  # records of a partition, past their age, whose marks are kept by name
FULL, AWAY = "storage", "unreachable"  # keys of alarms
Reading = Callable[[str], Mapping[int, int] | None]


class Keeper:
    """Keeps one producing service's file finite.

    ``readers`` gives, per topic, one function per declared reader that returns its positions by
    lane, or None while it has none (it has never run: everything stays).
    """

    def __init__(
        self,
        log: Log,
        store: Store | None,
        topics: Iterable[TopicSpec],
        reads: Iterable[TopicSpec],
        readers: Mapping[str, Iterable[Reading]],
        every_seconds: float = 30.0,
        accepts: Mapping[str, tuple[str, int]] = {},
    ) -> None:
        self._log, self._store, self._accepts = log, store, accepts
        self._topics, self._reads = tuple(topics), tuple(reads)
        self._readers = {topic: tuple(found) for topic, found in readers.items()}
        self._every_ms = int(every_seconds * 1000)
        self._next = 0
        self._residue: dict[tuple[str, int], tuple[int, int, list[bytes]]] = {}
        self.dropped = 0
        self.alarms: dict[str, str] = {}

    def step(self, now: int) -> int:
        """Do one round when it is time; returns what was dropped."""
        if now < self._next:
            return 0
        for met_before in (FULL, AWAY):
            self.alarms.pop(met_before, None)
        # Whatever a round meets: a broker that is away is not asked again in every turn, for each
        # time whoever runs this waits for it.
        self._next = now + self._every_ms
        try:
            dropped = self._round(now)
        except StorageFull as error:
            # Even freeing needs room for the log of it; it is tried again, nobody dies of it.
            self.alarms[FULL], dropped = f"nothing could be dropped: {error}", 0
        self.dropped += dropped
        if dropped >= 5000:
            self._next = now
        return dropped

    def _round(self, now: int) -> int:
        dropped = sum(self._retain(spec, now) for spec in self._topics if _bounded(spec))
        if self._store is not None:
            dropped += self._store.prune(*self._reach(now))
        return dropped

    def _retain(self, spec: TopicSpec, now: int) -> int:
        floors = dict.fromkeys(range(spec.partitions), OFFSET_MAX)
        for reading in self._readers.get(spec.name, ()):
            positions = reading(spec.name)
            for p in floors:
                floors[p] = min(floors[p], 0 if positions is None else positions.get(p, 0))
        dropped = self._log.retain(spec.name, floors, now)
        self._watch(spec, floors, now)
        return dropped

    def _watch(self, spec: TopicSpec, floors: Mapping[int, int], now: int) -> None:
        """Alarm where a reader has not come to records past their age."""
        self.alarms.pop(spec.name, None)
        if spec.retention_seconds is None:
            return
        kept = self._log.extent(spec.name, int(now - spec.retention_seconds * 1000))
        late = [p for p, floor in floors.items() if floor < kept[p].first]
        if late:
            fate = "are kept" if self._log.features.retention else "may go before it reads them"
            self.alarms[spec.name] = (
                f"a reader of {spec.name} is behind the retention bound in partitions {late}; "
                f"its records {fate}"
            )

    def _reach(self, now: int) -> tuple[dict[tuple[str, int], int], int, frozenset[bytes]]:
        """What marks must reach: the first offset of each partition that is within its age, and
        the ids of older records that lie there still. Those are few (a quiet partition keeps its
        newest row, the journal its requests) and would else keep every mark since for ever."""
        floors: dict[tuple[str, int], int] = {}
        keep: set[bytes] = set()
        for spec in self._reads:
            young = self._young(spec, now)
            for p, held in enumerate(self._log.extent(spec.name)):
                ids = self._ids(spec.name, p, held.first, young[p].first if young else 0)
                floors[spec.name, p] = held.first + len(ids)
                keep.update(ids)
        return floors, now, frozenset(keep)

    def _young(self, spec: TopicSpec, now: int) -> list[Extent]:
        if spec.name == JOURNAL:
            return [Extent(held.next, held.next) for held in self._log.extent(spec.name)]
        if spec.retention_seconds is None:
            return []
        return self._log.extent(spec.name, int(now - spec.retention_seconds * 1000))

    def _ids(self, topic: str, partition: int, first: int, end: int) -> list[bytes]:
        """The ids of a partition's residue; none where it is no mere residue. Read once: it stays
        for days where a broker drops by the piece, and whoever runs this carries nothing
        meanwhile."""
        if not 0 < end - first <= RESIDUE_MAX:
            return []
        known = self._residue.get((topic, partition))
        if known is not None and known[:2] == (first, end):
            return known[2]
        try:
            records = self._log.read(topic, partition, first, end - first)
        except OutsideLog:
            return []  # its own keeper dropped them just now
        ids = [admitted(self._accepts, r).message.id for r in records[: end - first]]
        self._residue[topic, partition] = first, end, ids
        return ids


def _bounded(spec: TopicSpec) -> bool:
    return spec.retention_seconds is not None or spec.retention_bytes is not None
