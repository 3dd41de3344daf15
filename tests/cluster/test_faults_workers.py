"""Workers that join, leave, die and wake up late, under orders: everything ends right."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.cluster.rig import House, house
from tests.support import eventually

DOUBLED = "payment"
ROUNDS = 4
pytestmark = [pytest.mark.kafka, pytest.mark.postgres]


@pytest.fixture(scope="module")
def shop(
    kafka: str, databases: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """A house that runs, with two workers of one service."""
    with house(tmp_path_factory.mktemp("workers"), kafka, databases(), DOUBLED) as made:
        yield made


def test_a_storm_of_workers(shop: House) -> None:
    """Some come and go as they are told to, some die at any moment; lanes move all the while."""
    with shop.under_orders() as orders:
        for n in range(ROUNDS):
            with ExitStack() as extras:
                for k in range(2):
                    extras.enter_context(shop.worker(DOUBLED, f"storm-{n}-{k}"))
                victim = DOUBLED if n % 2 else f"{DOUBLED}-2"
                dead = shop.subject.pid(victim)
                os.kill(dead, signal.SIGKILL)
                orders.more(1)
            shop.subject.await_successor(victim, dead)


def test_a_worker_that_slept_while_others_took_its_lanes_changes_nothing(shop: House) -> None:
    """It is stopped with work in its hands. When it wakes up, others have gone on in its lanes:
    what it still wants to commit is refused, and nothing is done twice."""
    sleeper = shop.subject.pid(DOUBLED)
    had = eventually(lambda: shop.lanes(sleeper), 30, what="it has lanes")
    epochs = lambda: shop.epochs(DOUBLED, had)  # noqa: E731
    with shop.under_orders() as orders:
        before = epochs()
        os.kill(sleeper, signal.SIGSTOP)
        try:
            taken = lambda: all(a > b for a, b in zip(epochs(), before, strict=True))  # noqa: E731
            eventually(taken, 60, what="its lanes have other owners")
            orders.more()
        finally:
            os.kill(sleeper, signal.SIGCONT)
        assert shop.subject.pids()[DOUBLED] == sleeper, "it is the same process that woke up"
