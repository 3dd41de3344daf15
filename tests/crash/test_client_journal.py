"""The client's journal: on the disk before a request leaves, numbered by tries, never mixed up."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from penstock.sim.audit.clients import read_journal
from penstock.sim.crash.client import Client
from penstock.sim.crash.journal import Journal
from penstock.sim.crash.subject import Subject


class Door(ThreadingHTTPServer):
    """Answers by script, and keeps what lay in the journal when each request came."""

    def __init__(self, journal: Path, script: list[int]) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.journal, self.script = journal, script
        self.seen: list[dict[str, Any]] = []


class Answering(BaseHTTPRequestHandler):
    """One request: the next status of the script, 0 to hang up."""

    server: Door

    def do_POST(self) -> None:
        """Answer, or hang up without a word."""
        self.server.seen.append(json.loads(self.server.journal.read_text().splitlines()[-1]))
        self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.script.pop(0)
        if not status:
            return
        body = json.dumps({"said": status}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    """A server for one client."""
    with Door(tmp_path / "journal.jsonl", []) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def send(door: Door, script: list[int], key: str = "k") -> int:
    """What a client is told in the end, by a door that answers like this."""
    door.script[:] = script
    journal = Journal(door.journal)
    subject = Subject(door.journal.parent / "home", port=door.server_address[1])
    client = Client(subject, journal)
    try:
        return client.send("POST", "/things", key, {"a": 1}, "importer").status_code
    finally:
        client.close()
        journal.close()


def rows(door: Door) -> list[dict[str, Any]]:
    return [json.loads(line) for line in door.journal.read_text().splitlines()]


def test_a_try_is_written_before_it_is_sent_and_its_reply_after(door: Door) -> None:
    assert send(door, [202]) == 202
    sent, answered = rows(door)
    assert door.seen == [sent]
    assert {k: sent[k] for k in sent if k != "at"} == {
        "sent": 1, "client": "importer", "method": "POST", "path": "/things", "key": "k",
        "body": {"a": 1},
    }  # fmt: skip
    assert (answered["answered"], answered["status"]) == (1, 202)
    assert answered["reply"] == {"said": 202}


def test_a_request_is_repeated_under_its_key_until_it_is_answered(door: Door) -> None:
    assert send(door, [0, 503, 0, 202]) == 202
    kinds = [next(iter(row)) for row in rows(door)]
    assert kinds == ["sent", "lost", "sent", "answered", "sent", "lost", "sent", "answered"]
    assert {row["key"] for row in door.seen} == {"k"}
    assert [row["sent"] for row in door.seen] == [1, 2, 3, 4]
    (asked,) = read_journal([door.journal])
    assert (asked.state, asked.status, asked.replies) == ("acked", 202, [{"said": 202}])


def test_a_refusal_is_an_answer(door: Door) -> None:
    assert send(door, [422]) == 422
    (asked,) = read_journal([door.journal])
    assert (asked.state, asked.status) == ("failed", 422)


def test_a_second_run_goes_on_numbering(door: Door) -> None:
    send(door, [202], "one")
    send(door, [202], "two")
    assert [row["sent"] for row in door.seen] == [1, 2]
    assert [asked.key for asked in read_journal([door.journal])] == ["one", "two"]
