"""The gateway clients: every end of a call is told apart by what may have happened."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.errors import Problem
from penstock.flows.orders.gateways import carrier, mail, payments
from penstock.flows.orders.gateways.http import Answer, judge, retry_after_seconds
from penstock.ports import Ok, Outcome, Refused, Unavailable, Unknown
from tests.flows.orders.sandbox_process import Sandbox, request, running
from tests.support import unused_port

CARD = {"group": "1", "amount": 1000, "currency": "EUR", "customer": "c"}
Talk = Callable[[socket.socket, threading.Event], None]


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with running("provider", tmp_path_factory.mktemp("provider")) as sandbox:
        yield sandbox


@pytest.fixture
def gateway(provider: Sandbox) -> Iterator[payments.Payments]:
    gateway = payments.gateway({"url": provider.url})
    assert isinstance(gateway, payments.Payments)
    yield gateway
    gateway.close()


def authorise(
    gateway: payments.Payments, order: str, method: str = "tok_ok", seconds: float = 10.0
) -> Outcome:
    key = f"authorise:{order}:1"
    return gateway.call(request("authorise", key, seconds, order=order, method=method, **CARD))


def body_of(outcome: Outcome) -> Any:
    assert isinstance(outcome, Ok | Refused), outcome
    return json.loads(outcome.body)


def test_money_moves_through_the_gateway(gateway: payments.Payments, provider: Sandbox) -> None:
    payment = body_of(authorise(gateway, "life"))["id"]
    amount = {"payment": payment, "amount": 1000, "currency": "EUR"}
    order = {"order": "life"}
    taken = gateway.call(request("capture", "capture:life:1", **order, group="1", **amount))
    assert body_of(taken)["state"] == "captured"
    given = gateway.call(request("refund", "refund:life:r1", **order, refund="r1", **amount))
    assert body_of(given) == {"state": "refunded", "amount": 1000}
    refused = gateway.call(request("void", "void:life:1", **order, group="1"))
    assert isinstance(refused, Refused)
    assert refused.reason == "already_captured"
    assert provider.effects("life") == ["authorise", "capture", "refund"]


def test_a_decline_is_a_refusal_with_its_body(gateway: payments.Payments) -> None:
    outcome = authorise(gateway, "poor", "tok_decline")
    assert isinstance(outcome, Refused)
    assert outcome.reason == "card_declined"
    assert body_of(outcome)["state"] == "declined"


def test_a_timeout_after_the_charge_is_unknown_until_asked_again(
    gateway: payments.Payments, provider: Sandbox
) -> None:
    assert isinstance(authorise(gateway, "mute", "tok_timeout", 0.3), Unknown)
    assert provider.effects("mute") == ["authorise"]
    assert body_of(authorise(gateway, "mute", "tok_timeout"))["state"] == "authorised"
    assert provider.effects("mute") == ["authorise"]


def test_a_provider_that_is_down_did_nothing(gateway: payments.Payments, provider: Sandbox) -> None:
    assert authorise(gateway, "down", "tok_503") == Unavailable("HTTP 503", None)
    assert authorise(gateway, "busy", "tok_429") == Unavailable("HTTP 429", 1.0)
    assert provider.effects("down") == provider.effects("busy") == []


def test_an_error_after_the_charge_is_unknown(
    gateway: payments.Payments, provider: Sandbox
) -> None:
    provider.script("authorise", "5xx_after", order="lost")
    assert authorise(gateway, "lost") == Unknown("HTTP 500")
    assert isinstance(authorise(gateway, "lost"), Ok)


def test_threads_share_a_gateway(gateway: payments.Payments, provider: Sandbox) -> None:
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(lambda n: authorise(gateway, f"t{n}"), range(200)))
    payments_made = {body_of(outcome)["id"] for outcome in outcomes}
    assert len(payments_made) == 200


def test_a_restarted_provider_is_reached_without_an_error(tmp_path: Path) -> None:
    with running("provider", tmp_path) as first:
        gateway = payments.gateway({"url": first.url})
        assert isinstance(gateway, payments.Payments)
        before = authorise(gateway, "o")
        first.kill()
        with running("provider", tmp_path, "--port", str(first.port)) as second:
            assert authorise(gateway, "o") == before
            second.kill()
            assert isinstance(authorise(gateway, "o"), Unavailable)
        gateway.close()


def test_a_provider_killed_in_the_middle_never_looks_as_if_nothing_happened(
    tmp_path: Path,
) -> None:
    """Whatever the provider did, no call about it was answered with a refusal or Unavailable."""
    with running("provider", tmp_path) as provider, ThreadPoolExecutor(8) as pool:
        gateway = payments.gateway({"url": provider.url})
        assert isinstance(gateway, payments.Payments)

        def call(number: int) -> Outcome:
            if number == 100:
                provider.process.kill()
            return authorise(gateway, f"k{number}")

        outcomes = dict(enumerate(pool.map(call, range(200))))
        gateway.close()
    with running("provider", tmp_path) as provider:
        done = {effect["order"] for effect in provider.ledger()["effects"]}
    charged = [outcome for number, outcome in outcomes.items() if f"k{number}" in done]
    assert len(charged) >= len([o for o in outcomes.values() if isinstance(o, Ok)]) > 0
    assert all(isinstance(outcome, Ok | Unknown) for outcome in charged)
    assert any(isinstance(outcome, Unavailable) for outcome in outcomes.values())


def test_labels_are_made_and_voided(tmp_path: Path) -> None:
    with running("carrier", tmp_path, "--scans", "off") as server:
        gateway = carrier.gateway({"url": server.url})
        assert isinstance(gateway, carrier.Carrier)
        parcel = {"order": "o", "shipment": "s1"}
        lines = [{"sku": "A", "quantity": 1}]
        made = gateway.call(request("label", "label:s1", **parcel, address={}, lines=lines))
        label = body_of(made)["label"]
        stopped = gateway.call(request("void_label", "void-label:s1", **parcel, label=label))
        assert body_of(stopped) == {"state": "voided"}
        gateway.close()


# What no sandbox does: a server that talks as the test says.


@contextmanager
def talking(talk: Talk) -> Iterator[payments.Payments]:
    """A gateway to a server that treats each connection as ``talk`` does."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                connection, _ = listener.accept()
                with connection:
                    if over.is_set():
                        return
                    talk(connection, over)

        thread = threading.Thread(target=serve)
        thread.start()
        gateway = payments.gateway({"url": f"http://127.0.0.1:{listener.getsockname()[1]}"})
        assert isinstance(gateway, payments.Payments)
        try:
            yield gateway
        finally:
            over.set()
            gateway.close()
            socket.create_connection(listener.getsockname()).close()
            thread.join()


