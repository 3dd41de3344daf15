"""What a flow tells the crash harness: a module that it names as ``Flow.crash``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol, cast

from penstock.errors import Usage
from penstock.flow import Errand, Flow, Visit

Look = Callable[[str], Any]  # the JSON at a path; None where there is none


class Workload(Protocol):
    """Pure: what is sent follows from the number alone, so that a seed can be run again."""

    NOUN: str  # of what is counted, in the plural
    ID_FIELD: str  # where a first visit's reply names the id that is followed

    def supplies(self) -> tuple[Visit, ...]:
        """What has to be there before any errand can end well."""

    def supplied(self, look: Look) -> bool:
        """Is it there? Topics race: an errand must not overtake its supplies."""

    def errand(self, number: int) -> Errand:
        """The errand of that number. Its keys are its own."""

    def stand(self, look: Look, id: str) -> str:
        """Where the errand of that id stands, in the words of ``Errand.ends``."""


def workload_of(flow: Flow) -> Workload:
    """The flow's own. Raises ``Usage`` where it brings none."""
    if not flow.crash:
        raise Usage(
            "no_crash_workload", f"The flow {flow.name} does not say what to send.",
            "Name a module as its `crash`; docs/guides/crash-tests.md shows one.",
        )
    return cast(Workload, importlib.import_module(flow.crash))
