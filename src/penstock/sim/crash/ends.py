"""Where errands have come to stand, looked at over HTTP as their senders would."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from penstock.flow import Errand
from penstock.sim.crash.client import Client, Placed
from penstock.sim.crash.waiting import Late, NotYet, eventually
from penstock.sim.crash.workload import Workload

WHY = "the crash harness tidies up"


def rest(client: Client, seconds: float) -> None:
    """Wait until every record is read, as far as the platform tells: an audit before that would
    only say so at a greater price."""
    with contextlib.suppress(Late):
        eventually(lambda: _all_read(client), seconds, "every record is read")


def _all_read(client: Client) -> bool:
    status = client.look("/status")
    return not any(service["lag"] for service in status["services"])


class Ends:
    """Waits until every errand stands where it may end, and is the person for those that park."""

    def __init__(self, workload: Workload, client: Client, placed: Iterable[Placed]) -> None:
        self._workload, self._client = workload, client
        self._open: dict[str, Errand] = {p.id: p.errand for p in placed}
        self._helped: set[str] = set()

    def within(self, seconds: float) -> dict[str, str]:
        """What has not ended by then: id and sentence."""
        with contextlib.suppress(Late):
            eventually(self._all_ended, seconds, "every errand ends")
        return {
            id_: f"{errand.visits[0].key} is {self._stands(id_)} after {seconds:g} s; it had to "
            f"become {' or '.join(errand.ends)}"
            for id_, errand in self._open.items()
        }

    def _all_ended(self) -> bool:
        for id_, errand in list(self._open.items()):
            if self._is_helped(id_, errand) and self._stand(id_) in errand.ends:
                del self._open[id_]
        return not self._open

    def _stand(self, id_: str) -> str:
        return self._workload.stand(self._client.look, id_)

    def _stands(self, id_: str) -> str:
        try:
            return self._stand(id_)
        except NotYet as why:
            return f"nowhere ({why})"

    def _is_helped(self, id_: str, errand: Errand) -> bool:
        """Was done what a person does with the errand's parked record? Once is enough."""
        if errand.after_park == "leave" or id_ in self._helped:
            return True
        for letter in self._client.look("/deadletters")["deadletters"]:
            if letter["key"] == id_ and self._client.wish(
                f"{letter['href']}/{errand.after_park}", WHY
            ):
                self._helped.add(id_)
        return id_ in self._helped
