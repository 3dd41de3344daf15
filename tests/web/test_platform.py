"""Health, metrics, status and dead letters of the small flow."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from penstock.catalog.model import KafkaSettings, Person, Rotation, Team
from penstock.entry import Entry
from penstock.errors import Problem
from penstock.limits import TEXT_CHARS_MAX
from penstock.log.kafka import KafkaLog
from penstock.metrics import METRICS
from penstock.ops.scribe import NotWritten, Unsure
from penstock.ports import TopicSpec
from penstock.web.metrics import exposition
from penstock.web.page import troubles
from penstock.web.status import GatewayState, gather
from penstock.web.teams import team_states
from tests.flows.rig import HandClock
from tests.support import unused_port
from tests.web.live import live
from tests.web.small import NOW, Library

LETTER = "/deadletters/reader/books/1/7"


def scrape(door: httpx.Client) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample by name and label values, in the order of the labels' names."""
    reply = door.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(reply.text)
    return {(s.name, tuple(s.labels.values())): s.value for f in families for s in f.samples}


def test_it_is_alive(door: httpx.Client) -> None:
    assert door.get("/healthz").json() == {"status": "ok"}


def test_it_is_ready_once_every_service_reports(door: httpx.Client, library: Library) -> None:
    silent = door.get("/readyz")
    assert silent.status_code == 503
    assert silent.json()["reasons"] == ["reader has not reported for 5 seconds"]
    library.report()
    assert door.get("/readyz").json() == {"ready": True, "reasons": []}
    library.clock.at += 6_000
    assert door.get("/readyz").status_code == 503
    library.report(stopped="most keys fail")
    assert door.get("/readyz").json()["reasons"] == ["reader stopped: most keys fail"]
    library.report()
    library.gate.full = True
    assert "disk is full" in door.get("/readyz").json()["reasons"][0]


def test_a_balancer_hears_of_this_process_alone(door: httpx.Client, library: Library) -> None:
    assert door.get("/health/live").json() == {"status": "ok"}
    assert door.get("/readyz").status_code == 503
    assert door.get("/health/ready").json() == {"ready": True, "reasons": []}
    library.gate.full = True
    full = door.get("/health/ready")
    assert full.status_code == 503
    assert "disk is full" in full.json()["reasons"][0]


def test_what_keeps_the_records_of_the_doors_own_topics_is_told(tmp_path: Path) -> None:
    """The door is no service with a status file: its keeper's alarms come with the intake."""
    why = "a reader of books is behind the retention bound in partitions [1]; its records are kept"
    site = Library(tmp_path, alarms={"books": why}).site
    status = gather(site)
    assert status.intake.alarms == {"books": why}
    assert f"books: {why}" in troubles(status)


def test_how_far_everybody_is_is_not_guessed_while_the_broker_is_away(library: Library) -> None:
    """A lag of nothing would be a lie. All else is shown."""
    library.report(handled=5)
    away = KafkaLog(
        KafkaSettings(servers=f"127.0.0.1:{unused_port()}"),
        [TopicSpec(name=name, partitions=4) for name in library.site.catalog.topics],
        seconds=0.2,
    )
    site = replace(library.site, log=away)
    status = gather(site, ages=True)
    away.close()
    (state,) = status.services
    assert (state.handled, state.lag) == (5, None)
    assert {topic.records for topic in status.topics} == {None}
    assert any("Kafka does not answer" in text for text in troubles(status))
    families = text_string_to_metric_families(exposition(status).decode())
    lags = [f.samples for f in families if f.name == "penstock_consumer_lag_messages"]
    assert not any(lags)


def test_every_metric_of_the_table_is_scraped(door: httpx.Client, library: Library) -> None:
    gateways = {"press": {"state": "open", "open_rows": 3, "last_error": "refused"}}
    library.report(handled=5, retried=2, parked_total=1, waiting=4, parked=1, gateways=gateways)
    door.post("/books", json={"title": "a"}, headers={"Idempotency-Key": "k"})
    library.clock.at += 4_000
    seen = scrape(door)
    assert {name for name, _ in seen} == {metric.name for metric in METRICS}
    assert seen["penstock_records_handled_total", ("reader",)] == 5
    assert seen["penstock_gateway_breaker_open", ("press", "reader")] == 1
    assert seen["penstock_intake_requests_total", ()] == 1
    lag = {at: n for (name, at), n in seen.items() if name == "penstock_consumer_lag_messages"}
    assert sum(lag.values()) == 1
    (place,) = [at for at, n in lag.items() if n]
    assert seen["penstock_consumer_oldest_unread_age_seconds", place] == 4