def saying(*answers: bytes) -> Talk:
    """Read the request, say these bytes, cut the connection."""

    def talk(connection: socket.socket, _over: threading.Event) -> None:
        read_request(connection)
        for answer in answers:
            connection.sendall(answer)

    return talk


def read_request(connection: socket.socket) -> bytes:
    """The request as sent: head and body together end with the JSON's brace."""
    received = b""
    while not received.endswith(b"}"):
        received += connection.recv(65536)
    return received


def http(status: str, body: bytes, *headers: str) -> bytes:
    """A response with a length."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (http("200 OK", b"not json"), Unknown),
        (http("200 OK", b'{"state":"captured","amount":1,"amount":2}'), Unknown),
        (http("200 OK", b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"), Unknown),
        (http("200 OK", b"[1]"), Unknown),
        (http("200 OK", b""), Unknown),
        (http("200 OK", b'{"id":'), Unknown),
        (http("200 OK", b'{"id":"x"}')[:-3], Unknown),
        (b"", Unknown),
        (b"SSH-2.0-OpenSSH\r\n", Unknown),
        (http("200 OK", b'{"id":"x"}') * 2, Unknown),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (2 << 20), Unknown),
        (http("200 OK", b'{"id":"x"}'), Ok),
        (http("201 Created", b'{"id":"x"}'), Ok),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + http("200 OK", b'{"id":"x"}'), Ok),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b'5\r\n{"id"\r\n5\r\n:"x"}\r\n0\r\n\r\n',
            Ok,
        ),
        (http("402 Payment Required", b'{"code":"declined"}'), Refused),
        (http("402 Payment Required", b"<html>"), Unknown),
        (http("400 Bad Request", b'{"reason":"malformed"}'), Refused),
        (http("401 Unauthorized", b"{}"), Unavailable),
        (http("404 Not Found", b"{}"), Unavailable),
        (http("302 Found", b"", "Location: http://169.254.169.254/"), Unavailable),
        (http("500 Internal Server Error", b"{}"), Unknown),
        (http("502 Bad Gateway", b"<html>"), Unknown),
        (http("504 Gateway Timeout", b"{}"), Unknown),
    ],
)
def test_an_answer_is_judged_by_what_may_have_happened(
    answer: bytes, expected: type[Outcome]
) -> None:
    with talking(saying(answer)) as gateway:
        assert type(authorise(gateway, "o")) is expected


def test_a_connection_is_used_again(gateway: payments.Payments) -> None:
    authorise(gateway, "first")
    (kept,) = gateway._caller._idle
    authorise(gateway, "second")
    assert gateway._caller._idle == [kept]


def test_nobody_there_is_unavailable() -> None:
    gateway = payments.gateway({"url": f"http://127.0.0.1:{unused_port()}"})
    outcome = gateway.call(request("authorise", "k", order="o"))
    assert isinstance(outcome, Unavailable)
    assert "cannot connect" in outcome.reason


def test_a_dripping_answer_does_not_outlast_the_timeout() -> None:
    """Each byte comes in time, the whole never does: the bound is of the call, not of a read."""

    def drip(connection: socket.socket, over: threading.Event) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        try:
            while not over.wait(0.02):
                connection.sendall(b"x")
        except OSError:
            return  # the caller gave up, as it should

    with talking(drip) as gateway:
        assert authorise(gateway, "o", seconds=0.3) == Unknown("no whole answer: timed out")


def test_the_key_and_the_trace_travel_in_headers() -> None:
    seen: list[bytes] = []

    def talk(connection: socket.socket, _over: threading.Event) -> None:
        seen.append(read_request(connection))
        connection.sendall(http("200 OK", b"{}"))

    with talking(talk) as gateway:
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        call = msgspec.structs.replace(request("void", "void:o:1", order="o"), trace=trace)
        assert isinstance(gateway.call(call), Ok)
    head = seen[0].split(b"\r\n\r\n")[0].split(b"\r\n")
    assert head[0] == b"POST /void HTTP/1.1"
    assert {b"Idempotency-Key: void:o:1", f"traceparent: {trace}".encode()} <= set(head)


@pytest.mark.parametrize("key", ["", "a b", "a\r\nX-Forged: 1", "é", "k" * 256])
def test_a_key_cannot_forge_a_header(
    gateway: payments.Payments, provider: Sandbox, key: str
) -> None:
    outcome = gateway.call(request("authorise", key, order="forged", method="tok_ok", **CARD))
    assert isinstance(outcome, Refused)
    assert provider.ledger("forged")["calls"] == []


def test_an_unknown_operation_is_refused_unsent(gateway: payments.Payments) -> None:
    assert isinstance(gateway.call(request("sing", "k", order="o")), Refused)
    assert isinstance(
        carrier.gateway({"url": "http://127.0.0.1:1"}).call(request("sing", "k")), Refused
    )
    assert isinstance(mail.gateway({"port": 1}).call(request("sing", "k")), Refused)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", None),
        ("0", 0.0),
        ("7", 7.0),
        ("soon", None),
        ("-5", None),
        ("9" * 5000, None),
        ("999999999", 3600.0),
        ("Wed, 21 Oct 2015 07:28:10 GMT", 10.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
    ],
)
def test_retry_after_is_read_as_seconds_or_date(value: str, seconds: float | None) -> None:
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    answer = Answer(status=429, body=b"", retry_after=value, date=date)
    assert retry_after_seconds(answer) == seconds
    assert judge(answer) == Unavailable("HTTP 429", seconds)


@pytest.mark.parametrize("url", [None, "", "127.0.0.1:80", "ftp://x", "http://", "http://x:y"])
def test_a_wrong_url_is_named(url: str | None) -> None:
    with pytest.raises(Problem) as caught:
        payments.gateway({"url": url})
    assert caught.value.field == "url"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({}, "port"),
        ({"port": "{mail_port}"}, "port"),
        ({"port": "65536"}, "port"),
        ({"port": True}, "port"),
        ({"port": 25, "host": ""}, "host"),
        ({"port": 25, "sender": "Shop\r\nBcc: x@example.org"}, "sender"),
    ],
)
def test_a_wrong_mail_setting_is_named(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(Problem) as caught:
        mail.gateway(settings)
    assert caught.value.field == field


def test_a_port_may_be_written_as_text() -> None:
    """Where the catalog fills in the port of a sandbox, it is text."""
    assert isinstance(mail.gateway({"port": "25", "host": "mail.example.org"}), mail.Mail)


# Mail servers that no sandbox is.

LETTER = {"to": "a@example.org", "subject": "s", "text": "t", "order": "o", "kind": "k"}


def mailing(answers: Sequence[bytes]) -> Outcome:
    """Send one message to a server that says these lines in turn, then hangs up.

    A line with "!" in front waits for the end of the message.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines:
                connection.sendall(answers[0])
                for answer in answers[1:]:
                    command = lines.readline()
                    while answer.startswith(b"!") and command not in (b".\r\n", b""):
                        command = lines.readline()
                    if not command:
                        return
                    connection.sendall(answer.removeprefix(b"!"))

        thread = threading.Thread(target=serve)
        thread.start()
        gateway = mail.gateway({"port": listener.getsockname()[1]})
        assert isinstance(gateway, mail.Mail)
        outcome = gateway.call(request("send", "key", 5.0, **LETTER))
        gateway.close()
        thread.join()
    return outcome


HELLO = (b"220 hello\r\n", b"250 hi\r\n")


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ((b"554 go away\r\n",), Unavailable),
        ((b"421 too busy\r\n",), Unavailable),
        ((*HELLO, b"451 later\r\n"), Unavailable),
        ((*HELLO, b"250 ok\r\n", b"550 no such person\r\n"), Refused),
        ((*HELLO, b"250 ok\r\n"), Unavailable),
        ((*HELLO, b"250 ok\r\n", b"250 ok\r\n", b"452 full\r\n"), Unavailable),
        ((*HELLO, b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"), Unknown),
        ((*HELLO, b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n", b"!what\r\n"), Unknown),
        ((*HELLO, b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n", b"!552 big\r\n"), Refused),
        ((*HELLO, b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n", b"!250 ok\r\n"), Ok),
    ],
)
def test_mail_is_unknown_only_once_it_is_on_its_way(
    answers: tuple[bytes, ...], expected: type[Outcome]
) -> None:
    assert type(mailing(answers)) is expected


def test_no_mail_server_is_unavailable() -> None:
    gateway = mail.gateway({"port": unused_port()})
    assert isinstance(gateway.call(request("send", "key", **LETTER)), Unavailable)
