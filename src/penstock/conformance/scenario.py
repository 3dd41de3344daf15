"""What the suites are made of: scenarios with the features they need, and waiting for a turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from threading import Event, Thread
from typing import Any, Generic, TypeVar

from penstock.event import Message, partition_of
from penstock.ports import Features

Fixture = TypeVar("Fixture")
Seen = TypeVar("Seen")

# Processes are started from a clean interpreter: a fork would share locks and connections.
PROCESSES = get_context("spawn")
PATIENCE_SECONDS = 20.0
NOW = 1_760_000_000_000  # ms; scenarios count their own time from here


class Suite(Generic[Fixture]):
    """A table of scenarios for one port, each a function of the backend's fixture."""

    def __init__(self) -> None:
        self._scenarios: list[tuple[tuple[str, ...], Callable[[Fixture], None]]] = []

    def scenario(
        self, *needs: str
    ) -> Callable[[Callable[[Fixture], None]], Callable[[Fixture], None]]:
        """Add a function to the table; ``needs`` names fields of ``Features`` it relies on."""

        def add(function: Callable[[Fixture], None]) -> Callable[[Fixture], None]:
            assert set(needs) <= set(Features.__struct_fields__), needs
            self._scenarios.append((needs, function))
            return function

        return add

    def fitting(self, features: Features) -> list[Callable[[Fixture], None]]:
        """The scenarios that a backend with these features has to pass."""
        return [
            function
            for needs, function in self._scenarios
            if all(getattr(features, need) for need in needs)
        ]


def title(scenario: Callable[..., None]) -> str:
    """A scenario's name as a test's id."""
    return scenario.__name__


def eventually(condition: Callable[[], Seen], what: str) -> Seen:
    """The first truthy answer of ``condition``. Raises ``AssertionError`` when time is up."""
    deadline, never = time.monotonic() + PATIENCE_SECONDS, Event()
    while not (seen := condition()):
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS:g} s: {what}"
        never.wait(0.002)
    return seen


def refused(error: type[BaseException], action: Callable[..., Any], *values: Any) -> Any:
    """What ``action`` raises, which must be an ``error``."""
    try:
        answer = action(*values)
    except error as expected:
        return expected
    raise AssertionError(f"expected {error.__name__}, got {answer!r}")


def together(*tasks: Callable[[], None]) -> None:
    """Run the tasks in threads, all at once; the first failure is raised here."""
    failures: list[BaseException] = []

    def run(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as failure:
            failures.append(failure)

    threads = [Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive(), "a thread hangs"
    for failure in failures:
        raise failure


@contextmanager
def processes(target: Callable[..., None], calls: Sequence[tuple[Any, ...]]) -> Iterator[
    list[BaseProcess]
]:
    """Processes that run ``target``, one for each tuple of arguments; killed on leaving."""
    started: list[BaseProcess] = [PROCESSES.Process(target=target, args=call) for call in calls]
    for process in started:
        process.start()
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.join(PATIENCE_SECONDS)


def finished(started: Sequence[BaseProcess]) -> None:
    """Wait for processes; each must end by itself, and well."""
    for process in started:
        process.join(PATIENCE_SECONDS)
        assert process.exitcode == 0, f"{process.name} ended with {process.exitcode}"


def message(key: str, value: bytes | str = b"{}", **envelope: Any) -> Message:
    """A message with as little said as possible."""
    return Message(key, value.encode() if isinstance(value, str) else value, **envelope)


def keys_of(partition: int, partitions: int, count: int = 1) -> list[str]:
    """The first ``count`` keys that belong to ``partition``."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        if partition_of(f"k{number}", partitions) == partition:
            found.append(f"k{number}")
        number += 1
    return found
