"""The journal of a client: tries of one request together, a cut end tolerated, nothing else."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.sim.audit.books import Asked
from penstock.sim.audit.clients import read_journal
from penstock.sim.audit.opening import Unfit


def sent(n: int, key: str = "k", body: Any = 1, **changes: Any) -> dict[str, Any]:
    """A try goes out."""
    return {"sent": n, "at": n, "client": "importer", "method": "POST", "path": "/loans",
            "key": key, "body": body, **changes}  # fmt: skip


def answered(n: int, status: int, reply: Any = None) -> dict[str, Any]:
    """It was answered."""
    return {"answered": n, "at": n + 1, "status": status, "reply": reply}


def lost(n: int) -> dict[str, Any]:
    """Nobody answered it."""
    return {"lost": n, "at": n + 1, "error": "timeout"}


def journal(folder: Path, *lines: dict[str, Any], end: str = "\n", name: str = "j") -> Path:
    """A journal with these lines."""
    path = folder / name
    path.write_text("\n".join(map(json.dumps, lines)) + end)
    return path


def read(folder: Path, *lines: dict[str, Any], end: str = "\n") -> list[Asked]:
    """The requests of a journal."""
    return read_journal([journal(folder, *lines, end=end)])


@pytest.mark.parametrize(
    ("lines", "state", "status"),
    [
        ([answered(1, 202)], "acked", 202),
        ([answered(1, 503)], "unknown", 503),
        ([answered(1, 409)], "failed", 409),
        ([lost(1)], "unknown", 0),
        ([], "unknown", 0),
        ([lost(1), sent(2), answered(2, 202)], "acked", 202),
        ([answered(1, 202), sent(2), answered(2, 422)], "acked", 202),
        ([answered(1, 422), sent(2), answered(2, 201)], "acked", 201),
        ([answered(1, 422), sent(2), answered(2, 503)], "failed", 422),
    ],
)
def test_a_request_ends_as_its_best_try(
    tmp_path: Path, lines: list[dict[str, Any]], state: str, status: int
) -> None:
    (asked,) = read(tmp_path, sent(1), *lines)
    assert (asked.state, asked.status, asked.sent_at) == (state, status, 1)


def test_different_bodies_and_replies_are_kept_once_each(tmp_path: Path) -> None:
    lines = [sent(1), answered(1, 202, {"id": "a"}), sent(2), answered(2, 202, {"id": "a"}),
             sent(3, body=2), answered(3, 202, {"id": "b"})]  # fmt: skip
    (asked,) = read(tmp_path, *lines)
    assert asked.bodies == [1, 2]
    assert asked.replies == [{"id": "a"}, {"id": "b"}]


def test_requests_are_told_apart_by_client_method_path_and_key(tmp_path: Path) -> None:
    lines = [sent(1), sent(2, client="b"), sent(3, method="PUT"), sent(4, path="/x"), sent(5, "l")]
    assert len(read(tmp_path, *lines)) == 5


def test_without_a_key_every_try_is_a_request(tmp_path: Path) -> None:
    assert len(read(tmp_path, sent(1, ""), sent(2, ""))) == 2
    two = [journal(tmp_path, sent(1, ""), name="a"), journal(tmp_path, sent(1, ""), name="b")]
    assert len(read_journal(two)) == 2


def test_several_journals_are_one(tmp_path: Path) -> None:
    first = journal(tmp_path, sent(1), lost(1), name="a")
    second = journal(tmp_path, sent(1), answered(1, 202), name="b")
    (asked,) = read_journal([first, second])
    assert asked.state == "acked"


@pytest.mark.parametrize("end", ['\n{"sent": 2, "at"', "\n{", '\n{"answered": 1', "\n\xff", ""])
def test_a_line_cut_by_a_death_is_no_line(tmp_path: Path, end: str) -> None:
    (asked,) = read(tmp_path, sent(1), end=end)
    assert asked.state == "unknown"


def test_a_whole_line_without_its_end_counts(tmp_path: Path) -> None:
    (asked,) = read(tmp_path, sent(1), answered(1, 202), end="")
    assert asked.state == "acked"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "truncated"),
        ("[]", "it is no object"),
        ("{}", "neither sent, answered nor lost"),
        ('{"sent": "one"}', "Expected `int`"),
        ('{"sent": 1, "at": 1, "client": "c", "method": "POST", "path": "/"}', "sent twice"),
        ('{"answered": 9, "at": 1, "status": 200}', "no try 9 was sent before"),
        ('{"lost": 9, "at": 1}', "no try 9 was sent before"),
        ("", "truncated"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str, why: str) -> None:
    path = journal(tmp_path, sent(1), end=f"\n{line}\n")
    with pytest.raises(Unfit, match=why) as caught:
        read_journal([path])
    assert f"{path}:2:" in caught.value.message


def test_a_journal_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="cannot be read: No such file"):
        read_journal([tmp_path / "none"])


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_journal_breaks_the_reader(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "j"
    path.write_bytes(raw)
    with suppress(Unfit):
        read_journal([path])
