"""Any script of a gateway and any deaths of its courier: one effect, one answer, in order."""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.catalog.model import Breaker, RetryPolicy
from tests.engine.tally import Step, tally, tally_rig
from tests.flows.rig import HandClock, Scripted

KEYS = ("a", "b", "c")
OUTCOMES = (
    "ok", "ok", "refused", "unavailable", "unavailable:2", "unknown", "lost", "crash", "slow:300",
)
SCRIPTS = st.fixed_dictionaries(
    {key: st.lists(st.sampled_from(OUTCOMES), max_size=8) for key in KEYS}
)
ACTS = st.lists(
    st.sampled_from(("worker", "courier", "pool", "pool backwards", "kill", "wait")), max_size=60
)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(SCRIPTS, ACTS, st.integers(1, 4), st.integers(1, 4))
def test_every_ask_has_one_effect_and_one_answer_in_the_order_of_its_key(
    scripts: dict[str, list[str]], acts: list[str], in_flight: int, failures: int
) -> None:
    clock = HandClock()
    gateway = Scripted(scripts, clock)
    entry = {
        "max_in_flight": in_flight, "breaker": Breaker(failures=failures, open_seconds=1.0),
        "retry": RetryPolicy(attempts=999, first_delay_seconds=0.5, factor=1.0),
    }
    rig = tally_rig(gateways={"bank": (entry, gateway)}, clock=clock)
    for n in range(3):
        rig.append("steps", *((key, Step(n=n, ask=("bank",))) for key in KEYS))
    for act in acts:
        match act:
            case "worker":
                rig.workers["tally"].step(clock.now())
            case "courier":
                rig.couriers["tally"].step(clock.now())
            case "pool" | "pool backwards":
                rig.pools["tally"].work(2, latest_first=act != "pool")
            case "kill":
                rig.start("tally")
            case "wait":
                clock.pass_(400)
    for _ in range(60):
        rig.run().clock.pass_(1000)
    answers = rig.facts("tally.answers")
    called = defaultdict(list)
    for call in gateway.calls:
        called[call.key].append(call.name)
    for key in KEYS:
        names = [f"bank-{n}" for n in range(3)]
        assert [answer.name for answer in answers[key]] == names
        assert [name for name, _ in groupby(called[key])] == names
        assert len(tally(rig, key).answers) == 3
    assert set(gateway.deeds.values()) <= {1}
    assert len({call.idempotency_key for call in gateway.calls}) == 9
    assert rig.couriers["tally"].desks["bank"].open_rows == 0
