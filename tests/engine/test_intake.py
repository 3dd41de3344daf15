"""The intake: a group is one commit, a bug costs its own request, a full disk costs none."""

from __future__ import annotations

from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from msgspec import Struct

from penstock.contracts.contract import Contract
from penstock.contracts.wire import Book
from penstock.decision import Ask, Done, Emit, Ref, States
from penstock.embedded.file import File
from penstock.engine.intake import Gate, Wanted
from penstock.errors import Contended
from penstock.flow import Accepted, Call, Fault, Intake, Reply
from penstock.limits import INTAKE_QUEUE_MAX
from penstock.store.sqlite import SqliteStore
from tests.flows.rig import HandClock


class Seat(Struct, frozen=True, kw_only=True):
    """Who sits there."""

    guest: str


class Taken(Struct, frozen=True, kw_only=True):
    """A seat was taken."""

    seat: str


BOOK = Book((Contract(type="seat.taken", version=1, model=Taken),))


def seat_of(call: Call) -> tuple[Ref, ...]:
    """The seat's document."""
    assert call.params["seat"] != "needs fails", "no such row"
    return (Ref("seat", call.params["seat"]),)


def sit(states: States, call: Call) -> Accepted:
    """The first guest has the seat; the seat's name says how the decide goes wrong."""
    name = call.params["seat"]
    ref = Ref("seat", name)
    if name == "raises":
        raise ZeroDivisionError("bug")
    if name == "others":
        return Accepted(reply=Reply(), done=Done({Ref("seat", "1"): Seat(guest="thief")}))
    if name == "asks":
        return Accepted(reply=Reply(), done=Done(asks=(Ask("bank", "x"),)))
    if name == "odd key":
        odd: Any = 5
        return Accepted(reply=Reply(), done=Done(events=(Emit("seats", Taken(seat="x"), odd),)))
    held = states[ref]
    if held is not None:
        return Accepted(reply=Reply(status=409, body=held.guest))
    done = Done({ref: Seat(guest=call.client)}, (Emit("seats", Taken(seat=name)),))
    return Accepted(reply=Reply(status=201), done=done, root=(call.client, name), key=name)


INTAKE = Intake(needs=seat_of, decide=sit)


def gate_on(path: Path | None = None) -> Gate:
    """A gate with one kind of document."""
    file = File(path and path / "hall.db")
    if not file.run("SELECT 1 FROM topics"):
        file.ensure_topic("seats", 4)
    store = SqliteStore(file, "hall", direct=("seats",))
    return Gate("hall", {"seat": Seat}, {}, BOOK, store, HandClock())


def file_of(gate: Gate) -> File:
    store: Any = gate._store
    return store.file  # type: ignore[no-any-return]


def send(gate: Gate, *wishes: tuple[str, str]) -> list[Reply | None]:
    """Submit (guest, seat) wishes, commit once; replies in the order of the wishes."""
    replies: list[Reply | None] = [None] * len(wishes)
    for n, (guest, seat) in enumerate(wishes):

        def deliver(reply: Reply, at: int = n) -> None:
            replies[at] = reply

        call = Call(client=guest, now=1_767_600_000_000, params={"seat": seat})
        assert gate.submit(Wanted(INTAKE, call, deliver)) is None
    gate.step()
    return replies


def statuses(replies: list[Reply | None]) -> list[int]:
    return [reply.status if reply else 0 for reply in replies]


def test_a_group_is_one_commit_and_later_requests_see_earlier_ones(tmp_path: Path) -> None:
    gate = gate_on(tmp_path)
    send(gate, ("warm", "0"))
    commits = file_of(gate).commits
    replies = send(gate, *((f"g{n}", f"{n % 40}") for n in range(1, 101)))
    assert file_of(gate).commits == commits + 1
    assert statuses(replies).count(201) == 39
    assert statuses(replies).count(409) == 61
    assert (gate.groups, gate.requests) == (2, 101)
    again = gate_on(tmp_path)
    (reply,) = send(again, ("late", "7"))
    assert reply is not None
    assert (reply.status, reply.body) == (409, "g7")


