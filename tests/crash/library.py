"""The lending library with a crash workload of its own: a flow that knows nothing of orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from penstock.flow import Call, Errand, Fault, Look, Reply, Route, Row, Scan, Visit
from tests.flows import library
from tests.flows.library.door import Delivery, LoanWish, Scanned

NOUN, ID_FIELD = "loans", "loan"
TITLES = {"emma": 1000, "persuasion": 2}  # copies of each


def _of(kind: str) -> Look:
    def wants(call: Call) -> dict[str, Scan]:
        return {"found": Scan(service="lending", kind=kind, key=call.params["id"])}

    def show(call: Call, found: Mapping[str, list[Row]]) -> Reply:
        if not found["found"]:
            return Reply(status=404, body=Fault(code="unknown", title="Unknown", detail="It is."))
        return Reply(body=found["found"][0].body)

    return Look(wants=wants, show=show)


ROUTES = (
    Route(method="GET", path="/loans/{id}", name="loan", summary="One loan.", does=_of("loan")),
    Route(method="GET", path="/shelves/{id}", name="shelf", summary="One shelf.",
          does=_of("shelf")),
)  # fmt: skip
FLOW = replace(
    library.FLOW, routes=(*library.FLOW.routes, *ROUTES), crash="tests.crash.library"
)


def catalog(folder: Path) -> Path:
    """A catalog that names this flow, with its contracts beside it."""
    path = folder / "catalog.toml"
    text = library.CATALOG.read_text()
    path.write_text(text.replace("tests.flows.library:FLOW", "tests.crash.library:FLOW"))
    (folder / "contracts").symlink_to(library.SNAPSHOTS)
    return path


def supplies() -> tuple[Visit, ...]:
    """The copies."""
    return tuple(
        Visit(after=0, route="buy", key=title, body=Delivery(title=title, count=count))
        for title, count in TITLES.items()
    )


def supplied(look: Callable[[str], Any]) -> bool:
    """Are the copies on their shelves?"""
    return all(look(f"/shelves/{title}") for title in TITLES)


def errand(number: int) -> Errand:
    """A loan, its copy scanned at once; every fifth wants what is rare."""
    loan, rare = f"l-{number}", number % 5 == 4
    wish = LoanWish(loan=loan, member=f"m-{number % 7}", title="persuasion" if rare else "emma")
    visits = [
        Visit(after=0, route="lend", key=loan, body=wish),
        Visit(after=0, route="scan", key=f"{loan}-out", body=Scanned(loan=loan, barcode=loan)),
    ]
    return Errand(visits=tuple(visits), ends=("lent", "refused") if rare else ("lent",))


def stand(look: Callable[[str], Any], id: str) -> str:
    """Where a loan stands."""
    found = look(f"/loans/{id}")
    return str(found["state"]) if found else "unknown"
