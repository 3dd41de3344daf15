"""Any history with any failures: nothing is lost, nothing twice, every key in its order."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.decision import Decision, Hold, Park, Retry
from penstock.entry import DISCARD_REQUESTED, RETRY_REQUESTED
from penstock.event import Event
from tests.engine.tally import Orders, Step, steps, tally_rig
from tests.flows.rig import HandClock, Rig

KEYS = ("a", "b", "c", "d", "e")
FATES = ("ok", "ok", "ok", "retry", "raise", "hold", "park", "always")
History = list[tuple[str, str, tuple[str, ...], bool]]

HISTORY = st.lists(
    st.tuples(
        st.sampled_from(KEYS), st.sampled_from(FATES),
        st.lists(st.sampled_from(("p", "q")), max_size=2, unique=True).map(tuple), st.booleans(),
    ),
    min_size=1, max_size=40,
)
CUTS = st.lists(st.integers(0, 6), min_size=1, max_size=10)


class Fates(Orders):
    """Each step meets its fate: at its first try only, or (``park``, ``always``) every time,
    until ``mended``."""

    def __init__(self, clock: HandClock, fates: list[str]) -> None:
        super().__init__()
        self._clock, self._fates = clock, fates
        self._tried: set[int] = set()
        self.mended = False

    def order(self, event: Event) -> Decision | None:
        number = getattr(event.data, "n", -1)
        fate = self._fates[number] if number >= 0 else "ok"
        first = number not in self._tried
        self._tried.add(number)
        if self.mended or not (first or fate in ("park", "always")):
            return None
        return self._meet(fate)

    def _meet(self, fate: str) -> Decision | None:
        if fate in ("raise", "always"):
            raise ValueError(fate)
        if fate == "retry":
            return Retry("not yet")
        if fate == "hold":
            return Hold("something", self._clock.now() + 500)
        return Park("bad", "bad") if fate == "park" else None


def played(
    home: Path | None, history: History, cuts: list[int], after_park: str, batch: int
) -> tuple[Rig, Fates]:
    """The history fed in pieces, with restarts and time between them."""
    clock = HandClock()
    fates = Fates(clock, [fate for _, fate, _, _ in history])
    rig = tally_rig(home, fates, clock=clock, after_park=after_park, batch=batch)
    for n, (key, _, pots, follow) in enumerate(history):
        rig.append("steps", (key, Step(n=n, pots=pots, follow=follow, tell=True)))
        match cuts[n % len(cuts)]:
            case 1:
                rig.workers["tally"].step(rig.clock.now())
            case 2:
                rig.run()
            case 3:
                rig.start("tally")
            case 4:
                rig.wait(700)
    return rig.run(), fates


def accounted(rig: Rig, history: History) -> None:
    """Every record is done, waiting or parked, exactly one of them; done ones are in order."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for n, (key, *_rest) in enumerate(history):
        numbers[key].append(n)
    for key in KEYS:
        rows = [row.body for row in rig.rows("tally", "waiting")]
        left = [
            rig.book.open("step.taken", 1, w.record.message.value).n
            for w in rows if w.record.message.key == key
        ]
        done = list(steps(rig, key))
        assert sorted(done + left) == numbers[key], key
        assert len(set(done)) == len(done)


def in_order(rig: Rig) -> None:
    """A key's done steps are a prefix in order: what waits holds back all behind it."""
    for key in KEYS:
        assert list(steps(rig, key)) == sorted(steps(rig, key))
    told = {key: [s.n for s in facts] for key, facts in rig.facts("sums").items()}
    assert all(told[key] == list(steps(rig, key)) for key in told)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(HISTORY, CUTS, st.sampled_from((1, 3, 500)))
def test_under_halt_every_key_ends_in_order(
    history: History, cuts: list[int], batch: int
) -> None:
    rig, fates = played(None, history, cuts, "halt", batch)
    accounted(rig, history)
    in_order(rig)
    rig.wait(1000, 8)
    accounted(rig, history)
    in_order(rig)
    fates.mended = True
    for _ in range(len(history)):
        parked = [r.body for r in rig.rows("tally", "waiting") if r.label == "parked"]
        for row in parked:
            rig.operate(RETRY_REQUESTED, row.record, "tally")
        rig.run()
    assert rig.waiting("tally") == []
    accounted(rig, history)
    in_order(rig)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(HISTORY, CUTS, st.sampled_from((1, 3, 500)))
def test_under_continue_only_what_is_parked_stays_behind(
    history: History, cuts: list[int], batch: int
) -> None:
    rig, _ = played(None, history, cuts, "continue", batch)
    rig.wait(1000, 40)
    accounted(rig, history)
    in_order(rig)
    bad = sum(1 for _, fate, _, _ in history if fate in ("park", "always"))
    assert len(rig.waiting("tally")) == bad
    for row in [r.body for r in rig.rows("tally", "waiting")]:
        rig.operate(DISCARD_REQUESTED, row.record, "tally")
    rig.run()
    assert rig.waiting("tally") == []


@settings(max_examples=15, deadline=None, derandomize=True)
@given(HISTORY, CUTS, st.sampled_from((1, 4, 500)), st.sampled_from(("halt", "continue")))
def test_both_pairs_end_alike(
    history: History, cuts: list[int], batch: int, after_park: str
) -> None:
    ends = []
    for embedded in (False, True):
        with TemporaryDirectory() as folder:
            home = Path(folder) if embedded else None
            rig, _ = played(home, history, cuts, after_park, batch)
            rig.wait(1000, 20)
            keys = {ref: state for ref, state in rig.states("tally").items() if ref.kind == "tally"}
            ends.append((keys, sorted(rig.waiting("tally")), rig.facts("sums")))
            rig.close()
    assert ends[0] == ends[1]