@pytest.mark.parametrize("seat", ["raises", "needs fails", "others", "asks", "odd key", "\ud800"])
def test_a_bug_costs_its_own_request_only(seat: str, tmp_path: Path) -> None:
    gate = gate_on(tmp_path)
    replies = send(gate, ("a", "1"), ("b", seat), ("c", "2"))
    assert statuses(replies) == [201, 500, 201]
    body = replies[1].body if replies[1] else None
    assert isinstance(body, Fault)
    assert body.code == "internal_error"
    assert statuses(send(gate, ("d", "1"), ("e", "3"))) == [409, 201]


def test_an_unreadable_document_costs_the_requests_that_need_it(tmp_path: Path) -> None:
    gate = gate_on(tmp_path)
    send(gate, ("a", "1"), ("b", "2"))
    file_of(gate).run("UPDATE documents SET body = x'7b' WHERE key = '1'")
    assert statuses(send(gate, ("c", "1"), ("d", "2"), ("e", "3"))) == [500, 409, 201]


def test_a_full_disk_answers_503_and_it_goes_on_by_itself(tmp_path: Path) -> None:
    gate, told = gate_on(tmp_path), "storage_full"
    send(gate, ("a", "1"))
    file = file_of(gate)
    file.run(f"PRAGMA max_page_count={file.run('PRAGMA page_count')[0][0]}")
    wishes = [(f"g{n}", f"s{n}" + "x" * 200) for n in range(200)]
    replies = send(gate, *wishes)
    assert set(statuses(replies)) == {503}
    assert {r.body.code for r in replies if r and isinstance(r.body, Fault)} == {told}
    assert gate.full
    found = file.run("SELECT count(*) FROM documents")
    assert found == [(1,)]
    file.run("PRAGMA max_page_count=1000000")
    assert set(statuses(send(gate, *wishes))) == {201}
    assert not gate.full


def test_nobody_waits_for_ever_for_a_row_that_somebody_stands_on(tmp_path: Path) -> None:
    gate = gate_on(tmp_path)
    clock: Any = gate._clock
    store: Any = gate._store
    begin = store.begin

    def held() -> Any:
        clock.pass_(10_000)
        raise Contended("canceled due to lock timeout")

    store.begin = held
    (reply,) = send(gate, ("a", "1"))
    assert reply is not None
    assert (reply.status, reply.headers["retry-after"]) == (503, "2")
    store.begin = begin
    assert statuses(send(gate, ("a", "1"))) == [201]


def test_another_instance_takes_turns_by_epoch(tmp_path: Path) -> None:
    first = gate_on(tmp_path)
    second = gate_on(tmp_path)
    assert statuses(send(first, ("a", "1"))) == [201]
    assert statuses(send(second, ("b", "1"), ("b", "2"))) == [409, 201]
    assert statuses(send(first, ("c", "2"), ("c", "3"))) == [409, 201]


def test_a_full_queue_and_a_closing_door_refuse_at_once() -> None:
    gate = gate_on()
    call = Call(client="a", now=1, params={"seat": "1"})
    wanted = Wanted(INTAKE, call, lambda reply: None)
    refusals = [gate.submit(wanted) for _ in range(INTAKE_QUEUE_MAX + 1)]
    assert refusals[:-1] == [None] * INTAKE_QUEUE_MAX
    last = refusals[-1]
    assert last is not None
    assert (last.status, last.headers["retry-after"]) == (503, "1")
    gate.close()
    closing = gate.submit(wanted)
    assert closing is not None
    assert closing.body.code == "draining"


def test_what_was_queued_before_closing_is_still_answered(tmp_path: Path) -> None:
    replies: list[Reply] = []
    gate = gate_on(tmp_path)
    for n in range(50):
        call = Call(client="a", now=1, params={"seat": str(n)})
        gate.submit(Wanted(INTAKE, call, replies.append))
    gate.close()
    thread = Thread(target=gate.run)
    thread.start()
    thread.join(10)
    assert [reply.status for reply in replies] == [201] * 50