def test_several_processes_of_a_service_are_told_as_one(library: Library) -> None:
    """One's clock is an hour off, which by one clock for all is no silence; and a gateway that is
    not well for one courier is not hidden by another for which it is."""
    gateways = [
        {"press": {"state": "open", "open_rows": 3, "last_error": "refused"}},
        {"press": {"state": "closed", "open_rows": 2}},
    ]
    late = library.clock.now() - 3_600_000
    said = [{"service": "reader", "pid": n, "at": late, "silent_ms": n * 10_000, "gateways": g}
            for n, g in enumerate(gateways)]  # fmt: skip
    said.insert(0, {"service": "reader", "pid": 7, "at": late, "silent_ms": 5, "role": "courier",
                 "gateways": gateways[1]})  # fmt: skip
    site = replace(library.site, reports=lambda: [json.dumps(s).encode() for s in said])
    (state,) = gather(site).services
    assert (state.running, state.pid, state.pids) == (True, 0, (0, 7))
    assert state.gateways == {
        "press": GatewayState(state="open", open_rows=5, last_error="refused")
    }


def test_no_key_of_a_record_is_a_label(door: httpx.Client, library: Library) -> None:
    door.post("/books", json={"title": "a"}, headers={"Idempotency-Key": "very-own-key"})
    library.park("very-own-key", b"{}")
    assert "very-own-key" not in door.get("/metrics").text


def test_the_status_adds_up_what_processes_said(door: httpx.Client, library: Library) -> None:
    library.report(handled=5, lanes=[0, 1])
    second = {"service": "reader", "pid": 2, "at": NOW, "handled": 7, "lanes": [2, 3]}
    (library.home / "run" / "status" / "reader-2.json").write_text(json.dumps(second))
    (library.home / "run" / "status" / "torn.json").write_text("{")
    crew = [{"name": "reader", "about": "Reads.", "pid": 1, "restarts": 2,
             "ready": {"listening": {"host": "127.0.0.1", "port": 99}}}]  # fmt: skip
    (library.home / "run" / "crew.json").write_text(json.dumps(crew))
    said = door.get("/status").json()
    (reader,) = said["services"]
    assert (reader["handled"], reader["lanes"], reader["running"]) == (12, [0, 1, 2, 3], True)
    assert said["sandbox"] is False
    assert said["crew"][0]["where"] == "127.0.0.1:99"
    assert door.get("/services").json()["services"] == said["services"]


def test_topics_say_what_they_hold(door: httpx.Client) -> None:
    door.post("/books", json={"title": "a"}, headers={"Idempotency-Key": "k"})
    books, journal = door.get("/topics").json()["topics"]
    assert (books["topic"], books["owner"], books["records"]) == ("books", "books", 1)
    assert books["readers"] == ["reader"]
    assert len(books["extents"]) == books["partitions"] == 4
    assert journal["records"] == 0


def test_teams_say_what_they_own_and_who_is_on_call(door: httpx.Client) -> None:
    (books,) = door.get("/teams").json()["teams"]
    assert books == {
        "team": "books", "about": "", "contacts": ["desk@x"], "topics": ["books", "journal"],
        "services": ["door", "reader"], "gateways": [],
        "on_call": {"person": "rosa", "address": "rosa", "why": "rotation", "until": "",
                    "backups": []},
    }  # fmt: skip
    assert "rosa" in door.get("/").text


def test_who_is_on_call_changes_with_the_clock(library: Library) -> None:
    rotation = Rotation(members=("rosa", "ole"), first_handover="2026-01-05T09:00", period_days=1)
    people = {name: Person(name=name, address=f"{name}@x") for name in ("rosa", "ole")}
    teams = {"books": Team(name="books", contacts=("desk@x",), rotation=rotation)}
    catalog = replace(library.site.catalog, people=people, teams=teams)
    nine = 1_767_603_600_000
    site = replace(library.site, catalog=catalog, clock=HandClock(nine - 1))
    (before,) = team_states(site).teams
    assert (before.on_call.person, before.on_call.until) == ("ole", "2026-01-05T09:00:00.000Z")
    (after,) = team_states(replace(site, clock=HandClock(nine))).teams
    assert (after.on_call.person, after.on_call.address) == ("rosa", "rosa@x")


