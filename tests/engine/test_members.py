"""Any interleaving of members that join, leave and die in mid-decide, over any history."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.slots import NoSlots
from penstock.engine.worker import Worker
from penstock.event import Message
from penstock.limits import OFFSET_BITS
from tests.engine.tally import Step, tally_rig
from tests.engine.test_properties import CUTS, HISTORY, Fates, History, accounted, in_order
from tests.flows.rig import HandClock, Rig

ACTS = st.lists(
    st.tuples(
        st.sampled_from(("step", "step", "step", "join", "leave", "die", "again", "wait")),
        st.integers(0, 5),
    ),
    max_size=40,
)


class Members:
    """Workers of one service that share its slots, as the processes of one machine do."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.unit = rig, rig.unit("tally")
        self.slots = NoSlots(self.unit.lanes)
        rig.workers.pop("tally").leave()
        self.alive: list[Worker] = []
        self.sent: list[Message] = []
        self.join()

    def join(self) -> None:
        """One more."""
        self.alive.append(self.rig.new_worker("tally", self.slots))

    def act(self, name: str, number: int) -> None:
        """One act of one member; the last one stays."""
        worker = self.alive[number % len(self.alive)]
        if name == "step":
            worker.step(self.rig.clock.now())
        elif name == "join" and len(self.alive) < 4:
            self.join()
        elif name in ("leave", "die") and len(self.alive) > 1:
            self.alive.remove(worker)
            if name == "die":
                self._die(worker, number)
            worker.leave()
        elif name == "again" and self.sent:
            again = self.sent[number % len(self.sent)]
            self.rig.log.append("steps", [again], self.rig.clock.now())
        elif name == "wait":
            self.rig.clock.pass_(400)

    def _die(self, worker: Worker, number: int) -> None:
        """Its slot names a record that it had taken and not committed."""
        for (topic, lane), position in worker.positions.items():
            extent = self.rig.log.extent(topic)[lane]
            offset = position + number % 3
            if topic == "steps" and offset < extent.next:
                index = self.unit.topic_index[topic]
                self.slots.words[lane] = (index << OFFSET_BITS | offset) + 1

    def rest(self) -> None:
        """Everybody steps until nothing moves."""
        idle = 0
        while idle < 3:
            now = self.rig.clock.now()
            moved = sum(worker.step(now).records for worker in self.alive)
            idle = 0 if moved + self.rig.turn() else idle + 1


@settings(max_examples=60, deadline=None, derandomize=True)
@given(HISTORY, CUTS, ACTS, st.sampled_from((1, 3, 500)), st.sampled_from((1, 4)))
def test_members_come_and_go_and_every_record_is_handled_once_in_order(
    history: History, cuts: list[int], acts: list[tuple[str, int]], batch: int, partitions: int
) -> None:
    clock = HandClock()
    fates = Fates(clock, [fate for _, fate, _, _ in history])
    rig = tally_rig(orders=fates, clock=clock, batch=batch, partitions=partitions)
    members, left = Members(rig), list(acts)
    for n, (key, _, pots, follow) in enumerate(history):
        step = Step(n=n, pots=pots, follow=follow, tell=True)
        members.sent += rig.append("steps", (key, step))
        for _ in range(cuts[n % len(cuts)]):
            if left:
                members.act(*left.pop())
    while left:
        members.act(*left.pop())
    for _ in range(20):
        members.rest()
        rig.clock.pass_(1000)
    in_order(rig)
    rows = [row.body.record.message.id for row in rig.rows("tally", "waiting")]
    assert len(rows) >= len(set(rows))
    marks = {id_ for (id_,) in rig.stores["tally"].file.run("SELECT id FROM marks")}
    assert {m.id for m in members.sent} <= marks | set(rows)
    if not any(name == "again" for name, _ in acts):
        accounted(rig, history)
