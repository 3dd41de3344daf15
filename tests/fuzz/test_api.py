"""The whole API by its own description: requests that fit it, and requests that break it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from schemathesis import Case, GenerationMode
from schemathesis.core.failures import FailureGroup

from penstock.web import requests
from tests.fuzz.described import SCHEMA, profile, sane
from tests.fuzz.judge import judge
from tests.fuzz.standing import Standing


@SCHEMA.parametrize()
@profile(120)
def test_an_operation_keeps_its_word(stand: Standing, case: Case) -> None:
    sane(case)
    judge(case, case.call(session=stand.client))


# Bugs that an instrument of this kind must see, each with the route it is planted under.
PLANTED: dict[str, tuple[str, str, Any]] = {
    "a parameter of any type": ("/orders", "typed", lambda query, route: query),
    "any client's name": ("/prices", "client_of", lambda found: "local"),
    "any parameter": ("/stock", "query_of", lambda scope, allowed: {}),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(
    stand: Standing, bug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, name, wrong = PLANTED[bug]
    monkeypatch.setattr(requests, name, wrong)
    method = "PUT" if path == "/prices" else "GET"
    with pytest.raises(FailureGroup):
        broken(path, method)(stand)


def broken(path: str, method: str) -> Callable[[Standing], None]:
    """Requests that do not fit one operation."""

    @profile(70)
    @given(case=SCHEMA[path][method].as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def ask(stand: Standing, case: Case) -> None:
        judge(case, case.call(session=stand.client))

    return ask
