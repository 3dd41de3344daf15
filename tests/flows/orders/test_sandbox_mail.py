"""The catching mail server, through the gateway that speaks to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from penstock.flows.orders.gateways import mail
from penstock.flows.orders.sandbox.ledger import Call, Ledger, Mail
from penstock.flows.orders.sandbox.mailbox import LEDGER, read_mails
from penstock.ports import Ok, Outcome, Refused, Unavailable, Unknown
from tests.flows.orders.sandbox_process import Sandbox, request, running


class Post:
    """A mail server and a gateway to it."""

    def __init__(self, server: Sandbox) -> None:
        self.server, self.home = server, server.home
        self.gateway = mail.Mail("127.0.0.1", server.port, "shop@example.org")

    def send(self, key: str, timeout_seconds: float = 10.0, /, **changes: str) -> Outcome:
        """Send one message."""
        body = {
            "to": "a@example.org",
            "subject": "Your order",
            "text": "Thank you.",
            "order": "o-1",
            "kind": "confirmed",
            "key": key,
        }
        return self.gateway.call(request("send", key, timeout_seconds, **(body | changes)))

    def script(self, *rows: dict[str, Any]) -> None:
        """Write the control file."""
        (self.home / "faults.json").write_text(json.dumps(rows))


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    with running("mail", tmp_path) as server:
        post = Post(server)
        yield post
        post.gateway.close()


def calls(home: Path) -> list[Call]:
    ledger = Ledger(home / LEDGER, readonly=True)
    try:
        return ledger.rows(Call)
    finally:
        ledger.close()


def test_a_message_is_caught_as_it_was_written(post: Post) -> None:
    text = "Grüße, 顧客\n.\n.dot\n" + "long " * 400
    key = "mail:" + "k" * 200
    assert isinstance(post.send(key, subject="Ihre Bestellung für Zoë", text=text), Ok)
    (caught,) = read_mails(post.home)
    assert caught == Mail(
        at=caught.at,
        key=key,
        order="o-1",
        kind="confirmed",
        to="a@example.org",
        subject="Ihre Bestellung für Zoë",
        text=text,
        duplicate=False,
        seq=1,
    )


def test_a_repeat_is_kept_and_flagged(post: Post) -> None:
    for _ in range(2):
        assert isinstance(post.send("same"), Ok)
    assert [caught.duplicate for caught in read_mails(post.home)] == [False, True]
    assert [call.outcome for call in calls(post.home)] == ["done", "repeated"]


def test_a_greylisted_message_comes_through_later(post: Post) -> None:
    post.script({"fault": "greylist", "times": 2})
    outcomes = [type(post.send("grey")) for _ in range(3)]
    assert outcomes == [Unavailable, Unavailable, Ok]
    assert len(read_mails(post.home)) == 1


def test_a_refusal_is_an_outcome(post: Post) -> None:
    post.script({"fault": "refuse", "order": "o-1", "times": None})
    outcome = post.send("no")
    assert isinstance(outcome, Refused)
    assert outcome.reason.startswith("554")
    assert isinstance(post.send("yes", order="o-2"), Ok)
    assert [caught.order for caught in read_mails(post.home)] == ["o-2"]


def test_a_cut_after_the_message_is_unknown_and_its_repeat_is_seen(post: Post) -> None:
    post.script({"fault": "cut_after"})
    assert isinstance(post.send("cut"), Unknown)
    assert isinstance(post.send("cut"), Ok)
    assert [caught.duplicate for caught in read_mails(post.home)] == [False, True]


def test_a_slow_server_is_unknown_after_the_timeout(post: Post) -> None:
    post.script({"fault": "slow", "seconds": 600})
    assert isinstance(post.send("slow", 0.5), Unknown)
    assert isinstance(post.send("next"), Ok)


def test_the_control_file_is_taken_once_and_outlives_a_restart(tmp_path: Path) -> None:
    with running("mail", tmp_path) as server:
        first = Post(server)
        first.script({"fault": "greylist", "times": 1})
        assert isinstance(first.send("a"), Unavailable)
        server.kill()
        first.gateway.close()
    with running("mail", tmp_path) as server:
        second = Post(server)
        assert isinstance(second.send("a"), Ok)
        second.gateway.close()


@pytest.mark.parametrize("written", ["{", '[{"fault": "earthquake"}]', '[{"fault": 1}]'])
def test_a_control_file_that_cannot_be_read_holds_the_mail(post: Post, written: str) -> None:
    (post.home / "faults.json").write_text(written)
    outcome = post.send("key")
    assert isinstance(outcome, Unavailable)
    assert "faults.json" in outcome.reason
    assert read_mails(post.home) == []


def test_a_connection_is_used_again(post: Post) -> None:
    post.send("first")
    (kept,) = post.gateway._idle
    post.send("second")
    assert post.gateway._idle == [kept]


def test_threads_share_a_gateway(post: Post) -> None:
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda n: post.send(f"k{n}"), range(40)))
    assert all(isinstance(outcome, Ok) for outcome in outcomes)
    assert len(read_mails(post.home)) == 40


def test_what_was_taken_survives_a_kill(tmp_path: Path) -> None:
    taken: set[str] = set()
    with running("mail", tmp_path) as server, ThreadPoolExecutor(4) as pool:
        first = Post(server)

        def send(number: int) -> None:
            if number == 50:
                server.process.kill()
            outcome = first.send(f"k{number}")
            if isinstance(outcome, Ok):
                taken.add(f"k{number}")
            assert isinstance(outcome, Ok | Unavailable | Unknown)

        list(pool.map(send, range(100)))
        first.gateway.close()
    assert 0 < len(taken) < 100
    assert taken <= {caught.key for caught in read_mails(tmp_path)}
    with running("mail", tmp_path) as server:
        again = Post(server)
        assert isinstance(again.send(taken.pop()), Ok)
        again.gateway.close()
    assert read_mails(tmp_path)[-1].duplicate


def test_a_home_without_mail_is_empty(tmp_path: Path) -> None:
    assert read_mails(tmp_path) == []


def test_it_ends_cleanly(post: Post) -> None:
    assert isinstance(post.send("kept-open"), Ok)
    assert post.server.end() == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": "x\r\nBcc: all@example.org"},
        {"subject": "x\nBcc: all@example.org"},
        {"subject": "x\u2028Bcc: all@example.org"},
        {"to": "a@example.org\r\nBcc: all@example.org"},
        {"to": "a@example.org, b@example.org"},
        {"to": "A <a@example.org>"},
        {"to": ""},
        {"order": "o\r\nX: y"},
        {"kind": "k\x00"},
    ],
)
def test_a_field_cannot_forge_a_header(post: Post, changes: dict[str, str]) -> None:
    assert isinstance(post.send("forged", **changes), Refused)
    assert read_mails(post.home) == []


@pytest.mark.parametrize("key", ["", "a b", "a\r\nBcc: b@example.org", "é", "k" * 256])
def test_a_key_cannot_forge_a_header(post: Post, key: str) -> None:
    assert isinstance(post.send(key), Refused)
