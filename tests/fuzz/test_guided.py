"""Every target under the coverage-guided fuzzer, a little; longer: ``python -m tests.fuzz``."""

from __future__ import annotations

import os

import pytest

from tests.fuzz.broken import BROKEN
from tests.fuzz.guided import fuzz
from tests.fuzz.targets import TARGETS

TIMES = int(os.environ.get("FUZZ_TIMES", "1"))  # CI's number of inputs, so many times
SLOW = {"catalog": 4_000, "arguments": 1_500}
RUNS = 20_000
SEED = 1


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_breaks_a_target(target: str) -> None:
    runs = SLOW.get(target, RUNS) * TIMES
    outcome = fuzz(target, runs=runs, seed=SEED)
    assert outcome.input is None, f"{outcome.input!r}\n{outcome.said}"
    assert outcome.runs >= runs


@pytest.mark.parametrize("target", BROKEN)
def test_a_broken_target_is_found_within_the_same_number(target: str) -> None:
    """The instrument is looked at, too."""
    corpus = "json" if target == "trusting" else target
    outcome = fuzz(target, runs=RUNS, seed=SEED, corpus=corpus)
    assert outcome.input is not None, outcome.said
    with pytest.raises(AssertionError):
        BROKEN[target](outcome.input)
