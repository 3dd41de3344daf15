"""The sandbox provider: what it promises, how it fails on demand, what its ledger keeps."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.flows.orders.sandbox_process import Sandbox, open_door, running
from tests.support import eventually


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with running("provider", tmp_path_factory.mktemp("provider")) as sandbox:
        yield sandbox


def authorise(
    sandbox: Sandbox, order: str, amount: int = 1000, method: str = "tok_ok", key: str = ""
) -> httpx.Response:
    return sandbox.post(
        "/authorise",
        key or f"authorise:{order}:1",
        order=order,
        group="1",
        amount=amount,
        currency="EUR",
        method=method,
        customer="c-1",
    )


def capture(sandbox: Sandbox, order: str, payment: str, amount: int = 1000) -> httpx.Response:
    return sandbox.post(
        "/capture",
        f"capture:{order}:1",
        order=order,
        group="1",
        payment=payment,
        amount=amount,
        currency="EUR",
    )


def void(sandbox: Sandbox, order: str) -> httpx.Response:
    return sandbox.post("/void", f"void:{order}:1", order=order, group="1")


def refund(sandbox: Sandbox, order: str, payment: str, amount: int, refund: str) -> httpx.Response:
    return sandbox.post(
        "/refund",
        f"refund:{order}:{refund}",
        order=order,
        refund=refund,
        payment=payment,
        amount=amount,
        currency="EUR",
    )


def paid(sandbox: Sandbox, order: str, amount: int = 1000) -> str:
    """The payment of an order that was authorised and captured."""
    payment: str = authorise(sandbox, order, amount).json()["id"]
    assert capture(sandbox, order, payment, amount).status_code == 200
    return payment


def test_money_is_held_taken_and_given_back(provider: Sandbox) -> None:
    held = authorise(provider, "life")
    assert held.status_code == 200
    payment = held.json()["id"]
    expected = {"id": payment, "state": "authorised", "amount": 1000, "currency": "EUR"}
    assert held.json() == expected
    taken = capture(provider, "life", payment, 900).json()
    assert (taken["state"], taken["amount"], taken["currency"]) == ("captured", 900, "EUR")
    given = refund(provider, "life", payment, 900, "r1")
    assert given.json() == {"state": "refunded", "amount": 900}
    rows = provider.ledger("life")
    assert [(e["operation"], e["amount"]) for e in rows["effects"]] == [
        ("authorise", 1000),
        ("capture", 900),
        ("refund", 900),
    ]
    assert [(c["key"], c["outcome"], c["status"]) for c in rows["calls"]] == [
        ("authorise:life:1", "done", 200),
        ("capture:life:1", "done", 200),
        ("refund:life:r1", "done", 200),
    ]


def test_a_key_gets_its_first_outcome_again(provider: Sandbox) -> None:
    first, again = authorise(provider, "twice"), authorise(provider, "twice")
    assert first.content == again.content
    other = authorise(provider, "twice", amount=1)
    assert other.status_code == 422
    assert provider.effects("twice") == ["authorise"]
    outcomes = [call["outcome"] for call in provider.ledger("twice")["calls"]]
    assert outcomes == ["done", "repeated", "mismatched"]


def test_the_order_of_fields_does_not_make_another_body(provider: Sandbox) -> None:
    fields = {"order": "o-fields", "group": "1"}
    first = provider.post("/void", "void:o-fields:1", **fields)
    again = provider.post("/void", "void:o-fields:1", **dict(reversed(fields.items())))
    assert (first.status_code, again.status_code) == (200, 200)


def test_a_key_of_one_operation_does_not_serve_another(provider: Sandbox) -> None:
    fields = {"order": "crossed", "group": "1", "payment": "p", "amount": 1, "currency": "EUR"}
    assert provider.post("/void", "crossed", **fields).status_code == 200
    assert provider.post("/capture", "crossed", **fields).status_code == 422


def test_a_refusal_is_kept_under_its_key(provider: Sandbox) -> None:
    first = authorise(provider, "poor", method="tok_decline")
    assert first.status_code == 402
    assert first.json()["code"] == "card_declined"
    assert authorise(provider, "poor", method="tok_decline").content == first.content
    kept = provider.http.get("/payments/authorise:poor:1").json()
    assert (kept["status"], kept["body"]) == (402, first.json())
    assert provider.effects("poor") == []


def test_an_unknown_key_has_no_outcome(provider: Sandbox) -> None:
    assert provider.http.get("/payments/never-used").status_code == 404


def test_fifty_calls_at_once_with_one_key_are_one_charge(provider: Sandbox) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: authorise(provider, "crowd").content, range(50)))
    assert len(set(answers)) == 1
    assert provider.effects("crowd") == ["authorise"]


def test_no_more_is_captured_than_was_authorised(provider: Sandbox) -> None:
    payment = authorise(provider, "greedy").json()["id"]
    answer = capture(provider, "greedy", payment, 1001)
    assert (answer.status_code, answer.json()["code"]) == (402, "amount_too_large")
    assert provider.effects("greedy") == ["authorise"]


def test_a_second_capture_under_another_key_finds_nothing_left(provider: Sandbox) -> None:
    payment = paid(provider, "doubled")
    fields = {"order": "doubled", "group": "1", "payment": payment, "amount": 1000}
    answer = provider.post("/capture", "another key", currency="EUR", **fields)
    assert answer.status_code == 402


def test_refunds_together_stay_below_the_captured(provider: Sandbox) -> None:
    payment = paid(provider, "back")
    assert refund(provider, "back", payment, 600, "r1").status_code == 200
    assert refund(provider, "back", payment, 600, "r2").status_code == 402
    assert refund(provider, "back", payment, 400, "r3").status_code == 200


def test_a_void_lets_go_of_what_is_held(provider: Sandbox) -> None:
    payment = authorise(provider, "off").json()["id"]
    assert void(provider, "off").json() == {"state": "voided"}
    assert capture(provider, "off", payment).json()["code"] == "voided"


def test_a_void_before_the_authorise_declines_it_later(provider: Sandbox) -> None:
    assert void(provider, "early").status_code == 200
    late = authorise(provider, "early")
    assert (late.status_code, late.json()["code"]) == (402, "voided")


def test_captured_money_is_not_voided(provider: Sandbox) -> None:
    paid(provider, "gone")
    assert void(provider, "gone").status_code == 409
    assert provider.effects("gone") == ["authorise", "capture"]


def test_the_card_of_the_wrong_amount_takes_another_one(provider: Sandbox) -> None:
    payment = authorise(provider, "odd", method="tok_wrong_amount").json()["id"]
    assert capture(provider, "odd", payment).json()["amount"] == 999
    assert provider.ledger("odd")["effects"][1]["amount"] == 999


def test_the_card_of_503_is_served_at_the_third_call(provider: Sandbox) -> None:
    statuses = [authorise(provider, "down", method="tok_503").status_code for _ in range(3)]
    assert statuses == [503, 503, 200]
    assert provider.effects("down") == ["authorise"]


def test_the_card_of_429_says_when_to_come_back(provider: Sandbox) -> None:
    first = authorise(provider, "busy", method="tok_429")
    assert (first.status_code, first.headers["retry-after"]) == (429, "1")
    assert authorise(provider, "busy", method="tok_429").status_code == 200


def test_the_card_of_the_timeout_is_charged_and_hears_nothing(provider: Sandbox) -> None:
    fields = {"order": "mute", "group": "1", "amount": 7, "currency": "EUR"}
    with pytest.raises(httpx.ReadTimeout):
        provider.http.post(
            "/authorise",
            json={**fields, "method": "tok_timeout"},
            headers={"Idempotency-Key": "authorise:mute:1"},
            timeout=0.3,
        )
    rows = provider.ledger("mute")
    assert [effect["operation"] for effect in rows["effects"]] == ["authorise"]
    assert (rows["calls"][0]["outcome"], rows["calls"][0]["status"]) == ("done", 0)
    again = provider.post("/authorise", "authorise:mute:1", **fields, method="tok_timeout")
    assert again.json()["id"] == rows["effects"][0]["id"]


def test_a_hanging_call_blocks_nobody(provider: Sandbox) -> None:
    provider.script("authorise", "never_answers", order="hung", times=30)
    with ThreadPoolExecutor(30) as pool:
        hung = [pool.submit(_give_up_soon, provider, n) for n in range(30)]
        assert authorise(provider, "quick").status_code == 200
        assert all(waiting.result() for waiting in hung)
    assert provider.effects("hung") == []
    assert {call["outcome"] for call in provider.ledger("hung")["calls"]} == {"silent"}


def _give_up_soon(provider: Sandbox, number: int) -> bool:
    body = {"order": "hung", "group": "1", "amount": 1, "currency": "EUR", "method": "tok_ok"}
    headers = {"Idempotency-Key": f"hung:{number}"}
    with pytest.raises(httpx.ReadTimeout):
        provider.http.post("/authorise", json=body, headers=headers, timeout=1.0)
    return True


def test_a_500_after_the_charge_is_found_by_its_key(provider: Sandbox) -> None:
    provider.script("*", "5xx_after", order="lost")
    assert authorise(provider, "lost").status_code == 500
    assert provider.effects("lost") == ["authorise"]
    assert authorise(provider, "lost").status_code == 200
    assert provider.effects("lost") == ["authorise"]


def test_a_scripted_fault_hits_its_order_and_operation_only(provider: Sandbox) -> None:
    provider.script("capture", "decline", order="mine")
    payment = authorise(provider, "mine").json()["id"]
    assert authorise(provider, "other").status_code == 200
    assert capture(provider, "mine", payment).status_code == 402


def test_what_happened_is_not_declined_afterwards(provider: Sandbox) -> None:
    assert authorise(provider, "settled").status_code == 200
    provider.script("authorise", "decline", order="settled")
    assert authorise(provider, "settled").status_code == 200
    assert authorise(provider, "settled", key="a new key").status_code == 402


@pytest.mark.parametrize(
    "script",
    [
        {"operation": "authorise", "fault": "earthquake"},
        {"operation": "sing", "fault": "5xx"},
        {"operation": "authorise", "fault": "5xx", "times": 0},
        {"operation": "authorise", "fault": "void_refused"},
    ],
)
def test_a_script_it_does_not_know_is_refused(provider: Sandbox, script: dict[str, Any]) -> None:
    assert provider.http.post("/_faults", json=script).status_code == 400


@pytest.mark.parametrize(
    ("key", "body", "status"),
    [
        ("", b"{}", 400),
        ("k" * 256, b"{}", 400),
        ("bad", b"{", 400),
        ("bad", b'{"order":"o","group":"1","amount":-1,"currency":"EUR","method":"m"}', 400),
        ("bad", b'{"order":"o","group":"1","amount":1.5,"currency":"EUR","method":"m"}', 400),
        ("bad", b'{"order":"o","group":"1","amount":NaN,"currency":"EUR","method":"m"}', 400),
        ("bad", b'{"order":"","group":"1","amount":1,"currency":"EUR","method":"m"}', 400),
        ("bad", b'{"order":"o","group":"1","amount":1,"currency":"euro","method":"m"}', 400),
        ("bad", b"[" * 100_000, 400),
        ("bad", b'"' + b"x" * (300 << 10) + b'"', 413),
    ],
)
def test_a_malformed_call_does_nothing(
    provider: Sandbox, key: str, body: bytes, status: int
) -> None:
    headers = {"Idempotency-Key": key}
    answer = provider.http.post("/authorise", content=body, headers=headers)
    assert answer.status_code == status
    assert answer.json()["reason"]
    assert provider.effects("o") == []


def test_a_forged_host_is_refused(provider: Sandbox) -> None:
    answer = provider.http.get("/ledger", headers={"Host": "evil.example"})
    assert answer.status_code == 421


def test_the_ledger_is_read_page_by_page(provider: Sandbox) -> None:
    for number in range(3):
        authorise(provider, "pages", key=f"pages:{number}")
    first = provider.ledger("pages")["calls"][0]["seq"]
    params: dict[str, str | int] = {"order": "pages", "after": first}
    rest = provider.http.get("/ledger", params=params).json()["calls"]
    assert [call["key"] for call in rest] == ["pages:1", "pages:2"]


def test_the_webhook_overtakes_the_answer(tmp_path: Path) -> None:
    with open_door() as door, running("provider", tmp_path, "--door", door.url) as provider:
        provider.script("authorise", "webhook_first", order="fast")
        payment = authorise(provider, "fast").json()["id"]
        (webhook,) = door.received  # here already, without waiting
        id_ = webhook.pop("id")
        assert id_.startswith("evt_")
        assert webhook == {
            "path": "/webhooks/payments",
            "type": "payment.authorised",
            "order": "fast",
            "group": "1",
            "amount": 1000,
            "currency": "EUR",
            "payment": payment,
        }


def test_faults_are_listed_cleared_and_outlive_a_restart(tmp_path: Path) -> None:
    with running("provider", tmp_path) as provider:
        provider.script("authorise", "5xx", order="o", times=2)
        assert authorise(provider, "o").status_code == 503
        provider.kill()
    with running("provider", tmp_path) as provider:
        (left,) = provider.http.get("/_faults").json()["faults"]
        assert (left["fault"], left["order"], left["times"]) == ("5xx", "o", 1)
        assert provider.http.delete("/_faults").json() == {"cleared": 1}
        assert authorise(provider, "o").status_code == 200


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    """Killed under load: whatever was answered is in the ledger, and keys keep their outcome."""
    answered: dict[str, dict[str, Any]] = {}
    with running("provider", tmp_path) as provider, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: _try(provider, f"k{n}", n, answered), range(200)))
    assert 0 < len(answered) < 200
    with running("provider", tmp_path) as provider:
        for order, answer in answered.items():
            assert authorise(provider, order).json() == answer
        for number in range(200):
            assert authorise(provider, f"k{number}").status_code == 200
        effects = provider.ledger()["effects"]
    assert sorted(effect["order"] for effect in effects) == sorted(f"k{n}" for n in range(200))


def _try(provider: Sandbox, order: str, number: int, answered: dict[str, Any]) -> None:
    if number == 100:
        provider.process.kill()
    with contextlib.suppress(httpx.TransportError):  # killed: no answer, no promise
        answered[order] = authorise(provider, order).json()


def test_it_ends_cleanly_while_a_call_hangs(tmp_path: Path) -> None:
    with running("provider", tmp_path) as provider:
        provider.script("authorise", "never_answers", order="hung")
        with ThreadPoolExecutor(1) as pool:
            hung = pool.submit(authorise, provider, "hung")
            eventually(lambda: provider.ledger("hung")["calls"])
            assert provider.end() == 0
            assert hung.result().status_code == 504


def test_a_full_disk_charges_nobody_and_is_got_over(tmp_path: Path) -> None:
    with running("provider", tmp_path) as provider:
        assert authorise(provider, "before").status_code == 200
        _, hard = resource.prlimit(provider.process.pid, resource.RLIMIT_FSIZE)
        size = (tmp_path / "provider.sqlite-wal").stat().st_size
        resource.prlimit(provider.process.pid, resource.RLIMIT_FSIZE, (size, hard))
        assert authorise(provider, "full").status_code == 503
        assert provider.effects("full") == []
        assert provider.effects("before") == ["authorise"]
        resource.prlimit(provider.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert authorise(provider, "full").status_code == 200


def test_a_ledger_serves_one_process(tmp_path: Path) -> None:
    with (
        running("provider", tmp_path),
        pytest.raises(AssertionError, match="in use by another sandbox"),
    ):
        Sandbox("provider", tmp_path)


def test_a_taken_port_is_named(tmp_path: Path, provider: Sandbox) -> None:
    with pytest.raises(AssertionError, match=f"cannot listen on 127.0.0.1:{provider.port}"):
        Sandbox("provider", tmp_path, "--port", str(provider.port))