def test_dead_letters_are_listed_with_their_cause(door: httpx.Client, library: Library) -> None:
    assert door.get("/deadletters").json() == {"deadletters": [], "truncated": False}
    library.park("faust", b'{"title": 1}', offset=7, reason="title is no text")
    (letter,) = door.get("/deadletters").json()["deadletters"]
    assert letter["href"] == LETTER
    assert (letter["key"], letter["kind"], letter["owner"]) == ("faust", "torn", "books")
    assert letter["on_call"] == "rosa"
    assert (letter["reason"], letter["attempts"]) == ("title is no text", 1)
    assert letter["since"] == "2026-01-05T08:00:00.005Z"
    assert door.get("/deadletters?service=reader").json()["deadletters"] == [letter]
    assert door.get("/deadletters?service=none").status_code == 404


def test_a_dead_letter_shows_its_bytes_whatever_they_are(
    door: httpx.Client, library: Library
) -> None:
    library.park("faust", b'{"\xff\x00', offset=7)
    one = door.get(LETTER).json()
    assert one["value"] == '{"\\xff\x00'
    assert one["value_bytes"] == 4
    assert one["story"] == [{"at": "2026-01-05T08:00:00.005Z", "error": "why"}]


@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_a_wish_goes_to_the_journal(door: httpx.Client, library: Library, verb: str) -> None:
    library.park("faust", b"{}", offset=7)
    reply = door.post(f"{LETTER}/{verb}", json={"reason": "mended"},
                      headers={"Penstock-Client": "ada"})  # fmt: skip
    assert reply.status_code == 202
    ((type_, wish),) = library.wishes
    assert type_ == f"deadletter.{verb}_requested"
    assert (wish.service, wish.topic, wish.partition, wish.offset) == ("reader", "books", 1, 7)
    assert (wish.key, wish.reason, wish.actor) == ("faust", "mended", "ada")


def test_a_record_from_before_a_move_lies_below_nought(
    door: httpx.Client, library: Library
) -> None:
    library.park("faust", b"{}", offset=-2)
    place = "/deadletters/reader/books/1/-2"
    assert door.get(place).json()["deadletter"]["offset"] == -2
    assert door.post(f"{place}/retry", json={"reason": "mended"}).status_code == 202
    ((_, wish),) = library.wishes
    assert (wish.offset, wish.key) == (-2, "faust")


@pytest.mark.parametrize(
    ("body", "code"),
    [({}, "missing_field"), ({"reason": ""}, "invalid_value"), ({"reason": " "}, "invalid_value"),
     ({"reason": "x" * (TEXT_CHARS_MAX + 1)}, "invalid_value"),
     ({"reason": "x", "force": True}, "unknown_field")],
)  # fmt: skip
def test_a_wish_needs_a_reason(
    door: httpx.Client, library: Library, body: dict[str, str], code: str
) -> None:
    library.park("faust", b"{}", offset=7)
    reply = door.post(f"{LETTER}/retry", json=body)
    assert (reply.status_code, reply.json()["code"]) == (422, code)
    assert library.wishes == []


@pytest.mark.parametrize("place", ["reader/books/1/8", "none/books/1/7", "reader/books/x/7",
                                   "reader/books/1/-7", "reader/books/1/--7", "reader/books/-1/7",
                                   "reader/books/1/" + "9" * 40])  # fmt: skip
def test_what_is_not_parked_is_not_found(door: httpx.Client, library: Library, place: str) -> None:
    library.park("faust", b"{}", offset=7)
    assert door.get(f"/deadletters/{place}").status_code == 404
    assert door.post(f"/deadletters/{place}/retry", json={"reason": "x"}).status_code == 404
    assert library.wishes == []


@pytest.mark.parametrize(
    "trouble", [NotWritten("not_journaled", "The journal took no entry.", "Repeat it."),
                Unsure("journal_unknown", "Nobody knows.", "Look.")],
)  # fmt: skip
def test_a_wish_that_the_journal_does_not_take_is_said_to_have_failed(
    home: Path, trouble: Problem
) -> None:
    def refuse(entry: Entry) -> Entry:
        raise trouble

    (home / "another").mkdir()
    library = Library(home / "another", journal=refuse)
    library.park("faust", b"{}", offset=7)
    with live(library.site) as door:
        reply = door.post(f"{LETTER}/retry", json={"reason": "mended"})
    assert (reply.status_code, reply.json()["code"]) == (503, trouble.code)
